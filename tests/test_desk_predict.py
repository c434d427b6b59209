"""Networks from layers: sums that add up, nothing that vanishes, intervals that say what they assume."""

import json
import math
from dataclasses import replace

import pytest
from replay import MACHINE, usual_arms, usual_world, write_results

from sparsebench import units
from sparsebench.commands import load_models
from sparsebench.desk.fit import fit
from sparsebench.desk.layers import Interval, LayerPrediction, add_up
from sparsebench.desk.model import Prediction
from sparsebench.desk.predict import _ratio, predict
from sparsebench.desk.verdict import verdict_on
from sparsebench.errors import ModelError
from sparsebench.network import Layer, Network
from sparsebench.plan import Plan
from sparsebench.rest import Rest

SHAPES = [(256, 512), (512, 512), (768, 3072), (1024, 1024)]
HBS = {"levels": [{"block": [4, 1], "sparsity": 0.8}, {"block": [1, 1], "sparsity": 0.95}]}


def layer(name, m=512, k=512, n=64, **more):
    return Layer(name=name, kind="linear", m=m, k=k, n=n, **more)


NETWORK = Network(
    "toy",
    "made up",
    (
        layer("stem", prunable=False),
        layer("wide", 768, 3072, calls=3),
        layer("tall", 1024, 1024),
        layer("odd", 1000, 1002),
    ),
)


def in_batch_layout(records):
    """The same timings as if activations had been [n, k]: what a network asks for."""
    return [replace(record, case=replace(record.case, layout="batch")) for record in records]


def sweep(layout=in_batch_layout):
    shapes, ns = [*SHAPES, (1000, 1002)], [1, 16, 64, 256]
    return layout(usual_world().sweep(shapes, ns, usual_arms()[:3] + usual_arms()[4:]))


@pytest.fixture(scope="module")
def fitted():
    return fit(sweep())


def blocks(shape=(4, 1), sparsity=0.9, kernel=None):
    return Plan.uniform(NETWORK, "block", {"block": list(shape)}, sparsity, kernel)


def test_sums_add_up_and_no_layer_is_missing(fitted):
    answer = predict(NETWORK, fitted, blocks())
    assert [entry.layer.name for entry in answer.layers] == ["stem", "wide", "tall", "odd"]
    calls = [entry.layer.calls for entry in answer.layers]
    dense = [entry.dense.time_s for entry in answer.layers]
    planned = [entry.chosen.time_s for entry in answer.layers]
    assert answer.dense_s.value == pytest.approx(sum(c * t for c, t in zip(calls, dense, strict=True)))
    assert answer.sparse_s.value == pytest.approx(sum(c * t for c, t in zip(calls, planned, strict=True)))
    assert answer.layers_speedup.value == pytest.approx(answer.dense_s.value / answer.sparse_s.value)
    assert answer.layers_speedup.low < answer.layers_speedup.value < answer.layers_speedup.high
    assert answer.place.machine == MACHINE


def test_a_layer_that_stays_dense_is_in_both_sums_and_says_why(fitted):
    answer = predict(NETWORK, fitted, blocks((16, 16)))
    stem, wide, _, odd = answer.layers
    assert (stem.sparse, stem.why) == (None, "must stay dense (prunable: false)")
    assert stem.chosen.time_s == stem.dense.time_s
    assert odd.sparse is None
    assert odd.why.startswith("stays dense: block 16x16 does not divide 1000x1002")
    assert wide.sparse is not None
    assert wide.irf == pytest.approx(0.1 * wide.dense.time_s / wide.sparse.time_s)


def test_the_model_chooses_a_kernel_and_prints_it(fitted):
    chosen = predict(NETWORK, fitted, blocks()).layers[1]
    assert chosen.chosen.kernel == "bsr.c"
    assert set(predict(NETWORK, fitted, blocks()).frame().kernel) >= {"bsr.c"}
    with pytest.raises(ModelError, match=r"layer wide: no model says how long bsr.scipy takes for 768x3072 n=64 block"):
        predict(NETWORK, fitted, blocks(kernel="bsr.scipy"))


def test_a_pruned_layer_without_a_model_raises(fitted):
    plan = Plan.uniform(NETWORK, "constant_fan_in", {}, 0.9)
    only_blocks = fit(in_batch_layout(usual_world().sweep(SHAPES, [64], usual_arms()[3:4])))
    with pytest.raises(ModelError, match=r"layer wide: no model says how long any kernel takes"):
        predict(NETWORK, only_blocks, plan)


def test_levels_use_equation_2(fitted):
    answer = predict(NETWORK, fitted, Plan.uniform(NETWORK, "hierarchical", HBS, None))
    assert "equation 2" in answer.layers[1].why
    assert answer.layers[1].chosen.kernel == "bsr.c + csr.c"


