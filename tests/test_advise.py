"""Advice: what is fastest, from where on it pays, and the plain word where nothing does."""

import json
import math
import sys
from dataclasses import replace

import pytest
from replay import MACHINE, file_records, usual_arms, usual_world, write_results

from sparsebench.case import Conv
from sparsebench.cli import main
from sparsebench.desk.advise import advise, one_layer
from sparsebench.desk.advise_plot import draw
from sparsebench.desk.advise_say import map_table, sparsity_text, texts, to_json, verdict
from sparsebench.desk.canvas import png
from sparsebench.desk.fit import fit
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.predict import predict
from sparsebench.errors import ModelError
from sparsebench.network import Layer, Network
from sparsebench.plan import Plan

SHAPES = [(256, 512), (512, 512), (768, 3072), (1024, 1024)]
NS = [1, 16, 64, 256]
HBS = {"levels": [{"block": [4, 1], "sparsity": 0.8}, {"block": [1, 1], "sparsity": 0.8}]}


def flat(seconds_per_flop):
    """Kernels whose time is that of their useful work, without noise: dense ones need 1 / 1.5e11 (1 + 8 / n)."""
    rates = dict.fromkeys(["csr.c", "bsr.c", "condensed.c"], lambda kept, bh, bw, n: seconds_per_flop)
    return usual_world(rates=rates, floor_s=0.0, noise=0.0, shape_noise=0.0)


def models(world, arms=None, shapes=SHAPES):
    return fit(world.sweep(shapes, NS, arms or usual_arms()))


@pytest.fixture(scope="module")
def usual():
    return models(usual_world(rates={**usual_world().rates, "hbs.c": lambda *_: 2e-12}),
                  [*usual_arms(), ("hierarchical", HBS, None, "hbs.c")])  # fmt: skip


def shape(fitted, m=768, k=3072, n=64):
    return advise(one_layer(m, k), fitted, batch=n, shape=True)


def even(advice, pattern):
    return next(each for each in advice.break_evens if each.arm.text == pattern)


def test_where_dense_wins_everywhere_it_is_said_plainly():
    found = shape(models(flat(1e-9), shapes=SHAPES[2:]))
    assert {row.answer.speedup.value < 1 for row in found.rows} == {True}
    assert [each.sparsity for each in found.break_evens] == [None] * 4
    assert {sparsity_text(each) for each in found.break_evens} == {"not up to 95 %"}
    assert verdict(found).answer.startswith("Nothing here beats dense on 768x3072, n=64: the nearest is ")
    assert all(each["sparsity"] is None for each in to_json(found)["break_evens"])


def test_break_even_sparsity_is_that_of_the_law():
    """2 m k n (1 - s) r = 2 m k n (1 + 8 / n) / 1.5e11, so s = 1 - (1 + 8 / n) / (1.5e11 r)."""
    fitted = models(flat(1 / 3e10), usual_arms()[::4])
    for n in NS[1:]:
        found = even(shape(fitted, n=n), "unstructured")
        assert found.sparsity.value == pytest.approx(1 - 0.2 * (1 + 8 / n), abs=0.004)
        assert found.sparsity.low <= found.sparsity.value <= found.sparsity.high


def test_break_even_n_is_that_of_the_law():
    """At 90 %: 0.1 r 1.5e11 = 1 + 8 / n, so with r = 1 / 1.2e10 sparse wins below n = 32."""
    advice = shape(fit(flat(1 / 1.2e10).sweep(SHAPES, [4, 24, 48, 96], usual_arms()[::4])), n=24)
    main_span, _, _ = even(advice, "unstructured").batch_span(24)
    assert main_span.open_low
    assert math.exp(main_span.high) == pytest.approx(32, rel=0.06)
    assert f"up to {round(math.exp(main_span.high))} [" in texts(advice)[2]


def test_measured_answers_come_first_and_predictions_say_so(usual):
    found = shape(usual)
    measured = {row.sparsity: row.answer.measured for row in found.rows}
    assert measured[0.9]
    assert measured[0.95]
    assert not measured[0.7]
    assert "measured" in verdict(shape(usual)).doubt or "luckier" in verdict(shape(usual)).doubt
    fresh = shape(usual, 640, 800)
    assert not any(row.answer.measured for row in fresh.rows)
    assert verdict(fresh).doubt == "the dense time is predicted, not measured"
    assert "[{m: 640, k: 800, n: [64]}]" in verdict(fresh).command


