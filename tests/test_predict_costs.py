"""What pruning costs beside time: bytes as the format really takes them, packing as calls until it is paid back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from replay import MACHINE, usual_arms, usual_world
from test_desk_predict import NETWORK, blocks, sweep

from sparsebench.case import Case
from sparsebench.desk.costs import Costs, costs, pack_seconds, stored_bytes
from sparsebench.desk.fit import fit
from sparsebench.desk.predict import predict
from sparsebench.formats import Bsr, Csr
from sparsebench.plan import Plan


@pytest.fixture(scope="module")
def records():
    return sweep()


@pytest.fixture(scope="module")
def fitted(records):
    return fit(records)


def test_bytes_are_those_of_the_packed_matrix():
    case = Case(m=64, k=96, n=7, pattern="block", params={"block": [4, 1]}, sparsity=0.9)
    draw = case.draw()
    w = case.weights(draw)
    assert stored_bytes(case, "bsr") == Bsr.from_dense(w, draw.mask, draw.structure).nbytes
    assert stored_bytes(case, "csr") == Csr.from_dense(w, draw.mask, draw.structure).nbytes
    assert stored_bytes(case, "dense") == 4 * 64 * 96
    assert stored_bytes(replace(case, dtype="bfloat16"), "dense") == 2 * 64 * 96


def test_memory_counts_every_matrix_once_and_dense_layers_whole(fitted, records):
    answer = predict(NETWORK, fitted, blocks())
    found = costs(answer, pack_seconds(records, MACHINE))
    assert found.dense_bytes == 4 * NETWORK.weights
    stem, *pruned = answer.layers
    stored = sum(stored_bytes(replace(entry.case, n=1), "bsr") for entry in pruned)
    assert found.planned_bytes == 4 * stem.layer.weights + stored
    assert 0.1 * found.dense_bytes < found.planned_bytes < 0.4 * found.dense_bytes


def test_packing_is_paid_back_by_the_time_that_is_saved(fitted, records):
    answer = predict(NETWORK, fitted, blocks())
    rates = pack_seconds(records, MACHINE)
    assert set(rates) >= {"bsr.c", "csr.c"}
    found = costs(answer, rates)
    assert found.pack_s == pytest.approx(rates["bsr.c"] * sum(layer.weights for layer in NETWORK.layers[1:]))
    saved_s = answer.dense_s.value - answer.sparse_s.value
    assert found.pays_back_calls == pytest.approx(found.pack_s / saved_s)
    assert f"paid back after {max(1, -int(-found.pays_back_calls // 1))} forward passes" in str(found)


def test_levels_are_packed_a_kernel_each(fitted, records):
    levels = {"levels": [{"block": [4, 1], "sparsity": 0.8}, {"block": [1, 1], "sparsity": 0.95}]}
    answer = predict(NETWORK, fitted, Plan.uniform(NETWORK, "hierarchical", levels, None))
    rates = pack_seconds(records, MACHINE)
    pruned = sum(layer.weights for layer in NETWORK.layers[1:])
    assert costs(answer, rates).pack_s == pytest.approx((rates["bsr.c"] + rates["csr.c"]) * pruned)


def test_what_is_unknown_or_never_paid_back_is_said(fitted):
    unknown = costs(predict(NETWORK, fitted, blocks()), {})
    assert (unknown.pack_s, unknown.pays_back_calls) == (None, None)
    assert "packing was never timed for these kernels" in str(unknown)
    never = Costs(100, 50, 0.5, float("inf"))
    assert str(never) == "Weights: 50 B of 100 B dense (50 %); packing takes 500 ms, which nothing pays back"
    assert never.to_json()["pays_back_calls"] is None


def test_all_dense_costs_nothing(fitted, records):
    found = costs(predict(NETWORK, fitted, Plan(NETWORK, {})), pack_seconds(records, MACHINE))
    assert (found.planned_bytes, found.pack_s) == (found.dense_bytes, 0)


def test_only_timed_kernels_of_this_machine_say_how_long_packing_takes():
    records = usual_world().sweep([(64, 64)], [16], usual_arms()[3:4])
    assert pack_seconds(records, "other") == {}
    assert pack_seconds([replace(record, outcome="wrong", samples={}) for record in records], MACHINE) == {}
    assert pack_seconds(records, MACHINE) == {"bsr.c": pytest.approx(0.01 / 64**2)}
