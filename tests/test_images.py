"""Images between convolutions: how they lie, who pays for bringing them elsewhere, and sums that know it."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import ANY

import pytest
from replay import usual_arms, usual_world

from sparsebench.case import Case, Conv
from sparsebench.desk.fit import fit
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.images import BROUGHT, AsImages, Walk
from sparsebench.desk.model import Prediction
from sparsebench.desk.predict import predict
from sparsebench.network import Layer, Network
from sparsebench.plan import Plan
from sparsebench.rest import Rest, lying_of

CONV = Conv(c=64, h=8, w=8, kh=1, kw=1)
CASE = Case(m=192, k=64, n=64, op="conv2d", conv=CONV)
MATRIX = Case(m=192, k=64, n=64)


def took(time_s, kernel="dense.torch_conv"):
    return Prediction(time_s, 0.9 * time_s, 1.1 * time_s, measured=True, kernel=kernel)


LAST = AsImages(took(1.0, "dense.onednn_nhwc"), x_turned_s=0.25)


def test_a_dense_layer_takes_what_is_least_where_it_stands():
    walk = Walk()
    first = walk.dense(CASE, took(3.0), LAST)
    assert (first.time_s, first.kernel, first.why) == (1.25, "dense.onednn_nhwc", BROUGHT)
    assert (first.low_s, first.high_s) == (pytest.approx(1.15), pytest.approx(1.35)), "bringing X is certain"
    second = walk.dense(CASE, took(3.0), LAST)
    assert (second.time_s, second.why) == (1.0, ""), "the layer before left it so"
    third = walk.dense(CASE, took(0.5), LAST)
    assert (third.time_s, third.kernel) == (0.75, "dense.torch_conv"), "brought back"
    assert walk.dense(CASE, took(0.5), LAST).time_s == 0.5


def test_a_kernel_may_leave_images_otherwise_than_it_takes_them():
    walk = Walk()
    assert walk.dense(CASE, took(1.1, "dense.onednn_conv"), LAST).time_s == 1.1
    assert walk.dense(CASE, took(3.0), LAST) == LAST.last


def test_a_sparse_layer_pays_for_its_x_behind_a_library():
    walk = Walk()
    assert walk.sparse(CASE, took(0.2), LAST).time_s == 0.2
    walk.dense(CASE, took(3.0), LAST)
    assert walk.sparse(CASE, took(0.2), LAST).time_s == pytest.approx(0.45)
    assert walk.sparse(CASE, took(0.2), LAST).time_s == 0.2, "it left [batch, c, h, w]"


def test_matrices_and_machines_that_know_nothing_of_it_are_left_alone():
    for case, images in ((MATRIX, LAST), (CASE, None)):
        walk = Walk(last=True)
        assert walk.dense(case, took(3.0), images) == took(3.0)
        assert walk.sparse(case, took(3.0), images) == took(3.0)


# Fitted and summed ----------------------------------------------------------------------------------------------------


def as_convolution(record, turned_s=1e-3):
    """The record of a product, as if it had been one of 1x1 filters; its dense kernels as those of convolutions."""
    case = record.case
    conv = Conv(c=case.k, h=8, w=case.n // 8, kh=1, kw=1)
    names = {"dense.onednn": "dense.onednn_nhwc", "dense.torch": "dense.torch_conv"}
    samples = {
        cache: {names.get(name, name): list(times_s) for name, times_s in by_name.items()}
        for cache, by_name in record.samples.items()
    }
    kernel = names.get(record.kernel, record.kernel)
    baselines = {names.get(name, name): sha for name, sha in record.baselines.items()}
    turned = {"dense.onednn_nhwc": turned_s} if any("dense.onednn_nhwc" in each for each in samples.values()) else {}
    case = replace(case, op="conv2d", conv=conv)
    return replace(record, case=case, kernel=kernel, samples=samples, baselines=baselines, layout_s=turned)


@pytest.fixture(scope="module")
def fitted():
    records = usual_world().sweep([(256, 512), (512, 512), (512, 256)], [64, 256], usual_arms([0.9])[:2])
    return fit([as_convolution(record) for record in records])


def test_records_of_a_kernel_with_channels_last_make_the_models(fitted):
    case = Case(m=256, k=512, n=64, op="conv2d", conv=Conv(c=512, h=8, w=8, kh=1, kw=1))
    found = fitted.as_images(case, fitted.place())
    assert found.last.measured
    assert found.last.kernel == "dense.onednn_nhwc"
    assert found.x_turned_s == pytest.approx(1e-3 * 512 / (512 + 256)), "its share of X and Y, by bytes"
    assert fitted.as_images(Case(m=256, k=512, n=64), fitted.place()) is None
    again = FittedModels.from_json(fitted.to_json())
    assert again.as_images(case, again.place()) == found


def conv(name, c, m, prunable):
    return Layer(name=name, kind="conv2d", m=m, k=c, n=64, prunable=prunable, conv=Conv(c=c, h=8, w=8, kh=1, kw=1))


NETWORK = Network("toy", "made up", (conv("a", 512, 256, False), conv("b", 256, 512, True), conv("c", 512, 512, False)))


def test_the_sum_knows_how_images_lie():
    turned_s = 1e-7
    world = usual_world(noise=0.0, shape_noise=0.0)
    records = world.sweep([(256, 512), (512, 512), (512, 256)], [64, 256], usual_arms([0.9])[:2])
    known = fit([as_convolution(record, turned_s) for record in records])
    dense = predict(NETWORK, known, Plan(NETWORK, {}))
    first, second, third = dense.layers
    assert [entry.dense.kernel for entry in dense.layers] == ["dense.onednn_nhwc"] * 3
    assert (first.why, second.why, third.why) == (
        f"must stay dense (prunable: false); {BROUGHT}",
        "not in the plan",
        ANY,
    )
    assert dense.layers_speedup.value == pytest.approx(1.0)

    planned = predict(NETWORK, known, Plan.uniform(NETWORK, "block", {"block": [4, 1]}, 0.9))
    _, pruned, behind = planned.layers
    alone = known.sparse_time(pruned.case, known.place())
    assert pruned.sparse.time_s == pytest.approx(alone.time_s + turned_s * 256 / (256 + 512))
    assert behind.stays.time_s == pytest.approx(third.dense.time_s + turned_s / 2), "it is handed [batch, c, h, w]"
    dense_s = sum(entry.dense.time_s for entry in planned.layers)
    assert planned.layers_speedup.value == pytest.approx(dense_s / sum(entry.chosen.time_s for entry in planned.layers))


def test_what_adds_images_up_may_count_for_more_than_layers():
    """Each layer's least leaves images with channels last, unless the rest is so much less where none does."""
    world = usual_world(noise=0.0, shape_noise=0.0)
    records = world.sweep([(256, 512), (512, 512), (512, 256)], [64, 256], usual_arms([0.9])[:2])
    known = fit([as_convolution(record, 2e-6) for record in records])
    plan = Plan.uniform(NETWORK, "block", {"block": [4, 1]}, 0.9)
    slow_together = predict(NETWORK, known, plan, rest=Rest(0.2, 0.4, {"last": 0.4, "first": 0.2}))
    assert slow_together.layers[0].chosen.kernel == "dense.torch_conv"
    assert BROUGHT not in " ".join(entry.why for entry in slow_together.layers)
    assert slow_together.rest.planned == 0.2
    alike = predict(NETWORK, known, plan, rest=Rest(0.2, 0.4, {"last": 0.2, "first": 0.2}))
    assert alike.layers[0].chosen.kernel == "dense.onednn_nhwc"


