"""Predicted beside measured: every figure off by what it was made to be off by, from the record alone."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from replay import MACHINE
from test_desk_predict import NETWORK, blocks, sweep

from sparsebench.case import Case, Conv
from sparsebench.desk.fit import fit
from sparsebench.desk.predict import predict
from sparsebench.desk.verified import Against, Measured, in_network, layer_rows, lines_on, named_baselines
from sparsebench.network import Layer
from sparsebench.record import Record, record_key
from sparsebench.rest import DENSE, PLANNED, TORCH, Rest, rest_case, series

ROUNDS, REST_S = 9, 2e-3


def whole(prediction, dense=1.0, planned=1.0, rest_s=REST_S, choices=None, torch_s=1.0):
    """The record of a network whose layers took so many times what `prediction` says."""
    samples = {TORCH: [torch_s] * ROUNDS}
    for side, factor in ((DENSE, dense), (PLANNED, planned)):
        total_s = rest_s
        for entry in prediction.layers:
            guess = entry.dense if side == DENSE else entry.chosen
            time_s = factor * entry.layer.calls * guess.time_s
            samples[series(side, entry.layer.name)] = [time_s] * ROUNDS
            total_s += time_s
        samples[side] = [total_s] * ROUNDS
    chosen = (blocks() if choices is None else choices).choices
    plan = {
        name: {"pattern": c.pattern, "params": dict(c.params), "sparsity": c.sparsity, "kernel": "bsr.c"}
        for name, c in chosen.items()
    }
    case, known = rest_case(NETWORK, 1, plan), {DENSE: "d", TORCH: "t"}
    protocol = replace(sweep()[0].protocol)
    layers = {entry.layer.name: {"kernel": "bsr.c", "dense_kernel": "dense.onednn"} for entry in prediction.layers}
    return Record(
        key=record_key(case, PLANNED, "p", known, MACHINE, protocol, {}), suite="verify-toy", case=case, kernel=PLANNED,
        source_sha="p", machine=MACHINE, protocol=protocol, outcome="ok", baselines=known, error_ratio=0.25,
        samples={"weights_cold": samples}, facts={"layers": layers},
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    return fit(sweep())


@pytest.fixture(scope="module")
def guess(fitted):
    dense_s = predict(NETWORK, fitted, blocks()).dense_s.value
    return predict(NETWORK, fitted, blocks(), rest=Rest(REST_S / dense_s, REST_S / dense_s))


def test_what_is_right_is_off_by_nothing(guess):
    found = Against(guess, Measured.of(whole(guess)))
    offs = [*sum(found.layers.values(), ()), found.dense_s, found.planned_s, *found.whole_s, found.speedup]
    assert all(off.share == pytest.approx(0, abs=1e-9) for off in offs)
    assert found.measured.speedup.value == pytest.approx(guess.network_speedup.value)


def test_what_is_wrong_is_off_by_as_much(guess):
    found = Against(guess, Measured.of(whole(guess, dense=0.8, planned=1.25)))
    assert found.dense_s.share == pytest.approx(1 / 0.8 - 1)
    assert found.planned_s.share == pytest.approx(1 / 1.25 - 1)
    assert str(found.planned_s) == "-20.0 %"
    assert {tuple(round(off.share, 6) for off in both) for both in found.layers.values()} == {(0.25, -0.2)}
    dense_s, planned_s = guess.dense_s.value, guess.sparse_s.value
    measured = (0.8 * dense_s + REST_S) / (1.25 * planned_s + REST_S)
    assert found.speedup.measured == pytest.approx(measured)
    assert found.speedup.share == pytest.approx(guess.network_speedup.value / measured - 1)
    assert json.loads(json.dumps(found.to_json()))["dense_s"]["off"] == pytest.approx(0.25)


def test_verifications_count_together(guess):
    """Geometric means of both, and this run's own beside them."""
    first, newest = whole(guess, planned=1.25), whole(guess, dense=2.0, planned=2.0)
    both, alone = Measured.of(first, newest), [Measured.of(record) for record in (first, newest)]
    each = tuple(one.speedup.value for one in alone)
    assert both.speedup.each == each
    assert both.speedup.value == pytest.approx((each[0] * each[1]) ** 0.5)
    assert both.speedup.spread == pytest.approx(max(each) / min(each) - 1)
    assert both.dense.layers_s["wide"] == pytest.approx(2**0.5 * alone[0].dense.layers_s["wide"])
    assert both.own.median == pytest.approx(each[1])
    told = lines_on({}, both)[1]
    assert f"{both.speedup.value:.2f}x as fast as network.dense over 2 verifications, spread " in told
    assert f"; in this run {both.own}" in told
    found = Against(guess, both)
    assert found.speedup.share == pytest.approx(guess.network_speedup.value / both.speedup.value - 1)