def test_without_the_rest_there_is_no_network_speedup(fitted):
    layers_only = predict(NETWORK, fitted, blocks())
    assert layers_only.network_speedup is None
    assert "layers only, rest unknown" in verdict_on(layers_only).answer
    whole = predict(NETWORK, fitted, blocks(), rest=Rest(0.2, 0.2))
    assert whole.network_speedup is not None
    assert 1 < whole.network_speedup.value < layers_only.layers_speedup.value
    dense_s, sparse_s, rest_s = whole.dense_s.value, whole.sparse_s.value, 0.2 * whole.dense_s.value
    assert whole.network_speedup.value == pytest.approx((dense_s + rest_s) / (sparse_s + rest_s))
    assert (whole.to_json()["rest_s"], whole.to_json()["planned_rest_s"]) == pytest.approx((rest_s, rest_s))


def test_seconds_of_a_network_are_those_of_its_dense_layers_in_place(fitted):
    """What other verifications found of them: amid other layers they take longer than alone. Speedups do not change."""
    alone = predict(NETWORK, fitted, blocks(), rest=Rest(0.2, 0.1))
    dense_s, sparse_s = alone.dense_s.value, alone.sparse_s.value
    assert alone.in_place == 1
    assert alone.whole_s == (pytest.approx(1.2 * dense_s), pytest.approx(sparse_s + 0.1 * dense_s))
    there = predict(NETWORK, fitted, blocks(), rest=Rest(0.2, 0.1, dense_layers_s=1.5 * dense_s))
    assert there.in_place == pytest.approx(1.5)
    assert there.whole_s == tuple(pytest.approx(1.5 * time_s) for time_s in alone.whole_s)
    assert there.rest_s == tuple(pytest.approx(1.5 * time_s) for time_s in alone.rest_s)
    assert there.network_speedup.value == pytest.approx(alone.network_speedup.value)
    assert there.to_json()["network_s"] == list(there.whole_s)
    assert predict(NETWORK, fitted, Plan(NETWORK, {}), rest=Rest(0.2, 0.1, dense_layers_s=dense_s)).whole_s == (
        pytest.approx(1.2 * dense_s),
        pytest.approx(1.2 * dense_s),
    )
    assert predict(NETWORK, fitted, blocks()).whole_s is None
    assert f"{units.seconds(there.whole_s[0])} to {units.seconds(there.whole_s[1])}" in verdict_on(there).answer


def test_each_form_of_a_network_has_its_own_rest(fitted):
    for shares in (Rest(0.1, 0.4), Rest(0.4, 0.1)):
        whole = predict(NETWORK, fitted, blocks(), rest=shares)
        dense_s, sparse_s = whole.dense_s.value, whole.sparse_s.value
        rest_s = whole.rest_s
        assert rest_s == pytest.approx((shares.dense * dense_s, shares.planned * dense_s))
        assert whole.network_speedup.value == pytest.approx((dense_s + rest_s[0]) / (sparse_s + rest_s[1]))
        assert whole.network_speedup.low < whole.network_speedup.value < whole.network_speedup.high
    dense = predict(NETWORK, fitted, Plan(NETWORK, {}), rest=Rest(0.1, 0.4))
    assert dense.network_speedup.value == 1.0


def test_a_rest_moves_with_the_dense_layers():
    """Bounds of one sum that are unknown: what the ratio comes to."""
    rest, inf = Rest(0.5, 0.25), math.inf
    assert _ratio(rest, 3.0, 1.0, 1.0) == pytest.approx((4 + 2) / (2 + 1))
    assert _ratio(rest, 3.0, inf, 1.0) == pytest.approx(_ratio(rest, 3.0, 1e15, 1.0)) == pytest.approx(1.5 / 1.25)
    assert _ratio(rest, inf, 1.0, 1.0) == pytest.approx(_ratio(rest, 1e15, 1.0, 1.0)) == pytest.approx(1.5 / 0.25)
    assert _ratio(rest, 3.0, 1.0, inf) == 0
    assert _ratio(Rest(0.0, 0.0), inf, 1.0, 1.0) == _ratio(Rest(0.0, 0.0), 3.0, 0.0, 0.0) == inf


def test_batches_multiply_n(fitted):
    assert predict(NETWORK, fitted, blocks(), batch=4).layers[1].case.n == 256
    assert predict(NETWORK, fitted, blocks(), batch=4).dense_s.value > predict(NETWORK, fitted, blocks()).dense_s.value


def test_extrapolation_is_told_first(fitted):
    answer = predict(NETWORK, fitted, blocks(), batch=1000)
    assert all(entry.extrapolated for entry in answer.layers)
    lines = verdict_on(answer).lines
    assert "4 of 4 layers lie outside what was measured (stem: n 64000 is outside the measured 1 to 256" in lines[1]
    assert "problems: [{network: toy, batch: [1000]}]" in lines[2]


def test_a_dense_time_that_was_guessed_is_told(fitted):
    network = Network("new", "made up", (layer("a", 640, 640),))
    answer = predict(network, fitted, Plan.uniform(network, "block", {"block": [4, 1]}, 0.9))
    assert "the dense time of 1 of 1 layers is predicted, not measured" in verdict_on(answer).doubt


def test_a_pattern_that_does_not_fit_is_told(fitted):
    assert (
        "the pattern does not fit 1 of 4 layers (odd stays dense: block 16x16"
        in verdict_on(predict(NETWORK, fitted, blocks((16, 16)))).doubt
    )


