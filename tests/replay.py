"""Records made up from a known law of time: the desk is tested against what is true rather than against a clock.

The law of every kernel: seconds = floor_s + flops x seconds_per_flop(kept, bh, bw, n), with noise that a round's
contestants share (the machine) and noise of their own. All numbers come from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case, Source
from sparsebench.desk.observe import blocks_of
from sparsebench.patterns import kept_units
from sparsebench.record import Protocol, Record, record_key

MACHINE = "replay-cpu-0a1b2c"
VERSIONS = {"sparsebench": "0.1.0", "torch": "2.13.0"}
DENSE_SECONDS_PER_FLOP = {"dense.onednn": 1 / 1.5e11, "dense.torch": 1 / 1.48e11, "dense.numpy": 1 / 1.1e11}

Rate = Callable[[float, int, int, int], float]  # (kept share, bh, bw, n) -> seconds per useful flop


def power_rate(kept: float, bh: int, bw: int, n: int) -> float:
    """A law that is straight in logarithms: a fit must recover it exactly, on the sweep and between its points."""
    return 1e-10 * float(kept**-0.3 * bh**-0.4 * bw**-0.1 * n**-0.25)


def smooth_rate(kept: float, bh: int, bw: int, n: int) -> float:
    """A law with bends, as kernels have: vectors fill up with n, blocks share loads, long rows amortise their start."""
    return 8e-12 * (1 + 12 / n) * (1 + 3 / (bh * bw)) * (1 + 0.02 / kept) * (1 + n / 4096)


@dataclass(frozen=True)
class World:
    """A made-up machine: its kernels' laws, its noise and its rounds."""

    rates: Mapping[str, Rate]
    floor_s: float = 0.0
    noise: float = 0.0  # of each sample, in log terms
    drift: float = 0.0  # of each trial as a whole, baselines included: a clock that changed, a neighbour
    shape_noise: float = 0.0  # of each matrix and kernel, the same in every round: what no interpolation can know
    rounds: int = 9
    seed: int = 0
    machine: str = MACHINE
    layout_s: float = 0.0  # what dense.torch pays to change layouts
    protocol: Protocol = Protocol()  # noqa: RUF009 - frozen

    def time_s(self, case: Case, kernel: str, nnz: int) -> float:
        """The true seconds of `kernel` on `case` without its layout change."""
        if kernel in DENSE_SECONDS_PER_FLOP:
            return self.floor_s + case.flops() * DENSE_SECONDS_PER_FLOP[kernel] * (1 + 8 / case.n)
        return self.floor_s + sum(
            case.useful_flops(round(nnz * share)) * self.rates[kernel](kept, bh, bw, case.n)
            for share, kept, bh, bw in _levels(case, nnz)
        )

    def record(
        self,
        case: Case,
        kernel: str,
        baselines: Sequence[str] = ("dense.onednn", "dense.torch"),
        nnz: int | None = None,
    ) -> Record:
        """The ok record of one trial; `nnz` where a file decides it."""
        nnz = kept_of(case) if nnz is None else nnz
        names = list(dict.fromkeys([kernel, *baselines]))
        rng = np.random.default_rng([self.seed, int(case.key[:12], 16), len(kernel), sum(map(ord, kernel))])
        shared = rng.normal(0, self.noise, self.rounds) + rng.normal(0, self.drift)
        samples = {cache: {n: self._times(case, n, nnz, shared, rng) for n in names} for cache in self.protocol.cache}
        known = {name: f"sha of {name}" for name in baselines}
        return Record(
            key=record_key(case, kernel, f"sha of {kernel}", known, self.machine, self.protocol, VERSIONS),
            suite="replay",
            case=case,
            kernel=kernel,
            source_sha=f"sha of {kernel}",
            machine=self.machine,
            protocol=self.protocol,
            outcome="ok",
            baselines=known,
            nnz=nnz,
            format_bytes=8 * nnz,
            moved_bytes=8 * nnz + 4 * case.n * (case.m + case.k),
            useful_flops=case.useful_flops(nnz),
            samples=samples,
            layout_s={name: self.layout_s if name == "dense.torch" else 0.0 for name in names},
            pack_s=0.01,
            error_ratio=0.1,
            stop="precision",
            versions=VERSIONS,
            host={"system": "Linux", "python": "3.11", "load": 0.1},
            started_at="2026-11-21T09:00:00.000+00:00",
        )

    def _times(self, case: Case, name: str, nnz: int, shared: np.ndarray, rng: np.random.Generator) -> list[float]:
        """Seconds of each round, unrounded."""
        matrix = np.random.default_rng([self.seed, case.m, case.k, case.n, sum(map(ord, name))])
        scale = np.exp(matrix.normal(0, self.shape_noise) + shared + rng.normal(0, self.noise / 3, self.rounds))
        return [float(value) for value in self.time_s(case, name, nnz) * scale]

    def sweep(
        self,
        shapes: Iterable[tuple[int, int]],
        ns: Iterable[int],
        arms: Iterable[tuple[str, Mapping[str, Any], float, str]],
    ) -> list[Record]:
        """Dense records of every problem, and one record for each arm (pattern, params, sparsity, kernel)."""
        arms = list(arms)
        return [record for m, k in shapes for n in ns for record in self._problem(Case(m=m, k=k, n=n), arms)]

    def _problem(self, dense: Case, arms: Sequence[tuple[str, Mapping[str, Any], float, str]]) -> Iterator[Record]:
        for name in DENSE_SECONDS_PER_FLOP:
            yield self.record(dense, name)
        for pattern, params, sparsity, kernel in arms:
            asked = None if pattern == "hierarchical" else sparsity
            yield self.record(replace(dense, pattern=pattern, params=params, sparsity=asked), kernel)


