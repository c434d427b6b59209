"""What records say of the speeds that the C bodies were built to reach. Usage: cpu_targets.py RESULTS

Prints a table: a line for each target and group of cases, the ratio found, the ratio wanted. Records come from

    sparsebench run cpu cpu-wide cpu-conv --results RESULTS
    sparsebench run dlmc --data DLMC --results RESULTS

Two sparse kernels are compared through the dense baselines that each was interleaved with: the ratio of their speedups.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.desk.observe import current
from sparsebench.errors import StoreError
from sparsebench.record import Record
from sparsebench.store import each_record, read_peaks

CSR = ("csr.torch", "csr.scipy", "csr.mkl")
BSR = ("bsr.torch", "bsr.scipy", "bsr.mkl")
OWN_BLOCKS = ("bsr.c", "rbgp4.c")
IRF = {64: 0.85, 256: 0.75, 2048: 0.55}
MANY_NONZEROS = 1000
CPU = ("cpu", "cpu-wide")
SUITES = (*CPU, "cpu-conv", "dlmc")


@dataclass(frozen=True)
class Line:
    """Figures of some cases beside the least that was wanted of each."""

    target: str
    what: str
    found: Sequence[float]
    wanted: float

    @property
    def holds(self) -> bool:
        return min(self.found) >= self.wanted

    def __str__(self) -> str:
        low, high = min(self.found), max(self.found)
        middle = float(np.exp(np.mean(np.log(self.found))))
        found = (
            f"{middle:.2f}" if len(self.found) == 1 else f"{middle:.2f} [{low:.2f} to {high:.2f}, {len(self.found)}]"
        )
        return f"| {self.target} | {self.what} | {found} | >= {self.wanted:g} | {'yes' if self.holds else 'NO'} |"


def speedup(record: Record) -> float:
    found = record.speedup(total=True)
    assert found is not None
    return found.median


def of(records: Iterable[Record], suites: Sequence[str], *kernels: str, **case: Any) -> list[Record]:
    """The timed sparse records of these suites, of these kernels and this case."""
    return [
        record
        for record in records
        if record.suite in suites
        and record.outcome == "ok"
        and record.kernel in kernels
        and record.case.dtype == case.get("dtype", "float32")
        and all(getattr(record.case, name) == value for name, value in case.items())
    ]


def best(records: Iterable[Record]) -> float:
    """The largest speedup; 0 where there is none."""
    return max(map(speedup, records), default=0.0)


def shape(record: Record) -> dict[str, Any]:
    case = record.case
    return {name: getattr(case, name) for name in ("op", "m", "k", "n", "conv", "layout", "dtype")}


def over(
    records: Sequence[Record], own: Sequence[Record], suites: Sequence[str], *rivals: str, **case: Any
) -> list[float]:
    """`own` over the fastest of `rivals` for the same problem, and for the same weights unless `case` names others."""
    found = []
    for record in own:
        same = {"pattern": record.case.pattern, "params": record.case.params, "sparsity": record.case.sparsity}
        same |= {"source": record.case.source} | shape(record) | case
        if rival := best(of(records, suites, *rivals, **same)):
            found.append(speedup(record) / rival)
    return found


def csr(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for n, wanted in ((64, 3.5), (256, 3.0)):
        for rivals in (CSR, CSR[:2]):
            ratios = over(records, of(records, ("dlmc",), "csr.c", n=n, pattern="file"), ("dlmc",), *rivals)
            many = [r for r in of(records, ("dlmc",), "csr.c", n=n, pattern="file") if (r.nnz or 0) > MANY_NONZEROS]
            if ratios:
                middle = float(np.exp(np.mean(np.log(ratios))))
                yield Line(
                    f"csr.c over {', '.join(rivals)}", f"geomean of {len(ratios)} layers, n={n}", [middle], wanted
                )
                each = over(records, many, ("dlmc",), *rivals)
                yield Line(f"csr.c over {', '.join(rivals)}", f"layers of > 1,000 nonzeros, n={n}", each, 2.0)


def irf(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for n, wanted in IRF.items():
        for kernel in OWN_BLOCKS:
            own = [r for r in of(records, CPU, kernel, n=n) if (r.sparsity or 0) <= 0.9 and r.case.k >= 1000]
            if found := [speedup(record) * (1 - (record.sparsity or 0)) for record in own]:
                yield Line("irf_gemm", f"{kernel}, n={n}", found, wanted)


def bound(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    """Sparsity 0.9375: time against the larger of FMAs at their peak and bytes at the memory's; caches left out."""
    if not peaks:
        return
    for n in IRF:
        own = [r for r in of(records, CPU, *OWN_BLOCKS, n=n, sparsity=0.9375) if r.median_s()]
        limits = [
            max(
                (record.useful_flops or 0) / peaks["fma_flops_per_s"]["float32"],
                (record.format_bytes or 0) / peaks["read_bytes_per_s"],
            )
            / (record.median_s() or 1)
            for record in own
        ]
        if limits:
            yield Line("of min(FMA peak, memory) at 93.75 %", f"bsr.c 4x4 and rbgp4.c, n={n}", limits, 0.7)


