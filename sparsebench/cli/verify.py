"""The command that measures what predict predicted: verify. Here both wings meet: the lab measures, the desk compares.

A prediction is made twice, and both are shown: with everything that was measured, the network's own layers too where
they were, and by the laws alone, fitted without any shape of this network. Neither sees what is measured here, but for
the rest: that comes from the records of other plans, or where there are none from the dense network of this very plan.
Both are compared with all verifications of the same plan and code so far: one alone is a draw (rest.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sparsebench import commands as shared
from sparsebench.cli.app import (
    HERE,
    Batch,
    Device,
    Json,
    MachineId,
    ModelFile,
    NetworkName,
    PatternText,
    PlanFile,
    Results,
    SparsityOf,
    app,
)
from sparsebench.console import Voice
from sparsebench.errors import BadInput
from sparsebench.network import Network, resolve_network
from sparsebench.plan import Plan
from sparsebench.record import Record
from sparsebench.rest import Rest, measured_rest, runs_of, verifications

if TYPE_CHECKING:
    from sparsebench.desk.fitted import FittedModels
    from sparsebench.desk.predict import NetworkPrediction
    from sparsebench.desk.verified import Against, Measured

ALL, LAWS = "with all records", "without its shapes"
LEVELS = {"cpu": "hbs.c_levels", "cuda": "hbs.levels"}  # run what equation 2 adds up, a kernel a level


@app.command()
def verify(
    network: NetworkName,
    pattern: PatternText = None,
    sparsity: SparsityOf = None,
    plan: PlanFile = None,
    batch: Batch = 1,
    device: Device = "auto",
    results: Results = HERE,
    machine: MachineId = None,
    model: ModelFile = None,
    json: Json = False,
) -> None:
    """Build NETWORK dense and as planned, check that they agree, time both, and say how far off predict was.

    Without a pattern or plan all stays dense, and what the network spends outside its layers is measured. Exit 1 where
    the answer of the planned network is beyond its error bound.
    """
    from sparsebench.desk.verified import Measured, layer_rows, lines_on, named_baselines
    from sparsebench.kernel import all_kernels
    from sparsebench.lab import verify as lab
    from sparsebench.listing import plain
    from sparsebench.machine import Machine

    voice = Voice(json)
    file = resolve_network(network)
    net, builder, here = Network.load(file), lab.builder_of(file), Machine.here(device)
    if machine not in (None, here.id):
        raise BadInput(
            f"verify measures on this machine, {here.id}, and --machine asked for {machine}; leave it out, or "
            f"say --device"
        )
    chosen = shared.planned_as(net, pattern, sparsity, plan, may_be_dense=True)
    oracle = _Oracle(net, batch, here.id, results, model)
    guess = oracle.predict(ALL, chosen)
    settled, kernels = _settled(net, chosen, guess, oracle), {each.name: each for each in all_kernels().values()}
    verification = lab.Verification(
        network=net,
        builder=builder,
        planned=settled.cases(net, batch, layout="batch"),
        chosen={name: _runs(choice.kernel or "", LEVELS[here.device]) for name, choice in settled.choices.items()},
        baselines=named_baselines(oracle.records),
        machine=here,
        kernels=kernels,
        protocol=lab.TIMED,
        batch=batch,
    )
    voice.say(f"Running {net.name}, batch {batch}, with {len(settled.choices)} of {len(net.layers)} layers pruned ...")
    record = verification.execute(results)
    if record.outcome != "ok":
        voice.say(f"{net.name} is {record.outcome}: {record.reason}")
        voice.document({"outcome": record.outcome, "reason": record.reason, "error_ratio": record.error_ratio})
        raise typer.Exit(1)
    measured = Measured.of(*runs_of(record, verifications(results, here.id)))
    found = oracle.against(settled, measured)
    voice.say(plain(layer_rows(found, measured)))
    lines = [*lines_on(found, measured), *oracle.told]
    voice.say("\n".join(["", *lines]))
    voice.document(_document(measured, Measured.of(record), found, lines))


@dataclass(slots=True)
class _Oracle:
    """What the desk says of one network, fitted with all records and without those of its shapes."""

    network: Network
    batch: int
    machine: str
    results: Path
    model: Path | None
    told: list[str] = field(default_factory=list)
    records: Sequence[Record] = field(init=False)
    _models: dict[str, FittedModels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = shared.records_of(self.results, self.machine)

    def predict(self, column: str, plan: Plan, rest: Rest | None = None) -> NetworkPrediction | None:
        """The prediction of one column; None, and the reason among `told`, where nothing was measured for it."""
        from sparsebench.desk.predict import predict

        try:
            return predict(self.network, self._fitted(column), plan, batch=self.batch, machine=self.machine, rest=rest)
        except BadInput as error:
            self.told.append(f"No prediction {column}: {error}")
            return None

    def against(self, plan: Plan, measured: Measured) -> dict[str, Against]:
        """Each prediction that can be made, beside what was measured."""
        from sparsebench.desk.verified import Against

        self.told.clear()
        rest = self._rest(measured)
        columns = [ALL] if self.model else [ALL, LAWS]
        guesses = {column: self.predict(column, plan, rest) for column in columns}
        return {column: Against(guess, measured) for column, guess in guesses.items() if guess}

    def _fitted(self, column: str) -> FittedModels:
        from sparsebench.desk.verified import in_network

        if column not in self._models:
            leave_out = in_network(self.network) if column == LAWS else None
            self._models[column] = shared.load_models(self.results, self.machine, self.model, leave_out)
        return self._models[column]

    def _rest(self, measured: Measured) -> Rest:
        known = verifications(self.results, self.machine)
        others = measured_rest(known, self.network, self.batch, self.machine, but=measured.record.case)
        if others is not None:
            return others
        self.told.append("The rest is this plan's own, of its dense network: no other plan of it was verified before.")
        return measured.rest


def _settled(net: Network, plan: Plan, guess: NetworkPrediction | None, oracle: _Oracle) -> Plan:
    """The plan with a kernel for each layer that its pattern fits; BadInput where nobody says which."""
    if guess is not None:
        kernels = {entry.layer.name: entry.chosen.kernel for entry in guess.layers if entry.sparse}
        return Plan(net, {name: replace(plan.choices[name], kernel=kernel) for name, kernel in kernels.items()})
    fitting = {
        entry.layer.name: plan.choices[entry.layer.name]
        for entry in plan.cases(net)
        if entry.sparse
        and not entry.sparse.pattern_object.why_not(entry.sparse.m, entry.sparse.k, entry.sparse.sparsity)
    }
    if unnamed := [name for name, choice in fitting.items() if choice.kernel is None]:
        raise BadInput(f"{oracle.told[-1]}\nSo nobody chooses a kernel for {unnamed[0]}; name kernels in a --plan file")
    return Plan(net, fitting)


def _runs(kernel: str, levels: str) -> str:
    """The kernel that runs what the model chose: a kernel a level is one kernel here, `levels`."""
    return levels if "+" in kernel else kernel


def _document(measured: Measured, run: Measured, found: Mapping[str, Against], lines: Sequence[str]) -> dict[str, Any]:
    """This run's own figures, and as `together` those of all verifications, which are what is compared."""
    record, speedup, together = run.record, run.own, measured.speedup
    return {
        "outcome": record.outcome,
        "network": record.case.source.file if record.case.source else "",
        "batch": record.case.n,
        "machine": record.machine,
        "error_ratio": record.error_ratio,
        "speedup": [speedup.median, speedup.low, speedup.high],
        "baseline": run.baseline,
        "whole_s": {"dense": run.dense.whole_s, "torch": run.torch_s, "planned": run.planned.whole_s},
        "rest_s": {"dense": run.dense.rest_s, "planned": run.planned.rest_s},
        "together": {"speedup": together.value, "spread": together.spread, "speedups": list(together.each)},
        "predicted": {column: against.to_json() for column, against in found.items()},
        "verdict": list(lines),
    }