def kept_of(case: Case) -> int:
    """Nonzeros that the case's pattern keeps."""
    entries = case.m * case.k
    if case.pattern == "dense":
        return entries
    levels = [(s if s is not None else case.sparsity or 0.0, bh * bw) for s, bh, bw in blocks_of(case)]
    return sum(kept_units(sparsity, entries // area) * area for sparsity, area in levels)


def _levels(case: Case, nnz: int) -> list[tuple[float, float, int, int]]:
    """(share of the nonzeros, kept share, bh, bw) of each level."""
    blocks = blocks_of(case)
    if len(blocks) == 1:
        return [(1.0, nnz / (case.m * case.k), blocks[0][1], blocks[0][2])]
    kept = [1 - (s or 0.0) for s, _, _ in blocks]
    return [(share / sum(kept), share, bh, bw) for share, (_, bh, bw) in zip(kept, blocks, strict=True)]


def broken(record: Record, outcome: str, reason: str) -> Record:
    """The same trial with another outcome, and therefore without times."""
    return replace(record, outcome=outcome, reason=reason, samples={}, stop=None)  # type: ignore[arg-type]


def write_results(root: Path, records: Iterable[Record]) -> Path:
    """A results folder that holds `records`, each machine with its facts and peaks."""
    for record in records:
        folder = root / record.machine
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{record.suite}.jsonl").open("a") as lines:
            lines.write(record.to_json() + "\n")
    return root


BLOCKS: Mapping[str, tuple[int, int]] = {"4x1": (4, 1), "16x16": (16, 16)}


def usual_arms(sparsities: Iterable[float] = (0.5, 0.8, 0.9, 0.95)) -> list[tuple[str, Mapping[str, Any], float, str]]:
    """csr.c on unstructured masks, bsr.c on two blocks, condensed.c on a constant fan-in."""
    arms: list[tuple[str, Mapping[str, Any], float, str]] = []
    for sparsity in sparsities:
        arms.append(("unstructured", {}, sparsity, "csr.c"))
        arms.append(("constant_fan_in", {}, sparsity, "condensed.c"))
        arms += [("block", {"block": list(block)}, sparsity, "bsr.c") for block in BLOCKS.values()]
    return arms


def usual_world(**changed: Any) -> World:
    """csr.c, bsr.c and condensed.c with bends and a little noise."""
    rates: Mapping[str, Rate] = {
        "csr.c": smooth_rate,
        "bsr.c": smooth_rate,
        "condensed.c": lambda kept, bh, bw, n: 1.2 * smooth_rate(kept, bh, bw, n),
    }
    return World(**{"rates": rates, "floor_s": 2e-6, "noise": 0.02, "shape_noise": 0.02, **changed})


def file_records(world: World, count: int, ns: Iterable[int] = (1, 64), kernel: str = "csr.c") -> list[Record]:
    """Records of `count` pruned layers, as a folder of .smtx files makes them: each its own shape and sparsity."""
    rng, found = np.random.default_rng(world.seed), []
    for number in range(count):
        m, k = (int(side) for side in rng.choice([64, 128, 256, 512, 1024, 2048], 2))
        nnz = int(m * k * rng.choice([0.2, 0.1, 0.05, 0.02]) * rng.uniform(0.7, 1.3))
        source = Source(f"layer_{number}.smtx", None, f"{number:064x}")
        for n in ns:
            case = Case(m=m, k=k, n=n, pattern="file", source=source)
            found += [world.record(case.problem, name) for name in DENSE_SECONDS_PER_FLOP]
            found.append(world.record(case, kernel, nnz=nnz))
    return found