def test_json_has_every_layer_and_no_infinity(fitted):
    one_n = fit(in_batch_layout(usual_world().sweep(SHAPES, [64], usual_arms()[:4] + usual_arms()[4:8])))
    answer = predict(replace(NETWORK, layers=NETWORK.layers[:3]), one_n, blocks_for(NETWORK.layers[:3]), batch=2)
    assert answer.sparse_s.high == math.inf  # nobody has seen how n matters
    told = json.loads(json.dumps(answer.to_json(), allow_nan=False))
    assert told["sparse_s"][2] is None
    assert [entry["layer"] for entry in told["layers"]] == ["stem", "wide", "tall"]
    assert told["network_speedup"] is None


def blocks_for(layers):
    return Plan.uniform(Network("toy", "made up", layers), "block", {"block": [4, 1]}, 0.9)


def test_half_widths_add_within_a_kernel_and_root_sum_square_between():
    def entry(kernel):
        guess = Prediction(1.0, 0.97, 1.04, kernel=kernel)
        return LayerPrediction(layer("x"), None, guess, None, None, ""), guess

    same = add_up([entry("a"), entry("a")])
    assert (same.value, same.low, same.high) == (2.0, pytest.approx(2 - 0.06), pytest.approx(2 + 0.08))
    apart = add_up([entry("a"), entry("b")])
    assert (apart.low, apart.high) == (
        pytest.approx(2 - math.hypot(0.03, 0.03)),
        pytest.approx(2 + math.hypot(0.04, 0.04)),
    )


def test_an_all_dense_plan_is_a_speedup_of_one(fitted):
    answer = predict(NETWORK, fitted, Plan(NETWORK, {}))
    assert str(answer.layers_speedup) == "1.00x [1.00, 1.00]"
    assert [entry.why for entry in answer.layers[1:]] == ["not in the plan"] * 3
    assert "no sparse kernel" in verdict_on(answer).answer


def test_doubts_of_a_prediction_run_out(fitted):
    answer = predict(NETWORK, fitted, blocks(), rest=Rest(0.1, 0.1))
    found = verdict_on(answer)
    assert found.doubt == "sums of single layers leave out what layers do to each other's caches"
    assert found.command == "`sparsebench verify toy` with the same plan"


def test_an_unknown_rest_is_told(fitted):
    found = verdict_on(predict(NETWORK, fitted, blocks()))
    assert found.doubt == "what it spends outside its layers was never measured here, so no network speedup is known"
    assert found.command == "`sparsebench verify toy` with the same plan"


def test_a_network_asks_for_torchs_layout_where_it_was_measured(fitted):
    answer = predict(NETWORK, fitted, blocks())
    assert (answer.layout, {entry.case.layout for entry in answer.layers}) == ("batch", {"batch"})
    kept = fit(usual_world().sweep(SHAPES, [64], usual_arms([0.9])))
    answer = predict(narrow(), kept, blocks_for(narrow().layers))
    assert (answer.layout, answer.to_json()["layout"]) == ("feature", "feature")
    lines = verdict_on(answer).lines
    assert "linear layers were measured with activations [k, n], and torch keeps [n, k]" in lines[1]
    assert "problems: [{network: toy, batch: [1], layout: [batch]}]" in lines[2]
    with pytest.raises(ModelError, match="layer wide: no model says how long any dense kernel takes"):
        predict(narrow(), kept, blocks_for(narrow().layers), layout="batch")


def narrow():
    """Layers that were measured, so that nothing else is doubted."""
    return replace(NETWORK, layers=(layer("wide", 768, 3072), layer("tall", 1024, 1024)))


def test_an_interval_says_in_words_that_a_value_is_hardly_known():
    assert str(Interval(1.312, 1.1, 1.5)) == "1.31x [1.10, 1.50]"
    for low, high in ((0.0, 112.0), (0.0, math.inf), (2.0, 40.0)):
        assert str(Interval(11.1, low, high)).endswith("], hardly known")


def test_all_runs_of_a_trial_speak(tmp_path):
    """Half an hour later a machine is in another state; the geometric mean of both runs is what is predicted."""
    first = usual_world().sweep(SHAPES, [64], usual_arms((0.9,)))
    later = [replace(record, started_at="2027-01-01T09:00:00+00:00", samples=slower(record)) for record in first]
    write_results(tmp_path, [*first, *later])
    once = fit(first)
    both = load_models(tmp_path, MACHINE, None)
    for record in first:
        if record.kernel == "bsr.c":
            times_s = [models.sparse_time(record.case, models.place(), "bsr.c").time_s for models in (once, both)]
            assert times_s[1] / times_s[0] == pytest.approx(1.21**0.5, rel=0.005)


def slower(record):
    return {
        cache: {
            name: [time_s * (1.21 if name == record.kernel else 1.0) for time_s in times_s] for name, times_s in own
        }
        for cache, own in ((cache, own.items()) for cache, own in record.samples.items())
    }