def test_a_plan_without_others_has_its_own_rest(guess):
    share = REST_S / guess.dense_s.value
    assert Measured.of(whole(guess)).rest == Rest(pytest.approx(share), pytest.approx(share))
    both = Measured.of(whole(guess), whole(guess, dense=0.5))
    assert both.rest.dense == pytest.approx(1.5 * share)


def test_calls_of_a_layer_count(guess):
    wide = next(entry for entry in guess.layers if entry.layer.name == "wide")
    dense, _ = Against(guess, Measured.of(whole(guess))).layers["wide"]
    assert dense.predicted == pytest.approx(3 * wide.dense.time_s)


def test_without_a_rest_no_whole_is_compared(fitted):
    layers_only = predict(NETWORK, fitted, blocks())
    found = Against(layers_only, Measured.of(whole(layers_only)))
    assert (found.whole_s, found.speedup) == (None, None)
    told = lines_on({"by law": found}, found.measured)
    assert told[-1].endswith("layers off by +0.0 % dense and +0.0 % planned")


def test_a_table_and_lines_for_people(guess):
    measured = Measured.of(whole(guess, dense=0.8, planned=1.25))
    columns = {"by law": Against(guess, measured)}
    head, rows = layer_rows(columns, measured)
    assert head[-1] == "by law: off"
    assert [row[0] for row in rows] == ["stem", "wide", "tall", "odd"]
    assert {row[-1] for row in rows} == {"+25.0 %, -20.0 %"}
    lines = lines_on(columns, measured)
    assert "rest: 2.00 ms and 2.00 ms" in lines[0]
    assert "as fast as network.dense" in lines[1]
    assert lines[2] == "Output: 25 % of the error that is allowed"
    assert "Predicted by law: layers off by +25.0 % dense and -20.0 % planned; whole by " in lines[3]


def test_the_plan_comes_back_from_the_record(guess):
    plan = Measured.of(whole(guess)).plan(NETWORK)
    assert {name: (c.pattern, c.sparsity, c.kernel) for name, c in plan.choices.items()} == dict.fromkeys(
        ("wide", "tall", "odd"), ("block", 0.9, "bsr.c")
    )


def test_shapes_of_a_network_whatever_their_batch_are_left_out():
    conv = Conv(c=8, h=6, w=6, kh=3, kw=3, padding=1)
    own = Layer(name="c", kind="conv2d", m=4, k=72, n=36, conv=conv)
    asked = in_network(replace(NETWORK, layers=(*NETWORK.layers, own)))
    assert asked(Case(m=768, k=3072, n=7, layout="batch", pattern="unstructured", sparsity=0.5))
    assert asked(own.case(16))
    assert not asked(Case(m=3072, k=768, n=64))
    assert not asked(replace(own, conv=replace(conv, stride=2), n=9).case())
    assert not asked(Case(m=4, k=72, n=36))
    assert not asked(rest_case(NETWORK, 1, {}))


def test_laws_alone_never_saw_the_network(fitted):
    without = fit(sweep(), leave_out=in_network(replace(NETWORK, layers=NETWORK.layers[2:3])))
    tall = NETWORK.layers[2].case(layout="batch")
    place = fitted.place()
    assert fitted.dense_time(tall, place).measured
    assert not without.dense_time(tall, place).measured


def test_the_newest_run_names_the_baselines():
    record = next(record for record in sweep() if record.case.pattern != "dense")
    later = replace(record, baselines={"dense.numpy": "x"}, started_at="2027")
    about = record.case.problem.identity
    assert named_baselines([record])[about] == tuple(record.baselines)
    assert named_baselines([later, record])[about] == ("dense.numpy",)


