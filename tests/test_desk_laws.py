"""The laws: each finds a world made by its own formula, leaves rows out as a refit would, and survives JSON."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebench.case import Case, Conv
from sparsebench.desk.hardware import Hardware
from sparsebench.desk.irf_n import IrfN
from sparsebench.desk.irf_paper import Irf
from sparsebench.desk.judged import LAWS
from sparsebench.desk.kriging import Kriging, Tuned, tune, unlikely
from sparsebench.desk.learned import Learned
from sparsebench.desk.points import NOTHING, Beside, levels_of, points_of
from sparsebench.desk.reach import Reach
from sparsebench.desk.roofline import TERMS, Roofline, terms_of
from sparsebench.errors import ModelError
from sparsebench.machine import Machine

CPU = Hardware(flops_per_s={"float32": 1.4e11}, bytes_per_s=1.1e10)
RNG = np.random.default_rng(3)
SHAPES = [(int(m), int(k)) for m, k in 2 ** RNG.uniform(6, 11, (14, 2))]


def block(m, k, n, sparsity, shape=(4, 1)):
    return Case(m=m, k=k, n=n, pattern="block", params={"block": list(shape)}, sparsity=sparsity)


def grid(shapes=SHAPES, ns=(1, 16, 64, 300), sparsities=(0.6, 0.9), blocks=((4, 1), (8, 8))):
    cases = [block(m, k, n, s, b) for m, k in shapes for n in ns for s in sparsities for b in blocks]
    beside = [Beside(2 * case.m * case.k * case.n / 1.2e11 + 3e-6) for case in cases]
    return points_of(cases, [1 - case.sparsity for case in cases], beside)


POINTS = grid()


# --- kriging ----------------------------------------------------------------------------------------------------------


def test_likelihood_and_slope_are_those_of_scikit_learn():
    gaussian = pytest.importorskip("sklearn.gaussian_process", reason="scikit-learn is not installed")
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(60, 4)), rng.uniform(0.5, 3, 4)
    y = np.sin(x[:, 0]) + x[:, 1]
    value, slope = unlikely(np.log([1.3, 0.2, 0.05, 1e-9, *lengths]), x, y, np.zeros((60, 60)), np.ones(60))
    kernel = (
        kernels.ConstantKernel(1.3) * kernels.Matern(lengths, nu=2.5)
        + kernels.ConstantKernel(0.2) * kernels.DotProduct(1.0, "fixed")
        + kernels.WhiteKernel(0.05)
    )
    process = gaussian.GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-8).fit(x, y)
    theirs, theirs_slope = process.log_marginal_likelihood(process.kernel_.theta, eval_gradient=True)
    assert value == pytest.approx(-theirs)
    assert slope[[0, *range(4, 8), 1, 2]] == pytest.approx(-theirs_slope)
    share = rng.uniform(0.2, 3, 60)
    value, _ = unlikely(np.log([1.3, 0.2, 0.05, 1e-9, *lengths]), x, y, np.zeros((60, 60)), share)
    kernel, alpha = process.kernel_.k1, 0.05 * share + 1e-8
    process = gaussian.GaussianProcessRegressor(kernel, optimizer=None, alpha=alpha).fit(x, y)
    assert value == pytest.approx(-process.log_marginal_likelihood(process.kernel_.theta))


def test_the_slope_of_the_likelihood_is_its_slope_with_groups_and_noise_too():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    group = rng.integers(0, 6, 30)
    same = (group[:, None] == group).astype(float)
    theta = np.log([0.8, 0.3, 0.1, 0.4, 1.0, 2.0, 0.7])
    share = rng.uniform(0.2, 3, 30)
    _, slope = unlikely(theta, x, y, same, share)
    for i, step in enumerate(np.eye(7) * 1e-6):
        rise = unlikely(theta + step, x, y, same, share)[0] - unlikely(theta - step, x, y, same, share)[0]
        assert slope[i] == pytest.approx(rise / 2e-6, rel=1e-4, abs=1e-6)


def test_rows_left_out_are_predicted_as_a_refit_without_them_would():
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 3, (80, 3))
    x[:, 2] = np.repeat(np.arange(20), 4)
    y = np.sin(x[:, 0]) + 0.3 * x[:, 1] + np.repeat(rng.normal(0, 0.3, 20), 4)
    noise = rng.uniform(0.2, 5, 80)
    fitted = Kriging.fit(x, y, together=(2,), noise=noise)
    fold = np.repeat(np.arange(20) % 5, 4)
    told = fitted.left_out(x, {"groups": fold}, lambda known: y)["groups"]
    for number in range(5):
        out = fold == number
        alone = Kriging.fit(x[~out], y[~out], like=fitted.tuned, noise=noise[~out])
        assert told[out] == pytest.approx(alone.at(x[out]), abs=1e-6)


def test_what_is_known_to_be_noisy_counts_for_less():
    rng = np.random.default_rng(6)
    x = rng.uniform(0, 4, (120, 1))
    noise = np.where(np.arange(120) % 2, 10.0, 0.1)
    y = np.sin(x[:, 0]) + rng.normal(0, 0.1 * np.sqrt(noise))
    fresh = np.linspace(0.2, 3.8, 40)[:, None]
    miss = [np.abs(Kriging.fit(x, y, noise=known).at(fresh) - np.sin(fresh[:, 0])).mean() for known in (noise, None)]
    assert miss[0] < 0.7 * miss[1]


def test_what_a_group_shares_is_told_from_the_law():
    """Offsets of 0.5 a group: with groups the straight law comes back for a new group, without it bends after them."""
    rng = np.random.default_rng(4)
    place = rng.uniform(0, 4, 25)
    x = np.column_stack([np.repeat(place, 6), np.tile(np.arange(6.0), 25)])
    y = 0.5 * x[:, 0] + 0.2 * x[:, 1] + np.repeat(rng.normal(0, 0.5, 25), 6)
    fresh = np.column_stack([np.linspace(0.2, 3.8, 40), np.full(40, 2.0)])
    miss = [np.abs(Kriging.fit(x, y, together).at(fresh) - fresh @ [0.5, 0.2]).mean() for together in ((0,), ())]
    assert miss[0] < 0.75 * miss[1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=12, unique=True))
def test_a_process_is_finite_everywhere_and_stays_near_its_values(points):
    x = np.unique(np.array(points).round(1), axis=0)
    process = Kriging.fit(x, np.sin(x).sum(axis=1))
    at, spread = process.at(np.random.default_rng(0).uniform(-5, 5, (50, 3))), np.ptp(np.sin(x).sum(axis=1))
    assert np.isfinite(at).all()
    assert (at >= np.sin(x).sum(axis=1).min() - 0.3 * spread - 1e-9).all()
    assert (at <= np.sin(x).sum(axis=1).max() + 0.3 * spread + 1e-9).all()


def test_a_process_without_noise_goes_through_its_points_and_on_flat_beyond_them():
    x = np.linspace(0, 3, 20)[:, None]
    process = Kriging.fit(x, np.sin(x[:, 0]))
    assert process.at(x) == pytest.approx(np.sin(x[:, 0]), abs=1e-3)
    assert process.at(np.array([[-9.0], [9.0]])) == pytest.approx(process.at(np.array([[0.0], [3.0]])))


def test_points_that_all_but_agree_can_be_fitted():
    x = np.repeat(np.linspace(0, 1e-7, 30), 10)[:, None]
    like = Tuned(np.zeros(1), np.ones(1), np.ones(1), smooth=1e6, trend=1e6, noise=0.0)
    assert np.isfinite(Kriging.fit(x, np.ones(300), like=like).at(x)).all()


def test_tuning_finds_the_axis_that_does_not_matter():
    x = np.random.default_rng(5).uniform(0, 3, (120, 2))
    found = tune(x, np.sin(2 * x[:, 0]))
    assert found.lengths[1] > 5 * found.lengths[0]
    assert isinstance(found, Tuned)


# --- the laws ---------------------------------------------------------------------------------------------------------


def roofline_world(points):
    """Seconds by a roofline whose factors are known."""
    factors = dict.fromkeys(TERMS, 0.0) | {"launch": 3.0, "flops": 1.8, "weights": 1.2, "inputs": 0.7}
    return terms_of(points, CPU, 16) @ np.array([factors[term] for term in TERMS])


def test_a_roofline_finds_its_own_factors_and_a_new_shape():
    law = Roofline.fit(POINTS, roofline_world(POINTS), CPU)
    found = dict(zip(TERMS, law.factors, strict=True))
    assert (found["launch"], found["flops"], found["weights"]) == pytest.approx((3.0, 1.8, 1.2), rel=0.02)
    assert (law.overlap, law.width) == (1.0, 16)
    fresh = grid([(3000, 5000)], ns=(5, 1024), sparsities=(0.97,))
    assert law.seconds(fresh) == pytest.approx(roofline_world(fresh), rel=0.01)


def test_a_factor_that_no_timing_tells_stays_at_its_peak():
    """All rows of X fit the cache: what one that does not costs was never seen, and is not taken for nothing."""
    law = Roofline.fit(POINTS, roofline_world(POINTS), CPU)
    assert law.factors[TERMS.index("spill")] == pytest.approx(1.0)


def test_a_roofline_finds_that_its_terms_overlap():
    terms = terms_of(POINTS, CPU, 1) * np.array([2.0, 1.5, 1, 1, 3.0, 1, 1, 1])
    law = Roofline.fit(POINTS, (terms**4).sum(axis=1) ** 0.25, CPU)
    assert law.overlap == 4.0


def test_work_comes_in_waves_of_a_gpus_processors():
    """129 tiles on 132 processors take as long as 132, and 133 as long as 264."""
    gpu = replace(CPU, processors=132)
    one, two = (grid([(64, 512)], ns=(n,), sparsities=(0.9,), blocks=((4, 1),)) for n in (16 * 132, 16 * 133))
    flops = [terms_of(points, gpu, 16)[0, TERMS.index("flops")] for points in (one, two)]
    assert flops[1] == pytest.approx(2 * flops[0])


def test_columns_are_padded_to_powers_of_two_and_then_to_tiles():
    points = grid([(64, 64)], ns=(1, 3, 6, 12, 16, 17, 100), sparsities=(0.5,), blocks=((4, 1),))
    assert points.padded_columns(16).tolist() == [1, 4, 8, 16, 16, 32, 112]
    assert points.padded_columns(1) == pytest.approx(points.column("n"))


def test_irf_as_printed_knows_sparsity_and_block_and_nothing_else():
    law = Irf.fit(POINTS, POINTS.kept * POINTS.dense_s / (0.3 * POINTS.kept**-0.2), CPU)
    fresh = grid([(3000, 5000)], ns=(7,), sparsities=(0.8,))
    assert law.seconds(fresh) == pytest.approx(fresh.kept * fresh.dense_s / (0.3 * fresh.kept**-0.2), rel=1e-3)
    slower = replace(fresh, dense_s=2 * fresh.dense_s)
    assert law.seconds(slower) == pytest.approx(2 * law.seconds(fresh))
    with pytest.raises(ModelError, match="irf needs the dense time of every problem"):
        Irf.fit(replace(POINTS, dense_s=np.full(len(POINTS), math.nan)), roofline_world(POINTS), CPU)


def test_irf_n_finds_launch_and_tile():
    points = grid(ns=(1, 5, 16, 17, 40, 100))
    padded = points.flops * points.padded_columns(16) / points.column("n")
    law = IrfN.fit(points, 4e-6 + padded * 1e-11 * points.kept**-0.2, CPU)
    assert law.tile == 16
    assert law.launch_s > 2e-6
    edge = grid([(512, 512)], ns=(32, 33), sparsities=(0.8,), blocks=((4, 1),))
    below, above = law.seconds(edge)
    assert (above - law.launch_s) / (below - law.launch_s) == pytest.approx(48 / 32, rel=0.05)


def test_irf_n_never_falls_with_more_nonzeros_and_may_with_anything_else():
    """Times that fall where nonzeros rise, made of noise: the law takes the running maximum along the kept share."""
    points = grid(sparsities=(0.3, 0.5, 0.7, 0.9))
    bumpy = 1e-5 * np.exp(np.random.default_rng(6).normal(0, 0.5, len(points)) - 0.8 * np.log(points.kept))
    law = IrfN.fit(points, bumpy, CPU)
    for shape, n in (((512, 512), 20), ((100, 900), 64)):
        along = grid([shape], ns=(n,), sparsities=tuple(np.linspace(0.99, 0.05, 60)), blocks=((4, 1),))
        assert (np.diff(law.seconds(along)) >= -1e-12).all()
    kept = along.kept
    assert law.seconds(along)[-1] / law.seconds(along)[kept <= 0.7][-1] == pytest.approx(kept[-1] / 0.7, rel=0.05)


def test_the_learned_law_knows_what_the_roofline_leaves():
    bend = np.exp(0.4 * np.sin(np.log(POINTS.column("k"))))
    law = Learned.fit(POINTS, roofline_world(POINTS) * bend, CPU)
    fresh = grid([(700, 400), (150, 900)], ns=(30, 200), sparsities=(0.8,))
    expected = roofline_world(fresh) * np.exp(0.4 * np.sin(np.log(fresh.column("k"))))
    assert np.abs(law.seconds(fresh) / expected - 1).mean() < 0.1
    assert np.abs(law.roofline.seconds(fresh) / expected - 1).mean() > 0.15


def test_the_dense_surprise_of_a_problem_reaches_its_sparse_times():
    """Every problem ran in a moment of its own, and dense and sparse alike: the surprise says which."""
    moment = np.random.default_rng(7).normal(0, 0.3, len(POINTS) // 4).repeat(4)
    known, blind = replace(POINTS, surprise=moment), POINTS
    time_s, shapes = roofline_world(POINTS) * np.exp(moment), np.repeat(np.arange(14), 16)
    fold = {"shapes": shapes % 7}
    miss = []
    for points in (known, blind):
        told = Learned.fit(points, time_s, CPU).left_out(points, time_s, fold)["shapes"]
        miss.append(np.abs(np.log(told / time_s)).mean())
    assert miss[0] < 0.3 * miss[1]


@pytest.mark.parametrize("name", LAWS)
def test_a_law_leaves_out_what_it_is_told_and_survives_json(name):
    time_s = roofline_world(POINTS) * np.exp(np.random.default_rng(8).normal(0, 0.05, len(POINTS)))
    law = LAWS[name].fit(POINTS, time_s, CPU)
    fold = np.where(np.arange(len(POINTS)) < 40, np.arange(len(POINTS)) % 4, -1)
    told = law.left_out(POINTS, time_s, {"some": fold})["some"]
    assert np.isfinite(told).tolist() == (fold >= 0).tolist()
    elsewhere = time_s * np.where(fold == 0, 3.0, 1.0)  # what is left out cannot matter to what is said of it
    assert law.left_out(POINTS, elsewhere, {"some": fold})["some"][fold == 0] == pytest.approx(told[fold == 0])
    again = LAWS[name].from_json(json.loads(json.dumps(law.to_json(), allow_nan=False)))
    fresh = grid([(300, 800)], ns=(10, 500), sparsities=(0.75,))
    assert again.seconds(fresh) == pytest.approx(law.seconds(fresh), rel=1e-6)
    assert law.again(POINTS, time_s).seconds(fresh) == pytest.approx(law.seconds(fresh))
    assert law.again(POINTS, 2 * time_s).seconds(fresh) == pytest.approx(2 * law.seconds(fresh), rel=0.1)


# --- points, reach and hardware ---------------------------------------------------------------------------------------


def test_work_is_counted_without_a_matrix():
    one = points_of([block(64, 128, 10, 0.75, (4, 2))], [0.25], [NOTHING])
    assert (one.nnz[0], one.blocks[0], one.reads[0]) == pytest.approx((2048, 256, 512))
    assert one.weight_bytes[0] == pytest.approx(4 * 2048 + 4 * 256)
    assert one.flops[0] == pytest.approx(2 * 2048 * 10)
    levels = {"levels": [{"block": [4, 1], "sparsity": 0.8}, {"block": [1, 1], "sparsity": 0.95}]}
    two = points_of([Case(m=64, k=128, n=10, pattern="hierarchical", params=levels)], [0.25], [NOTHING])
    assert two.axes == ("sparsity 1", "sparsity 2", "uneven", "n", "m", "k")
    assert two.blocks[0] == pytest.approx(64 * 128 * (0.2 / 4 + 0.05))


def test_a_convolution_reads_its_activations_once():
    conv = Conv(c=16, h=14, w=14, kh=3, kw=3, stride=2, padding=1, batch=2)
    case = Case(m=32, k=144, n=2 * 49, op="conv2d", conv=conv, pattern="unstructured", sparsity=0.9)
    found = points_of([case], [0.1], [NOTHING])
    assert found.input_items[0] == pytest.approx(2 * 16 * 14 * 14)
    assert found.axes[-3:] == ("taps", "plane", "stride")


def test_values_within_a_percent_are_one_level():
    assert levels_of(np.log([64.0, 64.2, 70.0, 1.0])).tolist() == [1, 1, 2, 0]


def test_reach_knows_the_box_its_holes_and_the_way_to_the_nearest_value():
    reach = Reach.of(("bh", "bw"), np.log([[1.0, 1.0], [4.0, 1.0], [16.0, 16.0]]))
    x = np.log([[4.0, 1.0], [16.0, 1.0], [32.0, 16.0], [8.0, 4.0]])
    beyond = reach.beyond(x)
    assert beyond[0].tolist() == [0, 0]
    assert beyond[1].any()  # 16x1: within the box, far from all points
    assert beyond[2] == pytest.approx([math.log(2), 0])
    assert reach.why_outside(x[2], beyond[2]) == "bh 32 is outside the measured 1 to 16"
    assert reach.why_outside(x[1], beyond[1]) == "no measured points surround bh 16, bw 1"
    assert reach.why_outside(x[0], beyond[0]) == ""
    assert reach.between(x)[3] == pytest.approx([math.log(2), math.log(4)])


def test_hardware_takes_the_best_rate_of_each_dtype():
    gpu = Machine(device="cuda", name="G", memory_gib=80, cores=132, isa=("sm_90",), cache_bytes=50 * 2**20)
    peaks = {
        "fma_flops_per_s": {"float32": 6e13}, "tensor_flops_per_s": {"bfloat16": 9e14, "int8": None},
        "read_bytes_per_s": 3e12,
    }  # fmt: skip
    known = Hardware.of(gpu, peaks)
    assert (known.peak("bfloat16"), known.peak("float32"), known.peak("float16")) == (9e14, 6e13, 6e13)
    assert (known.processors, known.bytes_per_s) == (132, 3e12)
    assert Hardware(**json.loads(json.dumps(known.to_json()))) == known
    assert Hardware.of(replace(gpu, device="cpu"), {}).processors == 1
