"""Hold networks, predicted and measured, to issue 6's figures: python .ci/network_targets.py RESULTS

Networks: each that `sparsebench verify` measured is predicted again: with all records; from sparse records of no shape
of that network, while its layers' dense times are measured, which takes a run of dense kernels alone; and without any
record of its shapes. Its speedup must be within 5 %, its seconds within 10 % of what all its verifications by the same
code say together (`runs`: how many, and their lowest and highest speedup); four networks, three plans each (dense, one
pattern, mixed), batch 1 and 16. The rest is that of the network's other plans.

HBS: the six configurations of 60 % of HBsNN's table 3 on the convolutions of ResNet-50-v2, from records of the suite
hbsnn: a kernel a level (equation 2 adds the levels up) and fused, apart.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.commands import load_models
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.observe import block_text, level_sparsities
from sparsebench.desk.predict import predict
from sparsebench.desk.quiet import Quiet
from sparsebench.desk.verified import SECONDS_WITHIN, SPEEDUP_WITHIN, Against, Measured, Off, in_network
from sparsebench.errors import BadInput
from sparsebench.network import Network, resolve_network
from sparsebench.record import Record
from sparsebench.rest import DENSE, measured_rest, runs_of, steady, verifications
from sparsebench.store import read_records
from sparsebench.units import percent

NETWORKS = ("vit-b16", "bert-base", "resnet50-v2", "vgg19-cifar")
BATCHES, PLANS = (1, 16), 3
ALL, DENSE_ALONE, NONE = "all records", "dense records of its shapes alone", "without its shapes"
COLUMNS = (ALL, DENSE_ALONE, NONE)
SIX = {
    ("4x1", (0.6,)),
    ("1x1", (0.6,)),
    *(("4x1+1x1", s) for s in ((0.63, 0.97), (0.65, 0.95), (0.7, 0.9), (0.8, 0.8))),
}
FUSED, A_LEVEL = ("hbs.c", "hbs.cuda"), ("hbs.c_levels", "hbs.levels")
SINGLE = {"hbs.c_levels": ("bsr.c", "csr.c"), "hbs.levels": ("bsr.cuda", "csr.cuda")}  # what runs a level alone


@dataclass
class Models:
    """The models of one machine, fitted once for each thing they may not know."""

    results: Path
    machine: str
    _made: dict[Any, FittedModels]

    def of(self, column: str, network: Network) -> FittedModels:
        about = column if column == ALL else (column, network.name)
        if about not in self._made:
            self._made[about] = load_models(self.results, self.machine, None, unknown(column, network))
        return self._made[about]


def unknown(column: str, network: Network) -> Callable[[Case], bool] | None:
    """Which cases the models of a column may not know; None where they may know all."""
    of_it = in_network(network)
    if column == DENSE_ALONE:
        return lambda case: of_it(case) and case.pattern != "dense"
    return of_it if column == NONE else None


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def within(share: float, most: float) -> str:
    return f"{Off(1 + share, 1.0)}{'' if abs(share) <= most else ' NO'}"


def plan_text(record: Record) -> str:
    """`dense`, the one pattern of all pruned layers, or `mixed`."""
    found = {
        f"{about['pattern']} {about['params'].get('block', '')} {percent(about['sparsity'] or 0)}"
        for about in record.case.params["plan"].values()
    }
    return " ".join(found.pop().split()) if len(found) == 1 else "mixed" if found else "dense"


# Networks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """How far off one prediction was: of the speedup, and of the seconds dense and planned."""

    column: str
    plan: str
    speedup: Off
    seconds: tuple[Off, Off]


def networks(known: Sequence[Record], models: Models) -> Iterator[str]:
    """A line for each network, plan and batch in `known`, verifications, and column; then what is missing, and sums."""
    newest = {(record.case.key, record.protocol.threads): record for record in known}.values()
    seen: dict[tuple[str, int], set[str]] = defaultdict(set)
    judged: list[Judged] = []
    yield row(
        "network", "batch", "plan", "runs", "predicted", "speedup", "measured", "off", "seconds off: dense, planned"
    )
    yield row(*["---"] * 9)
    for record in sorted(newest, key=lambda record: (network_of(record), record.case.n, plan_text(record))):
        about = network_of(record), record.case.n, plan_text(record)
        if record.outcome != "ok":
            yield row(*about, "", record.outcome, record.reason, "", "NO", "")
            continue
        seen[about[:2]].add(about[2])
        measured = Measured.of(*runs_of(record, known))
        for column in COLUMNS:
            try:
                found = one_network(measured, known, models, column)
            except BadInput as error:
                yield row(*about, runs_text(measured), column, str(error).split(";")[0], "", "NO", "")
                continue
            judged.append(found)
            off, seconds = found.speedup, ", ".join(within(side.share, SECONDS_WITHIN) for side in found.seconds)
            told = f"{off.predicted:.2f}x", f"{off.measured:.2f}x", within(off.share, SPEEDUP_WITHIN), seconds
            yield row(*about, runs_text(measured), column, *told)
    for network in NETWORKS:
        for batch in BATCHES:
            if (plans := len(seen[network, batch])) < PLANS:
                yield row(network, batch, f"{plans} of {PLANS} plans were verified", "", "", "", "", "NO", "")
    yield from sums(judged)


def network_of(record: Record) -> str:
    return record.case.source.file if record.case.source else ""


def runs_text(measured: Measured) -> str:
    """How many verifications count, and their lowest and highest speedup."""
    each = measured.over(DENSE).each
    return f"{len(each)}: {min(each):.2f} to {max(each):.2f}" if len(each) > 1 else "1"


def one_network(measured: Measured, known: Sequence[Record], models: Models, column: str) -> Judged:
    """What the records of `column` predict, beside what was measured; BadInput where they say nothing."""
    record = measured.record
    network, batch = Network.load(resolve_network(network_of(record))), record.case.n
    guess = predict(
        network,
        models.of(column, network),
        measured.plan(network),
        batch=batch,
        machine=models.machine,
        rest=measured_rest(known, network, batch, models.machine, but=record.case) or measured.rest,
    )
    found = Against(guess, measured)
    speedup, whole = found.speedup, found.whole_s
    assert speedup is not None
    assert whole is not None
    return Judged(column, plan_text(record), speedup, whole)


def sums(judged: Sequence[Judged]) -> Iterator[str]:
    """How many predictions are near enough, and how far off the others are: a line for each column."""
    yield ""
    yield row("predicted", "plans", "speedup off by, median", "most", "within 5 %", "seconds within 10 %")
    yield row(*["---"] * 6)
    for column in COLUMNS:
        for kind, dense in (("pruned", False), ("dense", True)):
            own = [one for one in judged if one.column == column and (one.plan == "dense") == dense]
            if not own:
                continue
            offs = [abs(one.speedup.share) for one in own]
            seconds = [abs(side.share) for one in own for side in one.seconds]
            near = (count(offs, SPEEDUP_WITHIN), count(seconds, SECONDS_WITHIN))
            yield row(column, kind, f"{100 * np.median(offs):.1f} %", f"{100 * max(offs):.1f} %", *near)


def count(shares: Sequence[float], most: float) -> str:
    """How many of `shares` are at most `most`."""
    return f"{sum(share <= most for share in shares)} of {len(shares)}"


# HBS ----------------------------------------------------------------------------------------------------------------


def hbs(records: Sequence[Record], models: Models) -> Iterator[str]:
    """A line for each configuration, kernel and batch: sums over all layers, and the mean error of a layer's ratio."""
    network, quiet = Network.load(resolve_network("resnet50-v2")), Quiet.of(records)
    yield row("batch", "configuration", "kernel", "layers", "predicted", "speedup", "measured", "off", "mean of layers")
    yield row(*["---"] * 9)
    groups: dict[tuple[int, str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.suite == "hbsnn" and record.outcome == "ok" and record.case.conv and configuration(record.case):
            groups[record.case.conv.batch, configuration(record.case), record.kernel].append(record)
    for (batch, config, kernel), group in sorted(groups.items()):
        for how, asked in ways(kernel):
            for column in COLUMNS:
                try:
                    told = one_configuration(group, quiet, network, models.of(column, network), models.machine, asked)
                except BadInput as error:
                    told = (str(error).split(";")[0], "", "NO", "")
                yield row(batch, config, f"{kernel} ({how})", len(group), column, *told)
    for config in sorted(map(config_text, SIX)):
        if not any(config == found for _, found, _ in groups):
            yield row("", config, "was not measured", "", "", "", "", "NO", "")


def ways(kernel: str) -> list[tuple[str, str]]:
    """(how it is predicted, the kernels that are asked): a kernel a level by equation 2, and by its own law."""
    if kernel in A_LEVEL:
        return [("levels, equation 2", " + ".join(SINGLE[kernel])), ("levels, its own law", kernel)]
    return [("fused" if kernel in FUSED else "one level", kernel)]


def configuration(case: Case) -> str:
    """The configuration of `case`, where it is one of the six; else nothing."""
    if case.pattern == "dense":
        return ""
    about = block_text(case), tuple(sparsity or 0.0 for sparsity in level_sparsities(case))
    return config_text(about) if about in SIX else ""


def config_text(about: tuple[str, tuple[float, ...]]) -> str:
    blocks, sparsities = about
    pairs = zip(blocks.split("+"), sparsities, strict=True)
    return " + ".join(f"{block}/{100 * sparsity:.0f}" for block, sparsity in pairs)


def one_configuration(
    group: Sequence[Record], quiet: Quiet, network: Network, models: FittedModels, machine: str, kernels: str
) -> tuple[str, str, str, str]:
    """(speedup predicted, measured, how far off, mean error of a layer) over the layers that `group` measured."""
    calls = calls_of(network)
    place, dense, planned = models.place(machine), [], []
    for record in group:
        times = calls.get(shape_of(record.case), 1)
        count = quiet.rounds(record, record.protocol.cache[0])  # measured as laws are fitted
        own_s, base_s = (
            steady(np.asarray(record.times_s(kernel=name))[count])
            for name in (record.kernel, record.best_baseline(total=True))
        )
        dense.append((times * models.dense_time(record.case, place).time_s, times * base_s))
        planned.append((times * models.sparse_time(record.case, place, kernels).time_s, times * own_s))
    ratios = np.array(dense) / np.array(planned)  # [layers, (predicted, measured)]
    predicted, measured = np.sum(dense, 0) / np.sum(planned, 0)
    mean = float(np.mean(np.abs(ratios[:, 0] / ratios[:, 1] - 1)))
    return (
        f"{predicted:.2f}x",
        f"{measured:.2f}x",
        within(predicted / measured - 1, SPEEDUP_WITHIN),
        percent(round(mean, 3)),
    )


def calls_of(network: Network) -> Mapping[Any, int]:
    """How often each shape runs."""
    found: dict[Any, int] = defaultdict(int)
    for layer in network.layers:
        found[shape_of(layer.case())] += layer.calls
    return found


def shape_of(case: Case) -> Any:
    conv = case.conv
    assert conv is not None or case.op == "gemm"
    return case.m, case.k, conv and (conv.c, conv.h, conv.w, conv.kh, conv.stride)


def main(results: Path) -> int:
    """0 where every line holds, 1 where one does not, 2 without records."""
    try:
        records = read_records(results)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    missed = False
    for machine in sorted({record.machine for record in records}):
        own, models = [record for record in records if record.machine == machine], Models(results, machine, {})
        for title, lines in (
            ("networks", networks(verifications(results, machine), models)),
            ("HBS on ResNet-50-v2", hbs(own, models)),
        ):
            print(f"\n{machine}: {title}\n")
            for line in lines:
                missed |= " NO" in line
                print(line, flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
