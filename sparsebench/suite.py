"""What is planned: a YAML file turned into problems and arms, all of its mistakes named at once, and into trials.

A path in a suite is relative to its folder, or to `--data DIR`; plugins are always relative to the suite, whose part
they are. Loading looks for the files that a glob names but opens none of them: that is done when trials are planned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import Any

from sparsebench.errors import BadInput, SuiteError
from sparsebench.kernel import Kernel, all_kernels
from sparsebench.network import Network
from sparsebench.patterns import PATTERNS
from sparsebench.record import Protocol
from sparsebench.shipped import resolve_network, resolve_suite, shipped_networks, shipped_suites
from sparsebench.sources import inspect as inspect_file
from sparsebench.suite_schema import (
    PROBLEMS,
    ArmKeys,
    ProblemKeys,
    ShapeKeys,
    SuiteKeys,
    WeightsKeys,
    any_arm_model,
    arm_model,
    nested,
    params_of,
)
from sparsebench.trial import Arm, Inspect, Problem, Trial, plan_trials
from sparsebench.yaml_marks import Document, Loc, closest, read
from sparsebench.yaml_schema import check

__all__ = ["Suite", "Trial", "about", "resolve_network", "resolve_suite", "shipped_networks", "shipped_suites"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A plan of measurements. `path` is its file, `data` the folder that relative paths of matrices start from."""

    name: str
    about: str
    seeds: tuple[int, ...]
    protocol: Protocol
    plugins: tuple[Path, ...]
    problems: tuple[Problem, ...]
    arms: tuple[Arm, ...]
    path: Path
    data: Path

    @classmethod
    def load(cls, path: Path, data: Path | None = None, plugins: Sequence[Path] = ()) -> Suite:
        """The suite in `path`, with `plugins` beside its own; SuiteError lists all mistakes, each with its place."""
        document = read(path)
        root = path.parent if data is None else data
        if not root.is_dir():
            raise SuiteError(f"the data folder {root} was not found; give --data a folder that is there")
        own = _plugins(document)
        kernels = _kernels(document, [*own, *plugins])
        keys = check(document, SuiteKeys)
        problems = [_problem(document, loc, root) for loc in _entries(document, "problems")]
        arms = [_arm(document, loc, kernels) for loc in _entries(document, "arms")]
        _nothing_in_vain(document, problems, arms)
        top = document.finished(keys)
        return cls(
            name=top.name,
            about=top.about,
            seeds=tuple(dict.fromkeys(top.seeds)),
            protocol=Protocol(**{**top.protocol.model_dump(), "cache": tuple(dict.fromkeys(top.protocol.cache))}),
            plugins=(*own, *plugins),
            problems=tuple(problem for problem in problems if problem),
            arms=tuple(arm for arm in arms if arm),
            path=path,
            data=root,
        )

    def trials(
        self,
        kernels: Mapping[str, Kernel],
        inspect: Inspect = inspect_file,
        only: str | None = None,
        device: str | None = None,
    ) -> list[Trial]:
        """All trials, in the order of trial.py, for `device` or for any.

        `only` is the glob of --kernels, `inspect` lists a file's matrices.
        """
        return plan_trials(self.problems, self.arms, self.seeds, kernels, inspect, only, device)


def about(path: Path) -> str:
    """What the suite in `path` says it is about, the rest unchecked: a list of suites needs no data and no kernels."""
    data = read(path).data
    return str(data.get("about", "")) if isinstance(data, dict) else ""


def _entries(document: Document, key: str) -> list[Loc]:
    listed = document.data.get(key) if isinstance(document.data, dict) else None
    return [(key, i) for i in range(len(listed))] if isinstance(listed, list) else []


def _plugins(document: Document) -> list[Path]:
    """The files that `plugins` names, which stand relative to the suite."""
    return [
        (document.path.parent / name).resolve()
        for loc in _entries(document, "plugins")
        if isinstance(name := document.at(loc), str) and "\0" not in name
    ]


def _kernels(document: Document, plugins: Sequence[Path]) -> dict[str, Kernel] | None:
    """All kernels by name; None, with a mistake noted, when a plugin cannot be used, so that no glob is judged."""
    try:
        return all_kernels(plugins)
    except BadInput as error:
        document.mistake(("plugins",), str(error))
        return None


def _problem(document: Document, loc: Loc, root: Path) -> Problem | None:
    data = document.at(loc)
    kinds = list(dict.fromkeys(kind for key, kind in PROBLEMS.items() if isinstance(data, dict) and key in data))
    if len(kinds) != 1:
        _no_kind(document, loc, data)
        return None
    keys = check(document, kinds[0], loc)
    brought = _brought(document, loc, data, root)
    return _filled(document, loc, keys, brought, root) if keys else None


def _no_kind(document: Document, loc: Loc, data: Any) -> None:
    """Note that a problem says nothing, or two things, about where its shapes come from."""
    asked = "a problem takes m and k, or matrices, or weights, or network"
    if not isinstance(data, dict):
        document.mistake(loc, f"{asked}; found no mapping of keys, write for example {{m: 768, k: 3072, n: 64}}")
    elif chosen := [key for key in PROBLEMS if key in data]:
        document.mistake(loc, f"{asked}; found {' and '.join(chosen)}, write one problem for each")
    else:
        odd = next((key for key in data if closest(key, PROBLEMS)), None)
        meant = f"; did you mean {closest(odd, PROBLEMS)!r}?" if odd else ", write for example {m: 768, k: 3072, n: 64}"
        document.mistake((*loc, odd) if odd else loc, f"{asked}; found {', '.join(data) or 'no key'}{meant}", key=True)


