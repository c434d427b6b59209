"""What each layer of a network becomes: globs over layer names, the first that matches wins, all others stay dense."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from sparsebench.case import Case, DType, Layout, Math
from sparsebench.errors import PatternError, SuiteError
from sparsebench.kernel import load_kernels
from sparsebench.network import Layer, Network
from sparsebench.patterns import PATTERNS, pattern_from
from sparsebench.patterns.base import checked_sparsity
from sparsebench.shipped import resolve_network
from sparsebench.suite_schema import FIXED, PatternName, params_model, params_of
from sparsebench.yaml_marks import Document, Loc, near, read
from sparsebench.yaml_schema import Keys, Sparsity, Text, check


@dataclass(frozen=True, slots=True)
class Choice:
    """What a layer becomes. `sparsity` is None where the params fix it, `kernel` None where the model may choose."""

    pattern: str
    params: Mapping[str, Any] = field(default_factory=dict)
    sparsity: float | None = None
    kernel: str | None = None


class Planned(NamedTuple):
    """One layer of a planned network: its dense case, and its sparse case and kernel, where it does not stay dense."""

    layer: Layer
    dense: Case
    sparse: Case | None
    kernel: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A network and the choices for its layers, by name; a layer without one stays dense."""

    network: Network
    choices: Mapping[str, Choice]

    @classmethod
    def load(cls, path: Path, kernels: Collection[str] | None = None) -> Plan:
        """The plan in a YAML file, whose kernels must be among `kernels` (those that ship, unless said otherwise).

        SuiteError lists all mistakes, each at its line and column.
        """
        document = read(path)
        keys = check(document, PlanKeys)
        network = _network(document)
        rules = document.data.get("layers") if isinstance(document.data, dict) else None
        names = [kernel.name for kernel in load_kernels()] if kernels is None else kernels
        choices = (
            {glob: _choice(document, ("layers", glob), names) for glob in rules} if isinstance(rules, dict) else {}
        )
        taken = _taken(document, network, list(choices)) if network else {}
        document.finished(keys)
        return cls(
            document.finished(network), {name: choice for name, glob in taken.items() if (choice := choices[glob])}
        )

    @classmethod
    def uniform(
        cls,
        network: Network,
        pattern: str,
        params: Mapping[str, Any],
        sparsity: float | None,
        kernel: str | None = None,
    ) -> Plan:
        """The same choice for every prunable layer; PatternError where it describes no pattern."""
        pattern_from(pattern, params)
        _checked(pattern, sparsity)
        choice = Choice(pattern, dict(params), sparsity, kernel)
        return cls(network, {layer.name: choice for layer in network.layers if layer.prunable})

    def cases(
        self,
        network: Network,
        batch: int = 1,
        dtype: DType = "float32",
        math: Math = "ieee",
        layout: Layout = "feature",
        seed: int = 0,
    ) -> list[Planned]:
        """Every layer of `network` in the order it runs, for `batch` samples; SuiteError if another was planned."""
        if gone := set(self.choices) - {layer.name for layer in network.layers}:
            name = min(gone)
            raise SuiteError(
                f"the plan is for {self.network.name}; {network.name} was given and has no layer {name!r}; give one"
            )
        return [self._planned(layer, layer.case(batch, dtype, math, layout), seed) for layer in network.layers]

    def _planned(self, layer: Layer, dense: Case, seed: int) -> Planned:
        if (choice := self.choices.get(layer.name)) is None:
            return Planned(layer, dense, None, None)
        sparse = replace(dense, pattern=choice.pattern, params=dict(choice.params), sparsity=choice.sparsity, seed=seed)
        return Planned(layer, dense, sparse, choice.kernel)


class PlanKeys(Keys):
    """The top of a plan; choices are checked one by one, their params against their pattern."""

    network: Text
    layers: Annotated[dict[str, Any], Field(min_length=1)]


class ChoiceKeys(Keys):
    """What a glob of layers becomes."""

    pattern: PatternName
    params: dict[str, Any] = Field(default={})
    sparsity: Sparsity | None = None
    kernel: Text | None = None


def _network(document: Document) -> Network | None:
    name = document.data.get("network") if isinstance(document.data, dict) else None
    if not isinstance(name, str):
        return None
    try:
        path = resolve_network(name, document.path.parent)
    except SuiteError as error:
        document.mistake(("network",), str(error))
        return None
    try:
        return Network.load(path)
    except SuiteError as error:
        document.elsewhere.append(str(error))
        return None


def _choice(document: Document, loc: Loc, kernels: Collection[str]) -> Choice | None:
    keys = check(document, ChoiceKeys, loc)
    pattern = data.get("pattern") if isinstance(data := document.at(loc), dict) else None
    if not isinstance(pattern, str) or pattern not in PATTERNS:
        return None
    params = check(document, params_model(pattern), (*loc, "params"), missing={})
    if keys is None or params is None:
        return None
    if keys.kernel and keys.kernel not in kernels:
        document.mistake((*loc, "kernel"), f"no kernel is called {keys.kernel!r}{near(keys.kernel, kernels)}")
    try:
        _checked(pattern, keys.sparsity)
    except PatternError as error:
        document.mistake((*loc, "pattern"), str(error))
    return Choice(pattern, params_of(pattern, params), keys.sparsity, keys.kernel)


def _checked(pattern: str, sparsity: float | None) -> None:
    """PatternError where a sparsity is missing, out of range, or given to a pattern that fixes its own."""
    if pattern == "file":
        raise PatternError(
            "pattern file takes its mask from a file, and a layer of a network brings none; choose another"
        )
    if sparsity is None and pattern not in FIXED:
        raise PatternError(f"pattern {pattern} needs a sparsity, found none; give one, such as 0.9")
    if sparsity is not None and pattern in FIXED:
        raise PatternError(
            f"pattern {pattern} takes no sparsity, found {sparsity}; its params fix it, leave sparsity out"
        )
    if sparsity is not None:
        checked_sparsity(sparsity)


def _taken(document: Document, network: Network, globs: Sequence[str]) -> dict[str, str]:
    """The glob that wins each layer, by name; a mistake noted for every glob that wins none or should win none."""
    taken: dict[str, str] = {}
    for glob in globs:
        layers = [layer for layer in network.layers if fnmatchcase(layer.name, glob)]
        if trouble := _trouble(glob, layers, taken, network):
            document.mistake(("layers", glob), trouble, key=True)
        taken = {layer.name: glob for layer in layers} | taken
    return taken


def _trouble(glob: str, layers: Sequence[Layer], taken: Mapping[str, str], network: Network) -> str | None:
    """What is wrong with a glob that matches `layers`, after those in `taken` are gone, as a sentence; or None."""
    if not layers:
        return (
            f"no layer of {network.name} is called {glob!r}{near(glob, [layer.name for layer in network.layers][:12])}"
        )
    if dense := [layer.name for layer in layers if not layer.prunable]:
        return (
            f"{glob!r} matches {', '.join(dense[:3])}, which must stay dense (prunable: false); write a narrower glob"
        )
    if all(layer.name in taken for layer in layers):
        first = taken[layers[0].name]
        return f"{glob!r} wins no layer, {first!r} above it takes them (the first that matches wins); put it first"
    return None
