"""A network under each arm and each layer's fastest arm: what advice is made of, each question asked once.

A layer's time is measured where it was timed and predicted where not (desk/sparse.py). Among several kernels and
patterns the least time wins, measured ranges before extrapolated ones, and a prediction displaces a measured time only
where its whole interval is less. A layer that an arm does not fit stays dense.
Questions to one kernel are asked together: a law takes about as long over one as over a thousand.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sparsebench.case import Case, Layout
from sparsebench.desk.advise_arms import Arm, known_arms
from sparsebench.desk.fitted import FittedModels, Place
from sparsebench.desk.images import AsImages, Walk
from sparsebench.desk.irf import irf
from sparsebench.desk.layers import UNPRUNABLE, Interval, LayerPrediction
from sparsebench.desk.model import Prediction, to_choose
from sparsebench.desk.observe import DENSE, kept_share
from sparsebench.desk.predict import NetworkPrediction
from sparsebench.errors import ModelError
from sparsebench.network import Layer, Network


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A network with some layers sparse; arms are those of its sparse layers, each once, in order."""

    network: NetworkPrediction
    arms: tuple[Arm, ...]
    speedup: Interval

    @property
    def extrapolated(self) -> bool:
        """Whether any layer, dense or sparse, lies outside what was measured."""
        return any(layer.extrapolated for layer in self.network.layers)

    @property
    def measured(self) -> bool:
        """Whether every layer was timed itself, both ways."""
        return all(layer.dense.measured and layer.chosen.measured for layer in self.network.layers)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernels of the sparse layers, each once."""
        return tuple(dict.fromkeys(layer.sparse.kernel for layer in self.network.layers if layer.sparse))

    @property
    def rank(self) -> tuple[bool, float]:
        """Less is better: what was measured around first, then the faster."""
        guessed = any(layer.sparse.extrapolated for layer in self.network.layers if layer.sparse)
        return guessed, -self.speedup.value


@dataclass(slots=True, eq=False)
class Asker:
    """Asks `fitted` about layers of `network`, and remembers."""

    fitted: FittedModels
    place: Place
    network: Network
    layout: Layout = "feature"
    _arms: dict[str, dict[str, Arm]] = field(default_factory=dict)
    _dense_times: dict[Any, Prediction] = field(default_factory=dict)
    _sparse_times: dict[tuple[Any, str], Prediction] = field(default_factory=dict)
    _images: dict[Any, AsImages | None] = field(default_factory=dict)

    def arms(self) -> list[Arm]:
        """What any prunable layer may become; ModelError where nothing was timed."""
        prunable = [layer for layer in self.network.layers if layer.prunable]
        if not prunable:
            raise ModelError(f"no layer of {self.network.name} may be pruned (prunable: false); none can be advised on")
        cases = [layer.case(layout=self.layout) for layer in prunable]
        found = {key: arm for case in cases for key, arm in self._known(case).items()}
        if not found:  # asking for a time makes the one message that says what is missing, and how to measure it
            self.fitted.sparse_time(replace(cases[0], pattern="unstructured", sparsity=0.9), self.place)
        return list(found.values())

    def learn(self, arms: Sequence[Arm], rows: Sequence[float], batches: Sequence[int]) -> None:
        """Ask at once all that `uniform` and `fastest` ask of these arms, rows of sparsity and batches."""
        together: dict[tuple[str, str], dict[Any, Case]] = defaultdict(dict)
        prunable = [layer for layer in self.network.layers if layer.prunable]
        choices = [(arm, s) for arm in arms for s in {*arm.asked, *filter(None, map(arm.at, rows))}]
        for dense in (layer.case(batch, layout=self.layout) for layer in prunable for batch in batches):
            for case, kernel in (asked for arm, s in choices for asked in self._questions(arm, s, dense)):
                if (case.identity, kernel) not in self._sparse_times:
                    together[case.op, kernel][case.identity] = case
        for (_, kernel), cases in together.items():
            self._ask(kernel, list(cases.values()))

    def measured_batches(self) -> set[int]:
        """Batches at which the dense time of every prunable layer was measured."""
        prunable = [layer for layer in self.network.layers if layer.prunable]
        model = self.fitted.dense.get(self.place.setting(prunable[0].case(layout=self.layout), DENSE))
        asked = [json.loads(problem) for problem in (model.timed if model else ())]
        first = prunable[0]
        batches = {each["n"] // first.n for each in asked if each["n"] % first.n == 0}
        return {n for n in batches if all(self._dense(x.case(n, layout=self.layout)).measured for x in prunable)}

    def uniform(self, arm: Arm, sparsity: float, batch: int) -> Answer | None:
        """The network with this arm wherever it fits; None where it fits no layer that was timed."""
        return self._answer([(arm, sparsity)], batch, keep=True)

    def fastest(self, arms: Sequence[Arm], sparsity: float, batch: int) -> Answer | None:
        """Each layer by its fastest arm, dense where that is faster; None where nothing beats dense on any layer."""
        here = [(arm, at) for arm in arms if (at := arm.at(sparsity)) is not None]
        return self._answer(here, batch, keep=False)

    def _answer(self, choices: Sequence[tuple[Arm, float]], batch: int, *, keep: bool) -> Answer | None:
        """`keep` a sparse layer where the dense one is faster, or not."""
        walks = Walk(), Walk()
        found = [
            self._named(layer, choices if layer.prunable else (), batch, keep, *walks) for layer in self.network.layers
        ]
        arms = tuple(dict.fromkeys(arm for _, arm in found if arm))
        if not arms:
            return None
        layers = tuple(layer for layer, _ in found)
        whole = NetworkPrediction(self.network.name, self.place, batch, layers, layout=self.layout)
        return Answer(whole, arms, whole.layers_speedup)

    def _named(self, layer: Layer, *about: Any) -> tuple[LayerPrediction, Arm | None]:
        try:
            return self._layer(layer, *about)
        except ModelError as error:
            raise ModelError(f"layer {layer.name}: {error}") from None

    def _layer(
        self, layer: Layer, choices: Sequence[tuple[Arm, float]], batch: int, keep: bool, dense_walk: Walk, own: Walk
    ) -> tuple[LayerPrediction, Arm | None]:
        problem = layer.case(batch, layout=self.layout)
        plain, images = self._dense(problem), self._as_images(problem)
        dense, staying, pruned = dense_walk.dense(problem, plain, images), replace(own), replace(own)
        stays = staying.dense(problem, plain, images)
        found = [
            (self._sparse(case, kernel), arm, case)
            for arm, sparsity in choices
            for case, kernel in self._questions(arm, sparsity, problem)
        ]
        best = to_choose(found, lambda one: one[0])
        sparse = pruned.sparse(problem, best[0], images) if best else stays
        if best is None or (not keep and sparse.time_s >= stays.time_s):
            own.last = staying.last
            why = "" if layer.prunable else UNPRUNABLE
            return LayerPrediction(layer, problem, dense, None, None, why, stays), None
        own.last = pruned.last
        _, arm, case = best
        factor = irf(kept_share(case), dense.time_s, sparse.time_s)
        return LayerPrediction(layer, case, dense, sparse, factor, sparse.why), arm

    def _known(self, dense: Case) -> dict[str, Arm]:
        """Arms of this kind of layer, by key."""
        if dense.op not in self._arms:
            self._arms[dense.op] = {arm.key: arm for arm in known_arms(self.fitted, self.place, dense)}
        return self._arms[dense.op]

    def _questions(self, arm: Arm, sparsity: float, dense: Case) -> list[tuple[Case, str]]:
        """The case that `arm` makes of a layer, with each kernel that was timed on such; none where it does not fit."""
        case, own = arm.case(dense, sparsity), self._known(dense).get(arm.key)
        fits = own and case.pattern_object.why_not(case.m, case.k, case.sparsity) is None
        return [(case, kernel) for kernel in own.kernels] if own and fits else []

    def _dense(self, case: Case) -> Prediction:
        if case.identity not in self._dense_times:
            self._dense_times[case.identity] = self.fitted.dense_time(case, self.place)
        return self._dense_times[case.identity]

    def _as_images(self, case: Case) -> AsImages | None:
        if case.identity not in self._images:
            self._images[case.identity] = self.fitted.as_images(case, self.place)
        return self._images[case.identity]

    def _sparse(self, case: Case, kernel: str) -> Prediction:
        if (case.identity, kernel) not in self._sparse_times:
            self._ask(kernel, [case])
        return self._sparse_times[case.identity, kernel]

    def _ask(self, kernel: str, cases: Sequence[Case]) -> None:
        """Remember what `kernel` takes for `cases` of one op: measured, or by its law."""
        told = self.fitted.sparse_times(cases, self.place, kernel)
        self._sparse_times |= {(case.identity, kernel): guess for case, guess in zip(cases, told, strict=True)}
