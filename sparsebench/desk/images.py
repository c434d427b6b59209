"""How images lie between convolutions, and what that makes of a layer: [batch, c, h, w], or with channels last.

A problem of a suite hands a convolution its images as [batch, c, h, w] and wants them back so: a kernel that works with
channels last pays for both ways. In a network it does not: what stands behind it takes them as they are. With 1x1
filters on large planes that is a third of the time of the best kernel on [batch, c, h, w]. A sparse kernel behind such
a layer pays for its X.

So two things are fitted beside the fastest dense kernel: what the fastest one takes on images that lie with channels
last already (`last`), and what bringing X and Y there and back takes (`turned`), of which X is its share by bytes.
Records know both: a dense kernel of a convolution has a layout change where it works with channels last.

`Walk` goes through a network, layer after layer as its file lists them, and lets each take what is least where it
stands, as `verify` does; so that what adds images up may count too, predict.py weighs that against leaving all images
alike. What lies between layers - norms, activations, pools - keeps images as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from sparsebench.case import Case
from sparsebench.desk.dense import DenseModel
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.model import Prediction
from sparsebench.desk.observe import DENSE, Observation, Setting
from sparsebench.desk.observe_dense import image_observations
from sparsebench.desk.quiet import Quiet
from sparsebench.kernel import leaves_channels_last
from sparsebench.record import Record
from sparsebench.rest import Lying, lying

BROUGHT = "X brought to another layout"


@dataclass(frozen=True, slots=True)
class AsImages:
    """One convolution: its fastest dense time with channels last before and behind it, and seconds to bring X there."""

    last: Prediction
    x_turned_s: float


@dataclass(frozen=True, eq=False)
class Images:
    """What one setting's convolutions take with channels last, and to bring X and Y there and back."""

    last: DenseModel
    turned: DenseModel

    @classmethod
    def fit(cls, records: Iterable[Record], quiet: Quiet, known: Mapping[str, Hardware]) -> dict[Setting, Self]:
        """By setting, where any dense kernel was timed so."""
        groups: dict[Setting, tuple[list[Observation], list[Observation]]] = {}
        for native, turned in image_observations(records, quiet):
            pair = groups.setdefault(native.setting.with_kernel(DENSE), ([], []))
            pair[0].append(native)
            pair[1].append(turned)
        return {
            setting: cls(*(DenseModel.fit(seen, known.get(setting.machine, Hardware())) for seen in pair))
            for setting, pair in sorted(groups.items())
        }

    def of(self, case: Case) -> AsImages:
        """What the problem under `case` takes."""
        turned = self.turned.predict(case).time_s
        return AsImages(self.last.predict(case), turned * _share_of_x(case))

    def to_json(self) -> dict[str, Any]:
        """Both models."""
        return {"last": self.last.to_json(), "turned": self.turned.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        return cls(DenseModel.from_json(data["last"]), DenseModel.from_json(data["turned"]))


def _share_of_x(case: Case) -> float:
    conv = case.conv
    assert conv is not None
    x, y = conv.batch * conv.c * conv.h * conv.w, case.m * case.n
    return x / (x + y)


@dataclass(slots=True)
class Walk:
    """One way through a network.

    last  how the image lies that the next layer is handed
    to    where all dense layers are to leave channels, if not as is least for each
    """

    last: bool = False
    to: Literal["first", "last"] | None = None
    _left: dict[str, int] = field(default_factory=lambda: {"first": 0, "last": 0, "by sparse layers": 0})  # entries

    @property
    def lying(self) -> Lying:
        """How the dense layers so far left images."""
        return lying(self._left["last"], self._left["first"], sum(self._left.values()))

    def dense(self, case: Case, plain: Prediction, images: AsImages | None) -> Prediction:
        """A dense layer, `plain` where images lie as [batch, c, h, w]: whichever is less here."""
        if case.conv is None or images is None:
            return plain
        found = self._dense(plain, images)
        self._left["last" if self.last else "first"] += case.m * case.n
        return found

    def _dense(self, plain: Prediction, images: AsImages) -> Prediction:
        here = brought(plain, images.x_turned_s if self.last else 0.0)
        there = brought(images.last, 0.0 if self.last else images.x_turned_s)
        if self.to == "last" or (self.to is None and there.time_s < here.time_s):
            self.last = True
            return there
        # Where the kernel with channels last is the fastest of all, its Y is brought back, and its time says so.
        self.last = leaves_channels_last(plain.kernel) and plain.kernel != images.last.kernel
        return here

    def sparse(self, case: Case, guess: Prediction, images: AsImages | None) -> Prediction:
        """A sparse layer, which takes and leaves images as [batch, c, h, w]."""
        if case.conv is None or images is None:
            return guess
        self._left["by sparse layers"] += case.m * case.n
        found = brought(guess, images.x_turned_s) if self.last else guess
        self.last = False
        return found


def brought(guess: Prediction, time_s: float) -> Prediction:
    """`guess` with so many seconds before it."""
    if not time_s:
        return guess
    why = "; ".join(filter(None, (guess.why, BROUGHT)))
    moved = {name: getattr(guess, name) + time_s for name in ("time_s", "low_s", "high_s")}
    return replace(guess, **moved, why=why)