def test_the_fastest_row_is_the_fastest_of_its_column(usual):
    found = shape(usual, 640, 800)
    for row in found.rows:
        rivals = [each.speedups[row.sparsity].value for each in found.break_evens if row.sparsity in each.speedups]
        assert row.answer.speedup.value == pytest.approx(max(rivals))


def test_a_prediction_displaces_a_measured_time_only_where_it_surely_beats_it():
    """At n = 64 block 16x16 was timed at 80 and 95 % alone, so that its 90 % is a prediction."""
    arms = [arm for arm in usual_arms((0.8, 0.9, 0.95)) if not (arm[1] == {"block": [16, 16]} and arm[2] == 0.9)]
    wide = models(usual_world(noise=0.02, shape_noise=0.5), arms)
    row = next(row for row in shape(wide).rows if row.sparsity == 0.9)
    assert row.answer.measured
    guess = even(shape(wide), "block 16x16").speedups[0.9]
    assert guess.low < row.answer.speedup.value
    sure = models(usual_world(noise=0.0, shape_noise=0.0), arms)
    assert [arm.text for arm in next(row for row in shape(sure).rows if row.sparsity == 0.9).answer.arms] == [
        "block 16x16"
    ]


def test_what_was_not_measured_is_marked(usual):
    found = shape(usual, 8192, 8192, 64)
    assert all(row.answer.extrapolated for row in found.rows)
    assert "outside what was measured" in verdict(found).doubt
    assert all(cell.endswith("~") for row in map_table(found)[1] for cell in row[1:])
    assert not any(row.answer.extrapolated for row in shape(usual).rows)


def test_a_pattern_that_fixes_its_sparsity_stands_in_the_nearest_row(usual):
    found = even(shape(usual), "hierarchical 4x1 80 % + 1x1 80 %")
    assert found.arm.sparsities == (0.6,)
    assert sparsity_text(found) == "at its 60 %"
    rows = {row.sparsity: row.answer.kernels for row in shape(usual).rows}
    assert rows[0.6] == ("hbs.c",)
    assert 0.6 in found.speedups


def test_blocks_that_do_not_divide_a_shape_are_no_candidates(usual):
    patterns = {each.arm.text for each in shape(usual, 1001, 600).break_evens}
    assert patterns == {"unstructured", "constant_fan_in"}
    with pytest.raises(ModelError, match="no pattern that was timed on replay-cpu-0a1b2c fits a layer of 1001x601"):
        shape(models(usual_world(), usual_arms()[2:4]), 1001, 601)


NETWORK = Network(
    "toy",
    "made up",
    (
        Layer(name="stem", kind="linear", m=512, k=512, n=64, prunable=False),
        Layer(name="wide", kind="linear", m=768, k=3072, n=64, calls=3),
        Layer(name="odd", kind="linear", m=1001, k=1002, n=64),
    ),
)


def test_each_layer_of_a_network_takes_its_own_fastest_pattern_and_the_plan_says_which(usual, tmp_path):
    found = advise(NETWORK, usual, batch=4)
    row = next(row for row in found.rows if row.sparsity == 0.9)
    assert row.mixed
    layers = {entry.layer.name: entry.case.pattern for entry in row.answer.network.layers if entry.sparse}
    assert layers == {"wide": "block", "odd": "unstructured"}
    assert "+" in map_table(found)[1][-1][1]
    plan = tmp_path / "plan.yaml"
    (tmp_path / "toy.yaml").write_text(
        "name: toy\nsource: made up\nlayers:\n"
        + "".join(
            f"  - {{name: {each.name}, kind: linear, m: {each.m}, k: {each.k}, n: {each.n}, calls: {each.calls}, "
            f"prunable: {str(each.prunable).lower()}}}\n"
            for each in NETWORK.layers
        )
    )
    plan.write_text(json.dumps({**to_json(found)["plan"], "network": "toy.yaml"}))
    again = predict(NETWORK, usual, Plan.load(plan), batch=4)
    assert again.layers_speedup.value == pytest.approx(found.best.answer.speedup.value)