# --- .ci/network_targets.py -------------------------------------------------------------------------------------------


@pytest.fixture
def targets(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / ".ci")
    return importlib.import_module("network_targets")


def test_targets_say_yes_and_no(targets, guess, fitted, monkeypatch):
    monkeypatch.setattr(targets.Network, "load", lambda path: NETWORK)
    monkeypatch.setattr(targets, "resolve_network", lambda name: name)
    monkeypatch.setattr(targets, "load_models", lambda *about: fitted)
    right, wrong = whole(guess), whole(guess, planned=1.25)
    for records, runs, off in (
        ([right], "| 1 |", "+0.0 %"),
        ([wrong], "| 1 |", " NO"),
        ([wrong, right], "| 2: ", " NO"),
    ):
        lines = list(targets.networks(records, targets.Models(Path(), MACHINE, {})))
        own = [line for line in lines if line.startswith("| toy")]
        assert len(own) == len(targets.COLUMNS)
        assert all(runs in line and off in line and "block [4, 1] 90 %" in line for line in own)
    assert sum("plans were verified" in line for line in lines) == 8
    middle = (whole_speedup(right) * whole_speedup(wrong)) ** 0.5
    assert f"| 2: {whole_speedup(wrong):.2f} to {whole_speedup(right):.2f} |" in own[0]
    off = f"{100 * (guess.network_speedup.value / middle - 1):.1f} %"
    assert lines[-3:] == [f"| {column} | pruned | {off} | {off} | 0 of 1 | 2 of 2 |" for column in targets.COLUMNS]


def test_each_column_knows_less_of_a_network(targets):
    layer = NETWORK.layers[0]
    dense, other = layer.case(), Case(m=7, k=9, n=1)
    pruned = replace(dense, pattern="block", params={"block": [4, 1]}, sparsity=0.9)
    assert targets.unknown(targets.ALL, NETWORK) is None
    for column, unknown in ((targets.DENSE_ALONE, [pruned]), (targets.NONE, [pruned, dense])):
        left_out = targets.unknown(column, NETWORK)
        assert [case for case in (pruned, dense, other) if left_out(case)] == unknown


def whole_speedup(record):
    return Measured.of(record).speedup.value


def test_a_sum_counts_what_is_near(targets):
    off = [targets.Off(1 + share, 1.0) for share in (0.04, -0.06, 0.11)]
    judged = [targets.Judged(targets.COLUMNS[0], "mixed", speedup, (off[0], off[2])) for speedup in off]
    judged.append(targets.Judged(targets.COLUMNS[0], "dense", off[1], (off[0], off[0])))
    assert list(targets.sums(judged))[3:] == [
        f"| {targets.COLUMNS[0]} | pruned | 6.0 % | 11.0 % | 1 of 3 | 3 of 6 |",
        f"| {targets.COLUMNS[0]} | dense | 6.0 % | 6.0 % | 0 of 1 | 2 of 2 |",
    ]


def test_a_failed_verification_is_told_and_not_counted(targets, guess):
    failed = replace(whole(guess), outcome="wrong", reason="whole network against float64", samples={})
    lines = list(targets.networks([failed], targets.Models(Path(), MACHINE, {})))
    assert any("wrong" in line and " NO" in line for line in lines if line.startswith("| toy"))


def test_the_six_configurations_are_told_apart(targets):
    def config(*levels):
        params = {"levels": [{"block": list(block), "sparsity": s} for block, s in levels]}
        return targets.configuration(Case(m=8, k=8, n=1, pattern="hierarchical", params=params))

    assert config(((4, 1), 0.63), ((1, 1), 0.97)) == "4x1/63 + 1x1/97"
    assert config(((4, 1), 0.63), ((1, 1), 0.9)) == ""
    blocks_ = Case(m=8, k=8, n=1, pattern="block", params={"block": [4, 1]}, sparsity=0.6)
    assert targets.configuration(blocks_) == "4x1/60"
    assert targets.configuration(replace(blocks_, sparsity=0.9)) == ""
    assert targets.configuration(Case(m=8, k=8, n=1, pattern="unstructured", sparsity=0.6)) == "1x1/60"
