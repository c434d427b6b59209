"""All models of a results folder, asked by case and kept as readable JSON.

Who may answer a case is decided by the format's patterns, as in the lab; among several the model's choice is the
least predicted time, measured ranges before extrapolated ones, and a measured time before a prediction that is not
surely less. Levels that no kernel runs together are added up by equation 2, and a level that adds to Y reads it first:
m n values at the machine's measured rate. A question that nothing was measured for is a ModelError that says what to
run: nothing is guessed, and nothing vanishes from a sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

# pandas: the table of errors is shown, sorted and joined by users as a frame.
import pandas as pd

from sparsebench.case import ITEM_BYTES, Case
from sparsebench.desk.dense import DenseModel
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.images import AsImages, Images
from sparsebench.desk.irf import SINGLE, irf, part_of
from sparsebench.desk.judged import BEST, LAWS
from sparsebench.desk.model import HeldOut, Prediction, to_choose
from sparsebench.desk.observe import DENSE, Setting, blocks_of, kept_share, level_sparsities
from sparsebench.desk.points import NOTHING
from sparsebench.desk.sparse import SparseModel
from sparsebench.errors import ModelError
from sparsebench.formats import FORMATS

# 1: one law; 2: four laws; 3: features of the learned law; 4: which way a kernel takes is one; 5: channels last
SCHEMA = 5
IN_A_NETWORK = "weights_cold"


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a case is asked: what a case itself does not say."""

    machine: str
    cache: str = IN_A_NETWORK
    threads: int = 1

    def setting(self, case: Case, kernel: str) -> Setting:
        """The setting of `kernel` on `case` here."""
        return Setting.of(case, kernel, self.machine, self.cache, self.threads)


