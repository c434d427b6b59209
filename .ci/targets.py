"""What records say of the speeds that the GPU kernels were built to reach. Usage: targets.py RESULTS

Prints a table: a line for each target and case, the ratio found with its interval, the ratio wanted. Records come from
the suites in suites/targets/ (`bash .ci/gpu RESULTS` runs them first); a target without records says so.

Two sparse kernels are compared through the dense baseline that each was interleaved with: the ratio of their speedups.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.errors import StoreError
from sparsebench.paired import Ratio
from sparsebench.record import Record
from sparsebench.store import read_peaks, read_records

CUSPARSE = ("csr.cusparse", "csr.cusparse_alg1", "csr.cusparse_alg2", "csr.cusparse_alg3")
SHORT_S = 10e-6


@dataclass(frozen=True)
class Line:
    """One figure beside what was wanted of it; `least` is False where it must stay below."""

    target: str
    what: str
    found: Ratio | float
    wanted: float
    least: bool = True

    @property
    def holds(self) -> bool:
        value = self.found.median if isinstance(self.found, Ratio) else self.found
        return value >= self.wanted if self.least else value <= self.wanted

    def __str__(self) -> str:
        found = str(self.found) if isinstance(self.found, Ratio) else f"{self.found:.2f}"
        sign = ">=" if self.least else "<="
        return f"| {self.target} | {self.what} | {found} | {sign} {self.wanted:g} | {'yes' if self.holds else 'NO'} |"


def over(own: Ratio, rival: Ratio) -> Ratio:
    """own / rival of two speedups over one baseline; the interval is as wide as both can make it."""
    return Ratio(own.median / rival.median, own.low / rival.high, own.high / rival.low, min(own.rounds, rival.rounds))


def speedup(record: Record) -> Ratio:
    found = record.speedup(total=True)
    assert found is not None
    return found


def time_s(record: Record) -> float:
    return record.median_s() or math.inf


def of(records: Sequence[Record], suite: str, *kernels: str, **case: Any) -> list[Record]:
    """The timed records of a suite, of these kernels and this case."""
    return [
        record
        for record in records
        if record.suite == f"target-{suite}"
        and record.outcome == "ok"
        and (not kernels or record.kernel in kernels)
        and record.case.pattern != "dense"
        and all(getattr(record.case, name) == value for name, value in case.items())
    ]


def fastest(records: Sequence[Record]) -> Record | None:
    """The one of the largest speedup."""
    return max(records, key=lambda record: speedup(record).median, default=None)


def against(target: str, own: Record, rivals: Sequence[Record], wanted: float) -> Iterator[Line]:
    """`own` over the fastest of `rivals`; nothing where there is none."""
    if rival := fastest(rivals):
        yield Line(target, f"{told(own)} over {rival.kernel}", over(speedup(own), speedup(rival)), wanted)


def told(record: Record) -> str:
    case = record.case
    shape = f"{case.m}x{case.k} n={case.n} {case.layout}"
    sparsity = "" if record.sparsity is None else f" {record.sparsity:.1%}"
    return f"{record.kernel} {shape}{sparsity}"


def condensed(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    name = "condensed, 768x3072, 90 %"
    for own in of(records, "condensed", "condensed.cuda", layout="batch"):
        yield Line(name, f"{told(own)} over {own.best_baseline(total=True)}", speedup(own), 1.7)
        yield from against(name, own, of(records, "condensed", *CUSPARSE, layout="batch"), 2.5)
        if rival := min(of(records, "condensed", *CUSPARSE, layout="feature"), key=time_s, default=None):
            ratio = time_s(rival) / time_s(own)  # of medians: the layouts of X have other baselines
            yield Line(name, f"{told(own)} over {rival.kernel} feature", ratio, 2.5)
        yield from against(name, own, of(records, "condensed", "csr.srigl", layout="batch"), 13)


def rbgp4(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    timed = of(records, "rbgp4", "rbgp4.cuda")
    for m, k, n, sparsity in sorted({(r.case.m, r.case.k, r.case.n, r.case.sparsity) for r in timed}):
        same = {"m": m, "k": k, "n": n, "sparsity": sparsity}
        own = fastest(of(records, "rbgp4", "rbgp4.cuda", **same))
        assert own is not None
        yield from against("rbgp4 over cuSPARSE CSR", own, of(records, "rbgp4", *CUSPARSE, **same), 5)
        library = of(records, "rbgp4", "bsr.cusparse", "bsr.torch_default", **same)
        yield from against("rbgp4 over library BSR 4x4", own, library, 2)


def tensor(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for own in of(records, "tensor", "rbgp4.mma", "rbgp4.triton", n=2048):
        rate, v = (own.useful_flops or 0) / time_s(own), own.facts.get("V")
        if peaks and v:
            # FLOP of the kept entries alone; V rows that share a list make V FLOP of each byte of X from L2.
            cap = min(peaks["tensor_flops_per_s"]["bfloat16"], float(v) * peaks["read_l2_bytes_per_s"])
            irf = speedup(own).median * (1 - (own.sparsity or 0))
            what = f"{told(own)} V={v}, irf {irf:.2f}, {rate / 1e12:.0f} of {cap / 1e12:.0f} TFLOP/s"
            yield Line("rbgp4 bf16 of its cap", what, rate / cap, 0.75)


def blocks(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    irfs = {32: 0.18, 64: 0.35, 128: 0.5}
    for own in of(records, "tensor", "bsr.triton"):
        same = {"n": own.case.n, "params": own.case.params}
        yield from against("bsr over torch's default", own, of(records, "tensor", "bsr.torch_default", **same), 1.3)
        yield from against("bsr over torch's tuned", own, of(records, "tensor", "bsr.torch_tuned", **same), 1.0)
        irf, rows = speedup(own).median * (1 - (own.sparsity or 0)), own.case.params["block"][0]
        yield Line("bsr irf", f"{told(own)} blocks of {rows}", irf, irfs[rows])


def hbs(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for own in of(records, "hbs", "hbs.cuda"):
        case = own.case
        same = {"m": case.m, "k": case.k, "n": case.n, "params": case.params}
        for levels in of(records, "hbs", "hbs.levels", **same):
            short = case.k <= 128 or max(time_s(own), time_s(levels)) < SHORT_S
            found = over(speedup(own), speedup(levels))
            yield Line("hbs fused over levels", told(own), found, 1.5 if short else 0.97)


def csr(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    large = []
    for own in of(records, "csr", "csr.cuda"):
        rival = fastest(of(records, "csr", *CUSPARSE, source=own.case.source, n=own.case.n))
        if rival is None:
            continue
        t0_s = float(own.facts.get("t0_s") or 0)
        found = over(speedup(own), speedup(rival))
        if time_s(rival) > 3 * t0_s > 0 or not t0_s:
            large.append(found.median)
        else:
            allowed_s = max(1.1 * time_s(rival), t0_s + 1e-6)
            yield Line("csr, short layers", f"{told(own)} time / allowed", time_s(own) / allowed_s, 1, least=False)
    if large:
        geomean = float(np.exp(np.mean(np.log(large))))
        yield Line("csr over cuSPARSE", f"geomean of {len(large)} layers and n", geomean, 2)


def small_n(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    wanted = {1: 3.0, 2: 3.0, 4: 3.0, 8: 2.5, 16: 1.5}
    for m, k in ((11008, 4096), (4096, 11008)):
        for n, ratio in wanted.items():
            for layout in ("batch", "feature"):
                if own := fastest(of(records, "small-n", m=m, k=k, n=n, layout=layout)):
                    yield Line("small n over dense", told(own), speedup(own), ratio)
                    if peaks and (t0_s := own.facts.get("t0_s")):
                        limit_s = t0_s + (own.format_bytes or 0) / peaks["stream_bytes_per_s"]
                        limit_s += peaks["gpu"]["processors"] * k * n * 2 / peaks["read_l2_bytes_per_s"]
                        yield Line("small n, time / limit", told(own), time_s(own) / limit_s, 1.7, least=False)


def conv(records: Sequence[Record], peaks: Any) -> Iterator[Line]:
    for own in of(records, "conv", "bsr.cuda", "rbgp4.cuda", op="conv2d"):
        shape = own.case.conv
        if shape is not None and shape.kh == 3:
            what = f"{told(own)} by {shape.stride}, {own.best_baseline(total=True)}"
            yield Line("3x3 convolution over the library", what, speedup(own), 2)


TARGETS: Sequence[Callable[[Sequence[Record], Any], Iterator[Line]]] = (
    condensed, rbgp4, tensor, blocks, hbs, csr, small_n, conv,
)  # fmt: skip


def lines(records: Sequence[Record], peaks: Any) -> Iterator[Line | str]:
    """All lines of one machine, or for a target without records its name."""
    for target in TARGETS:
        found = list(target(records, peaks))
        yield from found or [target.__name__]


def main(results: Path) -> int:
    """0 when every line of every machine holds, 1 where one does not, 2 without records."""
    try:
        records = [record for record in read_records(results) if record.suite.startswith("target-")]
    except StoreError as error:
        print(error, file=sys.stderr)
        records = []
    if not records:
        print(f"no records of suites/targets below {results}; run bash .ci/gpu {results} where there is a GPU")
        return 2
    missed = 0
    for machine in sorted({record.machine for record in records}):
        own = [record for record in records if record.machine == machine]
        print(f"\n{machine}\n\n| target | case | found | wanted | holds |\n|---|---|---|---|---|")
        for line in lines(own, read_peaks(results, machine)):
            missed += isinstance(line, str) or not line.holds
            print(line if isinstance(line, Line) else f"| {line} | no records | - | - | NO |")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
