"""The models: a known law comes back, errors are told honestly, and what was never measured is refused or marked."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from replay import MACHINE, World, broken, kept_of, power_rate, smooth_rate, usual_arms, usual_world

from sparsebench.case import Case
from sparsebench.desk.fit import fit
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.irf import irf, speedup_by_equation_2
from sparsebench.desk.model import Prediction, to_choose
from sparsebench.errors import ModelError

SHAPES = [(256, 512), (512, 512), (768, 3072), (1024, 1024)]
NS = [1, 16, 64, 256]
HBS = {"levels": [{"block": [4, 1], "sparsity": 0.8}, {"block": [1, 1], "sparsity": 0.95}]}


def block(m=384, k=1024, n=32, sparsity=0.85, shape=(8, 4)):
    return Case(m=m, k=k, n=n, pattern="block", params={"block": list(shape)}, sparsity=sparsity)


@pytest.fixture(scope="module")
def power():
    """An exact law, straight in logarithms."""
    world = World(rates={"csr.c": power_rate, "bsr.c": power_rate, "condensed.c": power_rate})
    return world, fit(world.sweep(SHAPES, NS, usual_arms()))


@pytest.fixture(scope="module")
def noisy():
    """A law with bends, a floor and noise."""
    world = usual_world()
    return world, fit(world.sweep(SHAPES, NS, usual_arms()))


# --- what a fit finds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.55, 0.85, 0.94])
@pytest.mark.parametrize("n", [3, 32, 200])
def test_a_straight_law_comes_back_between_its_points_and_on_a_new_shape(power, n, sparsity):
    _, fitted = power
    case = block(n=n, sparsity=sparsity)
    true_s = case.flops() * (1 - sparsity) * power_rate(1 - sparsity, 8, 4, n)
    assert fitted.sparse_time(case, fitted.place(), "bsr.c").time_s == pytest.approx(true_s, rel=1e-3)


def test_a_law_with_bends_is_known_within_its_interval(noisy):
    world, fitted = noisy
    cases = [block(n=n, sparsity=s, shape=b) for n in (16, 32, 128) for s in (0.6, 0.88) for b in ((4, 1), (8, 4))]
    found = [fitted.sparse_time(case, fitted.place(), "bsr.c") for case in cases]
    true_s = [world.time_s(case, "bsr.c", kept_of(case)) for case in cases]
    assert np.mean([p.low_s <= t <= p.high_s for p, t in zip(found, true_s, strict=True)]) >= 0.9
    assert np.mean([abs(p.time_s / t - 1) for p, t in zip(found, true_s, strict=True)]) < 0.2
    assert not any(p.extrapolated for p in found)


def test_intervals_hold_nine_of_ten_new_matrices():
    """Three worlds: matrices of one world share their luck, so one alone would say little about 90 %."""
    inside = []
    for seed in range(3):
        world = usual_world(seed=seed, shape_noise=0.1)
        fitted = fit(world.sweep([(128 * i, 512) for i in range(1, 11)], [16, 64], usual_arms((0.5, 0.8, 0.9))))
        fresh = world.sweep([(96 * i, 768) for i in range(1, 11)], [16, 64], usual_arms((0.8,)))
        for record in (record for record in fresh if not record.kernel.startswith("dense")):
            found = fitted.sparse_time(record.case, fitted.place(), record.kernel)
            inside.append(found.low_s <= record.median_s() <= found.high_s)
    assert np.mean(inside) >= 0.88


def test_what_slows_a_whole_trial_cancels():
    """Trials that ran 30 % slower or faster as a whole: pairing with the baselines takes that out again."""
    fitted = fit(usual_world(drift=0.3, noise=0.01, shape_noise=0.0).sweep(SHAPES, NS, usual_arms()))
    errors = fitted.errors[(fitted.errors.how == "shapes") & (fitted.errors.kernel != "dense")]
    assert (errors.mape < 0.08).all()
    alone = fit([replace(record, baselines={}) for record in usual_world(drift=0.3).sweep(SHAPES, NS, usual_arms())])
    errors = alone.errors[(alone.errors.how == "shapes") & (alone.errors.kernel != "dense")]
    assert (errors.mape > 0.15).all()


def test_errors_are_printed_by_what_was_left_out(noisy):
    _, fitted = noisy
    errors = fitted.errors
    assert set(errors.kernel) == {"dense", "csr.c", "bsr.c", "condensed.c"}
    assert set(errors[errors.kernel == "bsr.c"].how) == {"cells", "shapes", "sparsities", "blocks", "ns"}
    by_how = errors[errors.kernel == "bsr.c"].set_index("how")
    assert 0.005 < by_how.mape["shapes"] < 0.06  # noise of 2 % a matrix, and nothing to interpolate
    assert max(by_how.mape["shapes"], by_how.mape["cells"]) < by_how.mape["ns"]  # its ends must be extrapolated
    assert by_how.extrapolated["ns"] > by_how.extrapolated["cells"]
    assert by_how.mape["shapes"] < 0.5 * by_how.irf["shapes"]  # what the paper's two arguments cost
    assert (errors.within_5 <= errors.within_10).all()
    assert (errors.n > 0).all()
    assert (errors[errors.kernel == "bsr.c"]["rank"] > 0.9).all()


def test_every_law_stands_in_the_table_and_the_best_of_each_kernel_speaks(noisy):
    _, fitted = noisy
    told = fitted.rivals
    assert set(told[told.kernel == "bsr.c"].law) == {"irf", "irf_n", "roofline", "learned"}
    assert set(told[told.kernel == "dense"].law) == {"irf_n", "roofline", "learned"}  # irf is no law of dense times
    shapes = told[(told.how == "shapes") & (told.kernel == "bsr.c")].set_index("law")
    assert shapes.mape[shapes.speaks].iloc[0] <= 1.1 * shapes.mape.min()


@pytest.mark.parametrize("law", ["irf", "irf_n", "roofline", "learned"])
def test_one_law_can_be_asked_of_all_kernels(law):
    fitted = fit(usual_world().sweep(SHAPES, NS, usual_arms((0.8, 0.9))[::4]), law)
    assert set(fitted.errors[fitted.errors.kernel == "csr.c"].law) == {law}
    case = Case(m=384, k=1024, n=32, pattern="unstructured", sparsity=0.85)
    assert 0 < fitted.sparse_time(case, fitted.place(), "csr.c").time_s < 1
    again = FittedModels.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again.sparse_time(case, again.place()).time_s == pytest.approx(
        fitted.sparse_time(case, fitted.place()).time_s
    )


def test_what_is_left_out_of_a_fit_is_predicted_and_never_measured(noisy):
    world, whole = noisy
    records = world.sweep(SHAPES, NS, usual_arms())
    fitted = fit(records, leave_out=lambda case: (case.m, case.k) == SHAPES[0])
    params = next(params for pattern, params, _, _ in usual_arms() if pattern == "block")
    timed = replace(block(m=256, k=512, n=16, sparsity=0.9), params=params)
    assert whole.sparse_time(timed, whole.place(), "bsr.c").measured
    found = fitted.sparse_time(timed, fitted.place(), "bsr.c")
    assert not found.measured
    assert not fitted.dense_time(timed, fitted.place()).measured
    assert found.time_s == pytest.approx(world.time_s(timed, "bsr.c", kept_of(timed)), rel=0.2)


def test_many_cases_are_answered_as_each_alone(noisy):
    _, fitted = noisy
    cases = [block(n=n, sparsity=s) for n in (1, 16, 48) for s in (0.6, 0.9)] + [block(256, 512, 16, 0.9, (4, 1))]
    together = fitted.sparse_times(cases, fitted.place(), "bsr.c")
    for case, found in zip(cases, together, strict=True):
        alone = fitted.sparse_time(case, fitted.place(), "bsr.c")
        assert found.time_s == pytest.approx(alone.time_s)
        assert (found.measured, found.why, found.kernel) == (alone.measured, alone.why, alone.kernel)


def test_fewer_than_three_shapes_cannot_be_left_out():
    fitted = fit(usual_world().sweep(SHAPES[:2], NS, usual_arms()))
    assert "shapes" not in set(fitted.errors.how)


def test_a_floor_is_found_where_launches_rule():
    world = World(rates={"csr.c": lambda kept, bh, bw, n: 1e-11}, floor_s=5e-6)
    records = world.sweep([(64, 64), (128, 256), (256, 512), (512, 512)], NS, usual_arms((0.8, 0.9, 0.95))[::4])
    fitted = fit(records, "irf_n")
    law = fitted.sparse[fitted.place().setting(Case(m=1, k=1, n=1), "csr.c")].parts[""].law
    assert law.launch_s > 4e-6


# --- irf --------------------------------------------------------------------------------------------------------------

# SRigL (arXiv 2305.02299), notebooks/benchmarks_v2_gpu.ipynb at 3052bb8 of github.com/calgaryml/condensed-sparsity:
# Titan V, W 768x3072, microseconds; facts and arithmetic, not text. (sparsity, n, dense, condensed, irf)
SRIGL = [
    (0.80, 256, 135.3, 158.9, 0.170),
    (0.90, 1, 33.0, 46.1, 0.072),
    (0.90, 32, 89.8, 43.5, 0.206),
    (0.90, 256, 136.2, 81.5, 0.167),
    (0.90, 2048, 788.9, 592.5, 0.133),
    (0.95, 256, 135.0, 40.7, 0.166),
    (0.99, 512, 242.5, 22.5, 0.108),
]


@pytest.mark.parametrize(("sparsity", "n", "dense_us", "condensed_us", "published"), SRIGL)
def test_irf_of_published_times(sparsity, n, dense_us, condensed_us, published):
    assert irf(1 - sparsity, dense_us * 1e-6, condensed_us * 1e-6) == pytest.approx(published, abs=0.0006)


def test_irf_comes_from_records_of_those_times():
    """The published times as records, fitted and asked again: irf .167 at 90 % and n = 256."""
    dense = Case(m=768, k=3072, n=256)
    case = replace(dense, pattern="constant_fan_in", sparsity=0.9)
    made = usual_world().record(case, "condensed.c", ["dense.torch"])
    times = {"condensed.c": [81.5e-6] * 9, "dense.torch": [136.2e-6] * 9}
    fitted = fit([replace(made, samples={"weights_cold": times}, layout_s={})])
    assert fitted.irf(case, fitted.place()) == pytest.approx(0.167, abs=0.0005)


def test_irf_may_exceed_one():
    world = World(rates={"bsr.c": lambda kept, bh, bw, n: 1 / 3e11})
    fitted = fit(world.sweep(SHAPES, NS, usual_arms((0.8, 0.9))[2::4]))
    assert fitted.irf(block(512, 512, 64, 0.8, (4, 1)), fitted.place()) > 1.5


def test_equation_2_by_hand():
    """63 % in 4x1 blocks and 97 % in 1x1 make 60 % (HBsNN, table 3): 1 / (.37/.8 + .03/.2) = 1.6327."""
    assert speedup_by_equation_2([(0.37, 0.8), (0.03, 0.2)]) == pytest.approx(1 / (0.37 / 0.8 + 0.03 / 0.2))
    assert speedup_by_equation_2([(0.1, irf(0.1, 136.2, 81.5))]) == pytest.approx(
        136.2 / 81.5
    )  # one level: the speedup


def test_levels_without_a_fused_kernel_add_up_by_equation_2(power):
    _, fitted = power
    place, case = fitted.place(), Case(m=512, k=512, n=64, pattern="hierarchical", params=HBS)
    found = fitted.sparse_time(case, place)
    coarse = block(512, 512, 64, 0.8, (4, 1))
    fine = Case(m=512, k=512, n=64, pattern="unstructured", sparsity=0.95)
    alone = [fitted.sparse_time(coarse, place, "bsr.c"), fitted.sparse_time(fine, place)]
    assert found.time_s == pytest.approx(sum(guess.time_s for guess in alone))
    assert found.kernel.startswith("bsr.c + ")
    assert "equation 2" in found.why
    dense_s = fitted.dense_time(case, place).time_s
    factors = [(0.2, fitted.irf(coarse, place, "bsr.c")), (0.05, fitted.irf(fine, place))]
    assert dense_s / found.time_s == pytest.approx(speedup_by_equation_2(factors))


def test_a_kernel_can_be_named_for_each_level(power):
    _, fitted = power
    case = Case(m=512, k=512, n=64, pattern="hierarchical", params=HBS)
    assert fitted.sparse_time(case, fitted.place(), "bsr.c + csr.c").kernel == "bsr.c + csr.c"
    with pytest.raises(ModelError, match=r"has 2 levels and 3 kernels were named; name one a level"):
        fitted.sparse_time(case, fitted.place(), "bsr.c+csr.c+csr.c")


def test_a_fused_kernel_has_a_law_of_its_own():
    rates = {"hbs.c": smooth_rate, "bsr.c": smooth_rate, "csr.c": smooth_rate}
    world = World(rates=rates)
    levels = [(0.63, 0.97), (0.65, 0.95), (0.7, 0.9), (0.8, 0.8)]
    fused = [
        ("hierarchical", {"levels": [{"block": [4, 1], "sparsity": a}, {"block": [1, 1], "sparsity": b}]}, 0, "hbs.c")
        for a, b in levels
    ]
    fitted = fit(world.sweep(SHAPES, NS, [arm for arm in usual_arms() if arm[3] != "condensed.c"] + fused))
    case = Case(m=512, k=512, n=64, pattern="hierarchical", params=fused[1][1])
    found = fitted.sparse_time(case, fitted.place())
    assert found.kernel == "hbs.c"
    assert found.time_s == pytest.approx(world.time_s(case, "hbs.c", kept_of(case)), rel=0.02)
    other = Case(
        m=512,
        k=512,
        n=64,
        pattern="hierarchical",
        params={"levels": [{"block": [8, 8], "sparsity": 0.9}, {"block": [4, 1], "sparsity": 0.9}]},
    )
    with pytest.raises(ModelError, match=r"hbs.c was never timed on levels 8x8\+4x1, only on 4x1\+1x1"):
        fitted.sparse_time(other, fitted.place(), "hbs.c")


def test_rbgp4_is_keyed_by_the_rows_that_share_columns():
    arms = [
        ("rbgp4", {"tile": [128, 32], "row_repeat": repeat, "block": [1, 1]}, sparsity, "rbgp4.c")
        for repeat in (2, 4, 8)
        for sparsity in (0.5, 0.75, 0.875)
    ]
    world = World(rates={"rbgp4.c": power_rate})
    fitted = fit(world.sweep(SHAPES, NS, arms))
    case = Case(m=512, k=1024, n=64, pattern="rbgp4", params=arms[3][1], sparsity=0.75)
    assert fitted.sparse_time(case, fitted.place()).time_s == pytest.approx(
        world.time_s(case, "rbgp4.c", kept_of(case)), rel=1e-3
    )


# --- the dense side ---------------------------------------------------------------------------------------------------


def test_a_measured_dense_problem_is_answered_by_its_measurement(noisy):
    _, fitted = noisy
    found = fitted.dense_time(block(512, 512, 64), fitted.place())
    assert found.measured
    assert not found.extrapolated
    assert found.kernel in ("dense.onednn", "dense.torch")
    assert found.low_s <= found.time_s <= found.high_s


def test_another_dense_problem_is_predicted_and_says_so(noisy):
    world, fitted = noisy
    case = Case(m=640, k=768, n=64)
    found = fitted.dense_time(case, fitted.place())
    assert not found.measured
    assert found.why == "the dense time is predicted, not measured"
    assert found.time_s == pytest.approx(world.time_s(case, "dense.onednn", 640 * 768), rel=0.15)
    assert fitted.dense_time(Case(m=640, k=768, n=4096), fitted.place()).extrapolated


def test_the_layout_change_of_a_baseline_counts():
    """A dense kernel that is faster bare but pays for its layout is not the fastest."""
    world = World(rates={"csr.c": power_rate}, layout_s=1.0)
    records = world.sweep([(256, 512)], [64], [("unstructured", {}, 0.9, "csr.c")])
    assert fit(records).dense_time(Case(m=256, k=512, n=64), fit(records).place()).kernel == "dense.onednn"


def test_a_measured_sparse_case_is_answered_by_its_measurement_whatever_its_seed(noisy):
    _, fitted = noisy
    params = next(params for pattern, params, _, _ in usual_arms() if pattern == "block")
    timed = replace(block(m=256, k=512, n=16, sparsity=0.9), params=params)
    found = fitted.sparse_time(timed, fitted.place(), "bsr.c")
    assert found.measured
    assert fitted.sparse_time(replace(timed, seed=7), fitted.place(), "bsr.c") == found
    assert not fitted.sparse_time(replace(timed, m=260), fitted.place(), "bsr.c").measured
    again = FittedModels.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again.sparse_time(timed, again.place(), "bsr.c") == found


# --- what was never measured ------------------------------------------------------------------------------------------


def test_outside_the_sweep_is_marked_and_wider(noisy):
    _, fitted = noisy
    near, far = (fitted.sparse_time(block(n=n), fitted.place(), "bsr.c") for n in (64, 4096))
    assert not near.extrapolated
    assert far.extrapolated
    assert "n 4096 is outside the measured 1 to 256" in far.why
    assert far.high_s / far.time_s > near.high_s / near.time_s
    sparser = fitted.sparse_time(block(sparsity=0.999), fitted.place(), "bsr.c")
    assert "sparsity 99.9 % is outside the measured 50 % to 95" in sparser.why


def test_a_hole_in_the_sweep_is_marked():
    """4x1 and 16x16 were measured; 16x1 lies between them on each axis, yet far from both."""
    fitted = fit(usual_world().sweep(SHAPES, NS, usual_arms()))
    assert not fitted.sparse_time(block(n=64, shape=(8, 4)), fitted.place(), "bsr.c").extrapolated
    hole = fitted.sparse_time(block(n=64, shape=(16, 1)), fitted.place(), "bsr.c")
    assert hole.extrapolated
    assert "no measured points surround sparsity 85 %, bh 16, bw 1, n 64" in hole.why


@pytest.mark.parametrize(
    ("shapes", "ns", "sparsities"),
    [(SHAPES, [64], (0.5, 0.8, 0.9)), (SHAPES, NS, (0.9,)), (SHAPES[:1], [64], (0.9,)), (SHAPES[:1], [1, 64], (0.9,))],
)
def test_one_n_one_sparsity_or_one_point_is_no_special_case(shapes, ns, sparsities):
    world = World(rates={"csr.c": power_rate})
    fitted = fit(world.sweep(shapes, ns, usual_arms(sparsities)[::4]))
    case = Case(m=256, k=512, n=ns[-1], pattern="unstructured", sparsity=sparsities[-1])
    found = fitted.sparse_time(case, fitted.place())
    assert found.time_s == pytest.approx(world.time_s(case, "csr.c", kept_of(case)), rel=2e-3)
    assert not found.extrapolated
    beyond = fitted.sparse_time(replace(case, n=100_000), fitted.place())
    assert beyond.extrapolated
    if len(ns) == 1:
        assert (beyond.low_s, beyond.high_s) == (0.0, math.inf)  # nobody has seen how n matters


def test_a_missing_model_says_who_where_and_what_to_run(noisy):
    _, fitted = noisy
    case = replace(block(), dtype="float16")
    with pytest.raises(
        ModelError, match=rf"how long bsr.c takes for 384x1024 n=32 block 8x4 85 % on machine {MACHINE}"
    ):
        fitted.sparse_time(case, fitted.place(), "bsr.c")
    with pytest.raises(ModelError, match=r"gemm float16 ieee feature, weights_cold, 1 thread"):
        fitted.sparse_time(case, fitted.place(), "bsr.c")
    with pytest.raises(ModelError, match=r"run `sparsebench run SUITE --kernels 'dense.\*'` there"):
        fitted.dense_time(case, fitted.place())
    with pytest.raises(ModelError, match=r"there are models of bsr.c, condensed.c, csr.c"):
        fitted.sparse_time(block(), fitted.place(), "bsr.torch")
    with pytest.raises(ModelError, match=r"nothing was measured so"):
        fitted.sparse_time(block(), fitted.place(cache="hot"))
    with pytest.raises(ModelError, match=r"names no sparsity, its file fixes it"):
        fitted.sparse_time(Case(m=256, k=512, n=64, pattern="file"), fitted.place(), "csr.c")


def test_places_are_named_or_refused(noisy):
    _, fitted = noisy
    assert fitted.place().machine == MACHINE
    with pytest.raises(
        ModelError, match=rf"machine moon has no models, there are {MACHINE}; run `sparsebench run SUITE`"
    ):
        fitted.place("moon")
    with pytest.raises(ModelError, match=r"none was named and there are models of none"):
        fit([]).place()
    both = fit([usual_world(machine=name).record(block(sparsity=0.9), "bsr.c") for name in ("a", "b")])
    with pytest.raises(ModelError, match=r"models of a, b; name one with --machine"):
        both.place()
    assert both.place("b").machine == "b"


def test_a_format_that_cannot_store_a_pattern_is_never_chosen(noisy):
    _, fitted = noisy
    case = Case(m=512, k=512, n=64, pattern="unstructured", sparsity=0.9)
    assert fitted.sparse_time(case, fitted.place()).kernel == "csr.c"  # condensed.c knows 1x1, but not uneven rows
    assert fitted.sparse_time(block(512, 512, 64, 0.9, (4, 1)), fitted.place()).kernel == "bsr.c"


# --- which records count ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "chosen"),
    [((0.8, 1.1), "measured"), ((0.8, 0.95), "law"), ((0.8, math.inf), "measured")],
)
def test_a_measured_time_gives_way_only_to_a_prediction_that_is_surely_less(law, chosen):
    low, high = law
    guesses = [
        Prediction(1.0, 0.99, 1.01, measured=True, kernel="measured"),
        Prediction(1.2, 1.19, 1.21, measured=True, kernel="slower"),
        Prediction(0.9, low, high, kernel="law"),
    ]
    assert to_choose(guesses, lambda guess: guess).kernel == chosen
    assert to_choose(guesses[2:], lambda guess: guess).kernel == "law"
    assert to_choose([], lambda guess: guess) is None


def test_matrices_without_nonzeros_are_left_out_and_counted():
    world = World(rates={"csr.c": power_rate})
    records = world.sweep(SHAPES, [64], [("unstructured", {}, s, "csr.c") for s in (0.8, 0.9)])
    empty = replace(records[-1], nnz=0, useful_flops=0, key="empty", case=replace(records[-1].case, sparsity=0.9999))
    lost = replace(broken(records[-1], "crashed", "SIGSEGV"), key="lost", case=replace(records[-1].case, seed=9))
    fitted = fit([*records, empty, lost])
    assert fitted.left_out == {"no nonzeros": 1, "outcome crashed": 1}
    told = [fitted.sparse_time(record.case, fitted.place()) for record in records if record.kernel == "csr.c"]
    assert all(0 < time.time_s < 1 for time in told)


def test_a_newer_version_of_a_kernel_supersedes_the_older():
    world = World(rates={"csr.c": power_rate})
    old = world.record(Case(m=256, k=512, n=64, pattern="unstructured", sparsity=0.9), "csr.c")
    slow = {cache: {n: [10 * t for t in s] for n, s in by.items()} for cache, by in old.samples.items()}
    older = replace(old, key="older", source_sha="before", samples=slow, started_at="2025-01-01T00:00:00")
    for records in ([old, older], [older, old]):
        fitted = fit(records)
        assert fitted.records == 1
        assert fitted.sparse_time(old.case, fitted.place()).time_s == pytest.approx(old.median_s(), rel=1e-3)


def test_machines_caches_and_threads_never_meet():
    fast, slow = usual_world(machine="fast"), usual_world(machine="slow", floor_s=1e-3)
    fitted = fit([world.record(block(sparsity=0.9), "bsr.c") for world in (fast, slow)])
    times = [fitted.sparse_time(block(sparsity=0.9), fitted.place(name), "bsr.c").time_s for name in ("fast", "slow")]
    assert times[1] > 10 * times[0]


# --- irf.json ---------------------------------------------------------------------------------------------------------


def test_models_survive_json(noisy):
    _, fitted = noisy
    again = FittedModels.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    for case in (block(), block(n=4096), Case(m=512, k=512, n=64, pattern="unstructured", sparsity=0.9)):
        assert again.sparse_time(case, again.place()).time_s == pytest.approx(
            fitted.sparse_time(case, fitted.place()).time_s
        )
        assert again.dense_time(case, again.place()).high_s == pytest.approx(
            fitted.dense_time(case, fitted.place()).high_s
        )
    assert again.errors.equals(fitted.errors)


@pytest.mark.parametrize("data", [None, [], {"schema": 99}, {"schema": 5, "law": "magic"}])
def test_what_is_no_model_file_is_refused(data):
    with pytest.raises(ModelError, match="not a model file of schema 5; `sparsebench fit` writes one"):
        FittedModels.from_json(data)


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_model_file_of_an_earlier_schema_is_refused_by_name(schema):
    with pytest.raises(ModelError, match=f"a model file of schema {schema}, whose laws were others"):
        FittedModels.from_json({"schema": schema, "law": "irf", "sparse": [], "dense": []})


def test_a_broken_model_file_is_refused(noisy):
    data = noisy[1].to_json()
    del data["sparse"][0]["setting"]
    with pytest.raises(ModelError, match="a broken model file: KeyError: 'setting'; write it anew"):
        FittedModels.from_json(data)