@dataclass(frozen=True, eq=False)
class FittedModels:
    """Sparse and dense models by setting, and how many records they were made from and not made from (by reason).

    images has what dense convolutions take with channels last.
    law is the name of the law that was asked for, or BEST; hardware is what was known of the machines.
    """

    law: str
    sparse: Mapping[Setting, SparseModel]
    dense: Mapping[Setting, DenseModel]
    images: Mapping[Setting, Images] = field(default_factory=dict)
    records: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    hardware: Mapping[str, Hardware] = field(default_factory=dict)

    @property
    def machines(self) -> tuple[str, ...]:
        """Machines with any model."""
        return tuple(sorted({setting.machine for setting in (*self.sparse, *self.dense)}))

    def place(self, machine: str | None = None, cache: str | None = None, threads: int = 1) -> Place:
        """A place on `machine`, or on the only one there is; ModelError where that is not clear.

        Without a cache state it is the one a layer inside a network sees, where that was measured.
        """
        have = ", ".join(self.machines) or "none"
        if machine is None and len(self.machines) != 1:
            raise ModelError(
                f"a prediction needs one machine, none was named and there are models of {have}; "
                f"name one with --machine, or run `sparsebench run SUITE` first"
            )
        if machine is not None and machine not in self.machines:
            raise ModelError(f"machine {machine} has no models, there are {have}; run `sparsebench run SUITE` on it")
        machine = machine or self.machines[0]
        measured = sorted({setting.cache for setting in (*self.sparse, *self.dense) if setting.machine == machine})
        usual = IN_A_NETWORK if IN_A_NETWORK in measured or not measured else measured[0]
        return Place(machine, cache or usual, threads)

    def dense_time(self, case: Case, place: Place) -> Prediction:
        """The fastest dense kernel's time on the problem under `case`."""
        setting = place.setting(case, DENSE)
        if setting not in self.dense:
            raise ModelError(_missing("any dense kernel", case.problem, setting, [], "dense.*"))
        return self.dense[setting].predict(case.problem)

    def as_images(self, case: Case, place: Place) -> AsImages | None:
        """What the convolution under `case` takes with channels last; None where nothing was timed so."""
        found = self.images.get(place.setting(case, DENSE))
        return None if found is None else found.of(case.problem)

    def sparse_time(self, case: Case, place: Place, kernel: str | None = None) -> Prediction:
        """The time of `case` by `kernel`, or by the model's choice; `a + b` runs level 1 by a and level 2 by b."""
        if kernel is None:
            return self._choice(case, place)
        if "+" in kernel:
            return self._equation_2(case, place, [name.strip() for name in kernel.split("+")])
        return self.sparse_times([case], place, kernel)[0]

    def sparse_times(self, cases: Sequence[Case], place: Place, kernel: str) -> list[Prediction]:
        """The times by `kernel` of at least one case, all of one op, dtype, math and layout, at once."""
        setting = place.setting(cases[0], kernel)
        if setting not in self.sparse:
            raise ModelError(_missing(kernel, cases[0], setting, self.kernels(cases[0], place), kernel))
        model = self.sparse[setting]
        measured = [model.measured(case) for case in cases]
        guesses = iter(self._by_law(model, [case for case, known in zip(cases, measured, strict=True) if not known]))
        return [known or next(guesses) for known in measured]

    def _by_law(self, model: SparseModel, cases: Sequence[Case]) -> list[Prediction]:
        """What one model's laws say; one that leans on a dense time that is itself predicted gets its interval too."""
        dense = self.dense.get(model.setting.with_kernel(DENSE))
        beside = dense.told(cases) if dense else []
        told = model.by_law(cases, [known for _, known in beside] or [NOTHING] * len(cases))
        return (
            [
                _leaning(guess, time) if model.leans(case) and not time.measured else guess
                for case, guess, (time, _) in zip(cases, told, beside, strict=True)
            ]
            if beside
            else told
        )

    def irf(self, case: Case, place: Place, kernel: str | None = None) -> float:
        """irf = (1 - s) x T_dense / T_sparse of `case`; above 1 where a kernel wastes less than the dense one."""
        return irf(kept_share(case), self.dense_time(case, place).time_s, self.sparse_time(case, place, kernel).time_s)

    def kernels(self, case: Case, place: Place) -> list[str]:
        """Sparse kernels measured in this setting, by name."""
        return sorted(setting.kernel for setting in self.sparse if setting == place.setting(case, setting.kernel))

    def _choice(self, case: Case, place: Place) -> Prediction:
        found = [self.sparse_time(case, place, name) for name in self._able(case, place)]
        if part_of(case) != SINGLE and all(guess.extrapolated for guess in found):
            found.append(self._equation_2(case, place, [None] * len(blocks_of(case))))
        if not found:
            raise ModelError(_missing("any kernel", case, place.setting(case, "*"), self.kernels(case, place), "*"))
        chosen = to_choose(found, lambda guess: guess)
        assert chosen is not None
        return chosen

    def _able(self, case: Case, place: Place) -> list[str]:
        """Kernels whose format takes the case's pattern and whose model knows its levels."""
        able = []
        for name in self.kernels(case, place):
            model = self.sparse[place.setting(case, name)]
            if _takes(name, case, model) and part_of(case) in model.parts:
                able.append(name)
        return able

    def _equation_2(self, case: Case, place: Place, kernels: Sequence[str | None]) -> Prediction:
        """C_sparse as the sum over levels, each a kernel of its own that adds to Y (HBsNN, equation 2)."""
        levels = level_cases(case)
        if len(levels) != len(kernels):
            raise ModelError(
                f"{case.describe()} has {len(levels)} levels and {len(kernels)} kernels were named; name one a level"
            )
        found = [self.sparse_time(level, place, kernel) for level, kernel in zip(levels, kernels, strict=True)]
        whys = ["a kernel a level (equation 2)", *(guess.why for guess in found if guess.why)]
        again_s = 0.0
        if hardware := self.hardware.get(place.machine):
            again_s = (len(levels) - 1) * case.m * case.n * ITEM_BYTES[case.dtype] / hardware.bytes_per_s
        return Prediction(
            time_s=again_s + sum(guess.time_s for guess in found),
            low_s=again_s + sum(guess.low_s for guess in found),
            high_s=again_s + sum(guess.high_s for guess in found),
            extrapolated=any(guess.extrapolated for guess in found),
            why="; ".join(dict.fromkeys(whys)),
            kernel=" + ".join(guess.kernel for guess in found),
        )

    @property
    def _models(self) -> list[tuple[Setting, DenseModel | SparseModel]]:
        return [*self.dense.items(), *self.sparse.items()]

    @property
    def errors(self) -> pd.DataFrame:
        """Held-out errors of the laws that speak, a row for each model, part and way of holding out.

        A column of each law's name holds that law's mean error, nan where it could not be fitted.
        """
        told, about = self.rivals, ["machine", "kernel", "setting", "levels", "how"]
        beside = told.pivot(index=about, columns="law", values="mape").reindex(columns=list(LAWS)).astype(float)
        return told[told.speaks.astype(bool)].drop(columns="speaks").join(beside, on=about).reset_index(drop=True)

    @property
    def rivals(self) -> pd.DataFrame:
        """Held-out errors of every law that was tried; `speaks` marks the chosen one, `floor` is the noise beside it.

        floor and seconds_floor are of paired ratios and plain seconds, nan where nothing was timed twice.
        """
        rows = [
            {"machine": setting.machine, "kernel": setting.kernel, "setting": setting.describe(), "levels": part}
            | {"law": law, "speaks": law == model.laws[part]}
            | asdict(seen)
            | _floor(model, part)
            for setting, model in sorted(self._models, key=lambda pair: pair[0])
            for part, laws in model.rivals.items()
            for law, errors in laws.items()
            for seen in errors
        ]
        known = ["machine", "kernel", "setting", "levels", "law", "speaks", *HeldOut.__dataclass_fields__]
        return pd.DataFrame(rows, columns=[*known, "floor", "seconds_floor"])

    def to_json(self) -> dict[str, Any]:
        """Everything predictions need, readable: `irf.json`."""
        return {
            "schema": SCHEMA,
            "law": self.law,
            "records": self.records,
            "left_out": dict(self.left_out),
            "hardware": {name: known.to_json() for name, known in sorted(self.hardware.items())},
            "dense": [model.to_json() for _, model in sorted(self.dense.items())],
            "sparse": [model.to_json() for _, model in sorted(self.sparse.items(), key=lambda pair: pair[0])],
            "images": [model.to_json() for _, model in sorted(self.images.items())],
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The models that `to_json` wrote; ModelError on anything else."""
        if isinstance(data, Mapping) and data.get("schema") in range(1, SCHEMA):
            raise ModelError(
                f"a model file of schema {data['schema']}, whose laws were others; this reads schema {SCHEMA}; "
                f"`sparsebench fit` writes one from the same records"
            )
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA or data.get("law") not in (BEST, *LAWS):
            raise ModelError(f"not a model file of schema {SCHEMA}; `sparsebench fit` writes one from records")
        try:
            sparse = [SparseModel.from_json(model) for model in data["sparse"]]
            dense = [DenseModel.from_json(model) for model in data["dense"]]
            images = [Images.from_json(model) for model in data["images"]]
            return cls(
                data["law"], {model.setting: model for model in sparse}, {model.setting: model for model in dense},
                {model.last.setting: model for model in images}, int(data["records"]), dict(data["left_out"]),
                {name: Hardware(**known) for name, known in data["hardware"].items()},
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ModelError(f"a broken model file: {what}; write it anew with `sparsebench fit`") from None


def level_cases(case: Case) -> list[Case]:
    """Each level of `case` as a case of its own: blocks, or unstructured where they are 1x1."""
    cases = []
    for (_, bh, bw), sparsity in zip(blocks_of(case), level_sparsities(case), strict=True):
        single = (bh, bw) == (1, 1)
        params: dict[str, Any] = {} if single else {"block": [bh, bw]}
        cases.append(replace(case, pattern="unstructured" if single else "block", params=params, sparsity=sparsity))
    return cases


def _takes(kernel: str, case: Case, model: SparseModel) -> bool:
    """Whether the kernel's format can store the pattern; a plugin's format is judged by what it was measured on."""
    form = FORMATS.get(kernel.split(".")[0])
    asked = {case.pattern, "block"} if case.pattern == "unstructured" else {case.pattern}  # 1x1 blocks are unstructured
    if form is None:
        return bool(asked & model.patterns)
    return not form.patterns or bool(asked & set(form.patterns))


def _leaning(told: Prediction, dense: Prediction) -> Prediction:
    """`told`, as unsure of its dense time as that is."""
    return replace(
        told,
        low_s=told.low_s * dense.low_s / dense.time_s,
        high_s=told.high_s * dense.high_s / dense.time_s,
        extrapolated=told.extrapolated or dense.extrapolated,
        why="; ".join(dict.fromkeys(filter(None, (told.why, dense.why)))),
    )


def _floor(model: DenseModel | SparseModel, part: str) -> dict[str, float]:
    floor = model.floors.get(part) if isinstance(model, SparseModel) else None
    return {"floor": floor.ratio if floor else math.nan, "seconds_floor": floor.seconds if floor else math.nan}


def _missing(who: str, case: Case, setting: Setting, have: Sequence[str], glob: str) -> str:
    found = f"there are models of {', '.join(have)}" if have else "nothing was measured so"
    return (
        f"no model says how long {who} takes for {case.describe()} on machine {setting.machine} "
        f"({setting.describe()}); {found}; run `sparsebench run SUITE --kernels '{glob}'` there with such cases, "
        f"then predict again"
    )
