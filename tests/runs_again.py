"""Runs of one small suite, made again and again for test_compare*.py: the same code, slower kernels, other machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from replay import World, usual_arms, write_results

from sparsebench.desk.compare import Comparison, compare
from sparsebench.record import Record

SHAPES, COLUMNS, ARMS = [(256, 512), (768, 3072)], [1, 64], usual_arms((0.9,))
RATE = {"csr.c": lambda kept, bh, bw, n: 2e-10, "bsr.c": lambda kept, bh, bw, n: 1e-10}
RATES = {**RATE, "condensed.c": RATE["csr.c"]}
_runs = count(1)


def run(slower: dict[str, float] | None = None, seed: int | None = None, **world: Any) -> list[Record]:
    """The records of one run of the usual suite: its own noise, `slower` kernels by a factor and of other code."""
    number = next(_runs) if seed is None else seed
    factors = slower or {}
    rates = {name: (lambda *at, name=name: RATES[name](*at) * factors.get(name, 1.0)) for name in RATES}
    made = World(rates=rates, **{"noise": 0.01, "shape_noise": 0.001, "rounds": 60, "seed": number, **world})
    at = f"2026-11-21T09:00:00.{number:03d}+00:00"
    records = [replace(record, started_at=at) for record in made.sweep(SHAPES, COLUMNS, ARMS)]
    return [recoded(record) if record.kernel in factors else record for record in records]


def recoded(record: Record) -> Record:
    """The same record, made by other sources of its kernel."""
    return replace(record, source_sha="other", key="other " + record.key)


BASE, NEW = run(), run()  # two runs of the same code


def told(tmp_path: Path, base: Sequence[Record], new: Sequence[Record], **asked: Any) -> Comparison:
    number = next(_runs)
    sides = [write_results(tmp_path / f"{name}{number}", side) for name, side in (("base", base), ("new", new))]
    return compare(*sides, **asked)


def words(found: Comparison, kernel: str = "") -> set[str]:
    return {compared.judged.word for compared in found.pairs if compared.pair.base.kernel.startswith(kernel)}