# The rest -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernels", "lying"),
    [
        (("dense.onednn_nhwc", "dense.onednn_conv", "dense.onednn_nhwc"), "last"),
        (("dense.torch_conv", "bsr.c", "dense.torch_conv"), "first"),
        (("dense.onednn_nhwc", "bsr.c", "dense.torch_conv"), "both"),
        (("dense.torch_conv", "bsr.c", "dense.onednn_nhwc"), "both"),
        (("dense.onednn_conv", "bsr.c", "bsr.c"), "last"),
        (("bsr.c", "bsr.c", "csr.c"), "first"),
    ],
)
def test_how_images_lie_is_told_by_the_layers_that_stay_dense(kernels, lying):
    assert lying_of(NETWORK, dict(zip("abc", kernels, strict=True))) == lying


def test_images_go_the_way_whose_rest_is_known(fitted):
    """Turning them takes longer than these layers do: alone each would leave [batch, c, h, w]."""
    plan = Plan.uniform(NETWORK, "block", {"block": [4, 1]}, 0.9)
    for rest, kernel, planned in (
        (Rest(0.5, 0.25), "dense.torch_conv", 0.25),
        (Rest(0.5, 0.25, dense_lying="last"), "dense.onednn_nhwc", 0.25),
        (Rest(0.5, 0.25, {"last": 0.125}, "first"), "dense.onednn_nhwc", 0.125),
        (Rest(0.5, 0.25, {"both": 0.125}, "first"), "dense.torch_conv", 0.25),
    ):
        found = predict(NETWORK, fitted, plan, rest=rest)
        assert (found.layers[0].chosen.kernel, found.rest.planned) == (kernel, planned)


def test_the_rest_is_that_of_plans_under_which_images_lay_alike(fitted):
    known = Rest(0.5, 0.25, {"first": 0.125})
    planned = predict(NETWORK, fitted, Plan.uniform(NETWORK, "block", {"block": [4, 1]}, 0.9), rest=known)
    assert planned.rest == Rest(0.5, 0.125), "all by torch and bsr.c: turning takes longer than they do"
    assert known.where("both") == Rest(0.5, 0.25)
    assert predict(NETWORK, fitted, Plan(NETWORK, {}), rest=known).rest == Rest(0.5, 0.5)
