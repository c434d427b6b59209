"""From problems and arms to trials, in the order that makes each mask, reference and baseline once.

Trials are grouped by dense problem and, within it, by case; problems, cases and kernels stand in the order of the file.
The dense trials of a problem come first: they are its baselines. Equal trials are merged.

What seeds multiply: masks. A case whose mask is fixed - by a file, or as the largest weights of one - takes the first
seed only, since another would time the same mask again with other random values.

What a file brings to a case: pattern `file` and `from: magnitude` on real weights keep the file as `case.source`;
every other case takes its shape alone, so it is one case for all files of that shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import filter as matching
from itertools import product
from pathlib import Path
from typing import Any

from sparsebench.case import Case, DType, Layout, Math, Origin, Source
from sparsebench.errors import MatrixError, SuiteError
from sparsebench.kernel import Kernel
from sparsebench.network import Network
from sparsebench.patterns import PATTERNS
from sparsebench.sources import TensorInfo
from sparsebench.yaml_marks import near

MOST_TRIALS = 1_000_000
Inspect = Callable[[Path, str], Sequence[TensorInfo]]  # (file, glob of tensors), as sources.inspect
Tensors = Mapping[tuple[Path, str], Sequence[TensorInfo]]


@dataclass(frozen=True, slots=True)
class Trial:
    """One case for one kernel. `data` is the local file behind case.source; it stays out of every record."""

    case: Case
    kernel: str
    data: Path | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A dense case, whether it may be pruned, and what a file brings to it."""

    case: Case
    prunable: bool = True
    tensor: TensorInfo | None = None
    source: Source | None = None
    data: Path | None = None

    @property
    def weighted(self) -> bool:
        """Whether a file brings real weights, not a mask alone."""
        return self.tensor is not None and self.tensor.kind == "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Shapes: one, those of files below `data`, or a network's layers. `columns` is n, or the batch of a network."""

    columns: tuple[int, ...]
    dtypes: tuple[DType, ...]
    maths: tuple[Math, ...]
    layouts: tuple[Layout, ...]
    shape: tuple[int, int] | None = None
    files: tuple[Path, ...] = ()
    tensors: str = "*"
    network: Network | None = None
    data: Path = Path()
    at: str = ""

    def questions(self, tensors: Tensors) -> Iterator[Question]:
        """All dense questions, in the order of layers or files."""
        settings = list(product(self.dtypes, self.maths, self.layouts, self.columns))
        if self.network:
            for layer, (dtype, math, layout, batch) in product(self.network.layers, settings):
                yield Question(layer.case(batch, dtype, math, layout), layer.prunable)
        elif self.shape:
            for dtype, math, layout, n in settings:
                yield Question(Case(m=self.shape[0], k=self.shape[1], n=n, dtype=dtype, math=math, layout=layout))
        for (path, tensor), (dtype, math, layout, n) in product(self._tensors(tensors), settings):
            case = Case(m=tensor.m, k=tensor.k, n=n, dtype=dtype, math=math, layout=layout)
            yield Question(case, tensor=tensor, source=self._source(path, tensor), data=path)

    def _tensors(self, tensors: Tensors) -> list[tuple[Path, TensorInfo]]:
        return [(path, tensor) for path in self.files for tensor in tensors[path, self.tensors]]

    def refuse_nothing(self, tensors: Tensors, inspect: Inspect) -> None:
        """SuiteError, with the names there are, where no tensor of the files is asked for."""
        if not self.files or self._tensors(tensors):
            return
        names: dict[str, None] = {}
        for path in self.files:
            with suppress(MatrixError):  # what is not asked for may be broken
                names |= dict.fromkeys(tensor.name or "" for tensor in inspect(path, "*"))
        there = near(self.tensors, list(names)[:20]) if names else "; the files hold no matrices at all"
        raise SuiteError(f"{self.at}: no tensor of {len(self.files)} files is called {self.tensors!r}{there}")

    def _source(self, path: Path, tensor: TensorInfo) -> Source:
        """The file by its name below the data folder, never by where that folder is."""
        below = path.is_relative_to(self.data) and ".." not in path.relative_to(self.data).parts
        name = path.relative_to(self.data).as_posix() if below else path.name
        return Source(name, tensor.name, tensor.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A pattern with its params (one entry a block size), sparsities (None where they are fixed), and kernel globs."""

    pattern: str
    kernels: tuple[str, ...]
    params: tuple[Mapping[str, Any], ...] = ({},)
    sparsities: tuple[float | None, ...] = (None,)
    origin: Origin | None = None
    at: str = ""

    def takes(self, problem: Problem) -> bool:
        """Whether this arm makes any trial of `problem`: `file` needs one that brings files."""
        return self.pattern != "file" or bool(problem.files)

    def names(self, kernels: Mapping[str, Kernel], device: str | None = None) -> list[str]:
        """The kernels its globs choose, each once; SuiteError for a glob without any.

        With a device those for it; where none is, all of them: they become skipped records, and nothing vanishes.
        """
        for glob in self.kernels:
            if not matching(kernels, glob):
                raise SuiteError(f"{self.at}: no kernel is called {glob!r}{near(glob, kernels)}")
        chosen = list(dict.fromkeys(name for glob in self.kernels for name in matching(kernels, glob)))
        return [name for name in chosen if device in (None, *kernels[name].devices)] or chosen

    def cases(self, question: Question, seeds: Sequence[int]) -> Iterator[Case]:
        """The cases this arm makes of a question, in the order of its params, sparsities and seeds."""
        if self.pattern == "dense":
            yield question.case
        elif not question.prunable or (self.pattern == "file" and question.tensor is None):
            return
        else:
            origin = self._origin(question)
            kept = self.pattern == "file" or (origin == "magnitude" and question.weighted)
            source = question.source if kept else None
            drawn = {} if origin == "random" else {"from": origin}
            for params, sparsity, seed in product(self.params, self.sparsities, seeds[:1] if source else seeds):
                yield replace(
                    question.case,
                    pattern=self.pattern,
                    params={**params, **drawn},
                    sparsity=sparsity,
                    seed=seed,
                    source=source,
                )

    def _origin(self, question: Question) -> Origin:
        """What the arm says, or else magnitude where a file brings the weights of a pattern that prunes."""
        if self.origin:
            return self.origin
        return "magnitude" if question.weighted and PATTERNS[self.pattern].prunes else "random"


@dataclass(slots=True)
class _Cases:
    """The cases of one dense problem, each with the kernels that answer it; the dense case is the first."""

    dense: Case
    rows: dict[Any, tuple[Case, Path | None, dict[str, None]]] = field(default_factory=dict)

    def add(self, case: Case, data: Path | None, kernels: Sequence[str]) -> None:
        """Let `kernels` answer `case`; one that does already stays where it is."""
        row = self.rows.setdefault(case.identity, (case, data if case.source else None, {}))
        row[2].update(dict.fromkeys(kernels))

    def trials(self) -> list[Trial]:
        """Case by case."""
        return [Trial(case, kernel, data) for case, data, kernels in self.rows.values() for kernel in kernels]


def plan_trials(
    problems: Sequence[Problem],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    kernels: Mapping[str, Kernel],
    inspect: Inspect,
    only: str | None = None,
    device: str | None = None,
) -> list[Trial]:
    """All trials of problems x arms; `only` is a glob that takes the trials of other sparse kernels out.

    With a `device` the kernels of others stay out where an arm names one for it; baselines are its own.

    MatrixError lists the files that cannot be read; SuiteError where nothing is left, or over a million trials are.
    """
    tensors = _inspected(problems, inspect)
    for problem in problems:
        problem.refuse_nothing(tensors, inspect)
    chosen = [(arm, arm.names(kernels, device)) for arm in arms]
    baselines = [name for name, kernel in kernels.items() if _is_dense(kernel) and device in (None, *kernel.devices)]
    groups: dict[Any, _Cases] = {}
    count = 0
    for problem in problems:
        questions = [
            (question, _group(groups, question.case, kernels, baselines)) for question in problem.questions(tensors)
        ]
        count += len(questions) * sum(
            len(arm.params) * len(arm.sparsities) * len(seeds) * len(names) for arm, names in chosen
        )
        if count > MOST_TRIALS:
            raise SuiteError(
                f"{problem.at}: at most {MOST_TRIALS} trials are planned, {count} are asked for up to here; ask less"
            )
        for (arm, names), (question, group) in product(chosen, questions):
            for case in arm.cases(question, seeds):
                group.add(case, question.data, names)
    return _only(groups, kernels, only) if only else [trial for group in groups.values() for trial in group.trials()]


def _inspected(problems: Sequence[Problem], inspect: Inspect) -> Tensors:
    """The tensors that are asked for, each file read once for each glob; those not asked for may be broken."""
    found: dict[tuple[Path, str], Sequence[TensorInfo]] = {}
    broken: list[str] = []
    for path, tensors in dict.fromkeys((path, problem.tensors) for problem in problems for path in problem.files):
        try:
            found[path, tensors] = inspect(path, tensors)
        except MatrixError as error:
            broken.append(str(error))
    if broken:
        raise MatrixError("\n".join(broken))
    return found


def _group(groups: dict[Any, _Cases], dense: Case, kernels: Mapping[str, Kernel], baselines: Sequence[str]) -> _Cases:
    """The group of a dense problem, made where it is new: with the baselines that take its op and dtype."""
    key = dense.identity
    if key not in groups:
        groups[key] = _Cases(dense)
        able = [name for name in baselines if dense.op in kernels[name].ops]
        in_dtype = [name for name in able if dense.dtype in kernels[name].dtypes]
        groups[key].add(dense, None, in_dtype or able)  # where none takes it, skipped records say so
    return groups[key]


def _is_dense(kernel: Kernel) -> bool:
    """Whether it may be a baseline. One that rounds W or X (fp8, int4) runs where an arm names it, and never is."""
    return kernel.format.name == "dense" and not kernel.lossy


def _only(groups: Mapping[Any, _Cases], kernels: Mapping[str, Kernel], glob: str) -> list[Trial]:
    """The trials left when `glob` chooses the kernels.

    Dense trials are baselines, so they go only where the glob takes away all sparse trials of a problem that had some.
    A glob of dense kernels alone keeps the dense trials of every problem, and no others.
    """
    chosen = set(matching(kernels, glob))
    if not chosen:
        raise SuiteError(f"--kernels: no kernel is called {glob!r}{near(glob, kernels)}")
    dense_alone = all(name.split(".")[0] == "dense" for name in chosen)
    left: list[Trial] = []
    for group in groups.values():
        trials = group.trials()
        dense = [trial for trial in trials if trial.case.pattern == "dense" and _is_dense(kernels[trial.kernel])]
        sparse = trials[len(dense) :]
        kept = [trial for trial in sparse if trial.kernel in chosen]
        left += dense * (dense_alone or bool(kept) or not sparse) + kept
    if not left:
        raise SuiteError(
            f"--kernels {glob!r} takes every trial out of the plan; choose a kernel that an arm of the suite names"
        )
    return left