def _brought(document: Document, loc: Loc, data: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The files or network that a problem names, looked for whatever else is wrong with it."""
    found: dict[str, Any] = {"at": document.where((*loc, "tensors"))}
    if isinstance(name := data.get("network"), str):
        found["network"] = _network(document, (*loc, "network"), name, root)
    for key in ("matrices", "weights"):
        if isinstance(name := data.get(key), str):
            found["files"] = _files(document, (*loc, key), name, root)
    return found


def _filled(document: Document, loc: Loc, keys: ProblemKeys, brought: Mapping[str, Any], root: Path) -> Problem:
    """The problem of well-formed keys, after a look at how dtypes and math go together."""
    if "ieee" not in keys.math or len(set(keys.math)) > 1:
        for dtype in set(keys.dtype) - {"float32"}:
            document.mistake(
                (*loc, "math"),
                f"math {', '.join(keys.math)} was asked for {dtype} too, but tf32 and tf32x3 multiply float32; "
                f"give {dtype} a problem of its own, with math ieee",
            )
    axes: dict[str, Any] = {
        f"{axis}s": tuple(dict.fromkeys(getattr(keys, axis))) for axis in ("dtype", "math", "layout")
    }
    return Problem(
        columns=tuple(dict.fromkeys(getattr(keys, keys.columns))),
        shape=(keys.m, keys.k) if isinstance(keys, ShapeKeys) else None,
        tensors=keys.tensors if isinstance(keys, WeightsKeys) else "*",
        data=root,
        **axes,
        **brought,
    )


def _network(document: Document, loc: Loc, name: str, root: Path) -> Network | None:
    try:
        path = resolve_network(name, root)
    except SuiteError as error:
        document.mistake(loc, str(error))
        return None
    try:
        return Network.load(path)
    except SuiteError as error:
        document.elsewhere.append(str(error))
        return None


def _files(document: Document, loc: Loc, pattern: str, root: Path) -> tuple[Path, ...]:
    found = sorted(root / name for name in glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = tuple(path for path in found if path.is_file())
    if not files:
        document.mistake(
            loc, f"no file matches {pattern!r} below {root.resolve()}; mend the glob, or name the folder with --data"
        )
    return files


def _arm(document: Document, loc: Loc, kernels: Mapping[str, Kernel] | None) -> Arm | None:
    pattern = data.get("pattern") if isinstance(data := document.at(loc), dict) else None
    known = isinstance(pattern, str) and pattern in PATTERNS
    keys = check(document, arm_model(str(pattern)) if known else any_arm_model(), loc, {"kernels": kernels})
    if keys is None:
        return None
    arm = Arm(
        pattern=keys.pattern,
        kernels=tuple(keys.kernels),
        params=tuple(_params(keys)),
        sparsities=tuple(dict.fromkeys(getattr(keys, "sparsity", [None]))),
        origin=getattr(keys, "origin", None) or None,
        at=document.where((*loc, "kernels")),
    )
    _judge(document, loc, arm, kernels)
    return arm


def _params(keys: ArmKeys) -> list[dict[str, Any]]:
    """The params of each block size that an arm asks for; one entry for a pattern without blocks."""
    if nested(keys.pattern):
        return [params_of(keys.pattern, getattr(keys, keys.pattern))]
    params = params_of(keys.pattern, keys)
    return [params | {"block": block} for block in params["block"]] if "block" in params else [params]


def _judge(document: Document, loc: Loc, arm: Arm, kernels: Mapping[str, Kernel] | None) -> None:
    """Note where a pattern cannot be pruned from weights, or no kernel's format can store it."""
    if arm.origin not in (None, "random") and not PATTERNS[arm.pattern].prunes:
        text = f"pattern {arm.pattern} cannot be pruned from weights, found from: {arm.origin}; write `from: random`"
        document.mistake((*loc, "from"), text)
    chosen = [
        kernel for name, kernel in (kernels or {}).items() if any(fnmatchcase(name, glob) for glob in arm.kernels)
    ]
    if chosen and not any(arm.pattern in (kernel.format.patterns or (arm.pattern,)) for kernel in chosen):
        stores = ", ".join(f"{kernel.name} stores {' and '.join(kernel.format.patterns)}" for kernel in chosen)
        document.mistake(
            (*loc, "kernels"), f"no kernel of this arm can store pattern {arm.pattern}: {stores}; name others"
        )


def _nothing_in_vain(document: Document, problems: Sequence[Problem | None], arms: Sequence[Arm | None]) -> None:
    """Note every arm without a problem and every problem without an arm: an empty product is a mistake."""
    if document.mistakes or document.elsewhere:
        return
    pairs = [
        (i, j)
        for i, arm in enumerate(arms)
        for j, problem in enumerate(problems)
        if arm and problem and arm.takes(problem)
    ]
    for i in set(range(len(arms))) - {i for i, _ in pairs}:
        document.mistake(
            ("arms", i), "this arm makes no trials: pattern file needs a problem with matrices or weights; add one"
        )
    for j in set(range(len(problems))) - {j for _, j in pairs} if pairs else ():
        document.mistake(
            ("problems", j),
            "this problem gets no trials: its only arms are of pattern file, and it brings none; add an arm",
        )