def test_a_layer_that_gains_nothing_stays_dense():
    slow = usual_world(rates={"csr.c": lambda kept, bh, bw, n: 6e-11 * n / 64})
    two = replace(NETWORK, layers=(NETWORK.layers[1], replace(NETWORK.layers[1], name="many", n=256)))
    answer = next(row for row in advise(two, models(slow, usual_arms()[::4])).rows if row.sparsity == 0.9).answer
    assert [entry.sparse is not None for entry in answer.network.layers] == [True, False]
    assert answer.speedup.value > 1


def test_without_data_the_error_says_what_to_run():
    with pytest.raises(ModelError, match="there are models of none"):
        shape(fit([]))
    conv = Conv(8, 14, 14, 3, 3, padding=1)
    layer = Layer(name="c1", kind="conv2d", m=16, k=72, n=196, conv=conv)
    fitted = models(usual_world(), usual_arms((0.8, 0.9)), SHAPES[:2])
    with pytest.raises(ModelError, match=r"any kernel takes for 16x72 n=196 .* run `sparsebench run SUITE"):
        advise(Network("net", "x", (layer,)), fitted)
    with pytest.raises(ModelError, match="layer c1: no model says how long any dense kernel takes"):
        advise(Network("net", "x", (*NETWORK.layers, layer)), fitted)
    with pytest.raises(ModelError, match="no layer of net may be pruned"):
        advise(Network("net", "x", NETWORK.layers[:1]), fitted)


def test_masks_from_files_make_unstructured_a_candidate():
    found = shape(fit(file_records(usual_world(), 12)), 512, 512)
    assert [each.arm.text for each in found.break_evens] == ["unstructured"]
    assert found.rows[0].sparsity == 0.5


def test_a_model_file_advises_as_its_records_do(usual):
    again = FittedModels.from_json(json.loads(json.dumps(usual.to_json())))
    assert texts(shape(again, 640, 800)) == texts(shape(usual, 640, 800))


def test_the_picture_is_drawn(usual):
    assert png(draw(shape(usual))).startswith(b"\x89PNG")


@pytest.fixture
def sparsebench(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sparsebench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_command_tells_people_and_programs_the_same(sparsebench, tmp_path):
    write_results(tmp_path / "results", usual_world().sweep(SHAPES[:2], [16, 64], usual_arms((0.5, 0.9))))
    code, told, _ = sparsebench("advise", "--shape", "512,512,64")
    assert code == 0
    assert "accuracy at a sparsity is not judged" in told
    answer, doubt, following = told.splitlines()[-3:]
    assert answer.startswith("512x512, n=64: at 90 % the fastest is bsr.c on block 16x16 ")
    assert doubt.startswith("Doubt: ")
    assert following.startswith("Next: ")
    code, out, err = sparsebench("advise", "--shape", "512,512,64", "--machine", MACHINE, "--json")
    document = json.loads(out)
    assert (code, document["verdict"], document["n"]) == (0, [answer, doubt, following], 64)
    assert document["plan"] is None
    assert answer in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "advise needs either a NETWORK or --shape M,K,N; give one of them"),
        (("vit-b16", "--shape", "1,2,3"), "advise needs either a NETWORK or --shape M,K,N; give one of them"),
        (("--shape", "1,2"), "--shape takes three whole numbers of at least 1, M,K,N, found '1,2'"),
        (("--shape", "1,2,0"), "--shape takes three whole numbers of at least 1, M,K,N, found '1,2,0'"),
        (("--shape", "1,2,3", "--batch", "4"), "--batch 4 was given with --shape 1,2,3, whose N says it"),
        (("vit-b61",), "vit-b16"),
        (("--shape", "1,2,3"), "results"),
    ],
)
def test_bad_input_is_one_message_and_nothing_written(sparsebench, tmp_path, arguments, message):
    code, out, err = sparsebench("advise", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not list(tmp_path.iterdir())