def library(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for n in IRF:
        own = of(records, CPU, "bsr.c", n=n, sparsity=0.9, params={"block": [4, 4]})
        if found := over(records, own, CPU, *CSR, pattern="unstructured", params={}):
            yield Line("4x4 blocks over library CSR (paper: 5 to 9)", f"bsr.c, 90 %, n={n}", found, 5)
        if found := over(records, own, CPU, *BSR):
            yield Line("4x4 blocks over library BSR (paper: 2 to 5)", f"bsr.c, 90 %, n={n}", found, 2)


def convolution(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for kernel in OWN_BLOCKS:
        own = [
            record
            for record in of(records, ("cpu-conv",), kernel, op="conv2d")
            if record.case.conv is not None and record.case.conv.kh == 3 and record.case.n >= 512
        ]
        if own:
            yield Line("3x3 convolution over the library's", f"{kernel}, n >= 512", list(map(speedup, own)), 3)


def condensed(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for n in (1, 4, 64, 256, 2048):
        own = of(records, CPU, "condensed.c", n=n)
        if found := over(records, own, CPU, "csr.c"):
            yield Line("condensed.c over csr.c", f"n={n}", found, 0.95)
    own = of(records, CPU, "condensed.c", n=1, m=768, k=3072)
    if own:
        yield Line("condensed.c over the best dense, cold", "768x3072, n=1", list(map(speedup, own)), 4)
        rivals = over(records, own, CPU, *CSR, pattern="unstructured", params={})
        yield Line("condensed.c over library CSR", "768x3072, n=1", rivals or [0.0], 1.5)


def hbs(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for suite in ("cpu", "cpu-conv"):
        own = of(records, (suite,), "hbs.c")
        short = [record for record in own if record.case.k <= 128]
        for what, of_these, wanted in (
            ("k > 128", [r for r in own if r not in short], 0.97),
            ("k <= 128", short, 1.15),
        ):
            if found := over(records, of_these, (suite,), "hbs.c_levels"):
                yield Line("hbs.c over a pass a level", f"{suite}, {what}", found, wanted)
        for fine, wanted in ((0.97, 1.5), (0.8, 1.25)):
            these = [record for record in own if record.case.params["levels"][-1]["sparsity"] == fine]
            if found := over(records, these, (suite,), "csr.c", pattern="unstructured", params={}, sparsity=0.6):
                yield Line("hbs.c over csr.c", f"{suite}, 1x1 at {fine:g}", found, wanted)


TARGETS: Sequence[Callable[[Sequence[Record], Any], Iterator[Line]]] = (
    csr, irf, bound, library, convolution, condensed, hbs,
)  # fmt: skip


def main(results: Path) -> int:
    """0 when every line of every machine holds, 1 where one does not, 2 without records."""
    try:
        records = current(record for record in each_record(results) if record.suite in SUITES)
    except StoreError as error:
        print(error, file=sys.stderr)
        records = []
    if not records:
        print(f"no records of {', '.join(SUITES)} below {results}; run these suites first")
        return 2
    missed = 0
    for machine in sorted({record.machine for record in records}):
        own = [record for record in records if record.machine == machine]
        print(f"\n{machine}\n\n| target | cases | found: geomean [range, cases] | wanted of each | holds |")
        print("|---|---|---|---|---|")
        for target in TARGETS:
            for line in target(own, read_peaks(results, machine)):
                missed += not line.holds
                print(line)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
