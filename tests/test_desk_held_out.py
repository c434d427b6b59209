"""What errors and intervals are worth: what is left out, the second run as judge, coverage, and regret."""

import math
from dataclasses import replace

import numpy as np
import pytest
from replay import World, smooth_rate, usual_arms, usual_world, write_results

from sparsebench.case import Case
from sparsebench.desk.again import every_line, first_runs, noise_floor, repeated, runs
from sparsebench.desk.conformal import NOMINAL, Coverage, coverage, drift, half_width
from sparsebench.desk.fit import fit
from sparsebench.desk.observe import sparse_observations
from sparsebench.desk.observe_dense import dense_observations, dense_times
from sparsebench.desk.points import ALIKE, NOTHING, Seen, levels_of
from sparsebench.desk.quiet import BETWEEN, MOST
from sparsebench.desk.regret import regret
from sparsebench.desk.splits import splits
from sparsebench.errors import StoreError

SHAPES = [(256, 512), (512, 512), (768, 3072), (1024, 1024), (300, 700), (640, 256)]
NS = [1, 16, 64, 256]
LATER = "2026-11-21T09:31:00.000+00:00"


def seen_of(records, kernel="bsr.c", found=None):
    found = found or runs(records)
    usual = dense_times(seen for _, seen in dense_observations(record for record, _ in found))
    group = [seen for seen in sparse_observations(found, usual, usual) if seen.setting.kernel == kernel]
    return Seen.of(group, [NOTHING] * len(group)), group


def second_run(records, seed=1, noise=0.0, drift=0.0):
    """The same trials half an hour later: other samples, each trial off by `noise`, all by `drift`."""
    rng = np.random.default_rng(seed)

    def again(record):
        own, all_s = math.exp(rng.normal(0, noise)), math.exp(drift)
        samples = {
            cache: {
                name: [t * all_s * (own if name == record.kernel else 1) for t in times] for name, times in by.items()
            }
            for cache, by in record.samples.items()
        }
        return replace(record, samples=samples, started_at=LATER)

    return [again(record) for record in records]


# --- noise ------------------------------------------------------------------------------------------------------------


def cut(record, rounds):
    """The first rounds of a record."""
    samples = {cache: {name: times_s[:rounds] for name, times_s in by.items()} for cache, by in record.samples.items()}
    return replace(record, samples=samples)


def test_a_timing_of_fewer_rounds_is_noisier_and_a_second_run_makes_up_for_it():
    whole = replace(usual_world(), rounds=MOST).sweep([(256, 512)], [64], usual_arms())
    records = list(whole)
    sparse = [i for i, record in enumerate(records) if record.kernel == "bsr.c"]
    records[sparse[0]] = cut(records[sparse[0]], 6)
    alone, _ = seen_of(records)
    variance = np.where(np.arange(len(sparse)) == 0, 1 / (BETWEEN + 6), 1 / (BETWEEN + MOST))
    assert alone.points.noise == pytest.approx(ALIKE + (1 - ALIKE) * variance / variance.mean())
    assert alone.points.noise.mean() == pytest.approx(1.0)
    assert alone.first is alone.points
    again, _ = seen_of(None, found=runs([*records, *second_run(records)]))
    assert again.points.noise == pytest.approx(alone.points.noise), "both runs have six rounds of it"
    more, _ = seen_of(None, found=runs([*records, *second_run(whole)]))
    assert 1.0 < more.points.noise[0] < alone.points.noise[0]


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_fold_holds_whole_shapes_sparsities_blocks_and_ns():
    seen, _ = seen_of(usual_world().sweep(SHAPES, NS, usual_arms()))
    folds = splits(seen)
    assert set(folds) == {"cells", "shapes", "sparsities", "blocks", "ns"}
    points = seen.points
    groups = {
        "shapes": seen.shape,
        "sparsities": levels_of(np.log(points.kept)),
        "blocks": points.column("bh").round(),
        "ns": points.column("n").round(),
    }
    for how, group in groups.items():
        assert len(np.unique(folds[how])) == len(np.unique(group))
        for value in np.unique(group):
            assert len(np.unique(folds[how][group == value])) == 1


def test_seeds_of_a_question_are_one_row_and_each_is_judged():
    world = usual_world()
    cases = [Case(m=256, k=512, n=64, pattern="unstructured", sparsity=0.9, seed=seed) for seed in range(4)]
    seen, group = seen_of([world.record(case, "csr.c") for case in cases], "csr.c")
    assert (len(seen.points), len(seen.row), len(group)) == (1, 4, 4)
    assert seen.time_s[0] == pytest.approx(math.exp(np.mean(np.log([one.time_s for one in group]))))


def test_what_cannot_be_left_out_is_not():
    seen, _ = seen_of(usual_world().sweep(SHAPES[:2], [64], usual_arms((0.9,))[2:3]))
    assert set(splits(seen)) == {"cells"}


# --- two runs ---------------------------------------------------------------------------------------------------------


def test_two_runs_are_the_same_trial_half_an_hour_apart_by_the_same_code():
    record = usual_world().record(Case(m=256, k=512, n=64, pattern="unstructured", sparsity=0.9), "csr.c")
    later = replace(record, started_at=LATER)
    assert runs([record, later]) == [(later, (record,))]
    assert runs([later, record]) == [(later, (record,))]
    assert first_runs(runs([record, later])) == [record]
    soon = replace(record, started_at="2026-11-21T09:29:00.000+00:00")
    assert runs([record, soon]) == [(soon, ())]
    assert runs([replace(record, source_sha="other"), later]) == [(later, ())]
    crashed = replace(record, outcome="crashed", samples={})
    assert runs([crashed, later]) == [(later, ())]
    assert runs([replace(record, started_at=""), replace(later, started_at="soon")])[0][1] == ()


def test_a_run_that_lost_its_core_is_none_where_there_are_others():
    record = usual_world().record(Case(m=256, k=512, n=64, pattern="unstructured", sparsity=0.9), "csr.c")
    later = replace(record, started_at=LATER)
    for lost in ("preempted:84%", "stolen:20%"):
        one, other = replace(record, flags=(lost,)), replace(later, flags=("wide_spread:csr.c:hot", lost))
        assert runs([record, other]) == [(record, ())]
        assert runs([one, later]) == [(later, ())]
        assert runs([one, other])[0][0] == other
        assert runs([replace(record, source_sha="old"), other]) == [(other, ())]
        assert runs([replace(record, outcome="crashed", samples={}), other]) == [(other, ())]
    assert runs([record, replace(later, flags=("stolen:19%",))])[0][1] == (record,)


def test_the_noise_floor_is_the_median_distance_of_two_runs():
    records = usual_world(noise=0.0, shape_noise=0.0).sweep(SHAPES, NS, usual_arms())
    assert noise_floor(seen_of(records)[1]) is None
    both = [*records, *second_run(records, noise=0.1, drift=0.5)]
    floor = noise_floor(seen_of(both)[1])
    assert floor.n == 192
    assert floor.ratio == pytest.approx(0.1 * 0.674, rel=0.25)  # the median of |normal| is .674 of its deviation
    assert repeated(seen_of(records)[1]) is None
    assert repeated(seen_of(both)[1]) == pytest.approx(0.1 * 0.798, rel=0.25)  # and its mean .798
    assert floor.seconds == pytest.approx(0.5, abs=0.05)  # what slows a whole run cancels in ratios alone


def test_errors_are_those_of_the_second_run_and_the_fit_that_of_the_first():
    """A second run in which each trial is 20 % off: the errors tell of it, though the first was without noise."""
    records = usual_world(noise=0.0, shape_noise=0.0).sweep(SHAPES, NS, usual_arms())
    alone, judged = fit(records), fit([*records, *second_run(records, noise=0.2)])
    told = [f.errors[(f.errors.kernel == "bsr.c") & (f.errors.how == "cells")].iloc[0] for f in (alone, judged)]
    assert told[0].mape < 0.02
    assert told[1].mape == pytest.approx(0.2 * 0.8, rel=0.25)
    assert math.isnan(told[0].floor)
    assert told[1].floor == pytest.approx(0.2 * 0.674, rel=0.25)


def test_a_measured_case_is_answered_by_both_runs():
    record = usual_world(noise=0.0).record(Case(m=256, k=512, n=64, pattern="unstructured", sparsity=0.9), "csr.c")
    (later,) = second_run([record])
    slower = {cache: by | {"csr.c": [1.21 * t for t in by["csr.c"]]} for cache, by in later.samples.items()}
    fitted = fit([record, replace(later, samples=slower)])
    found = fitted.sparse_time(record.case, fitted.place())
    assert found.measured
    assert found.time_s == pytest.approx(1.1 * record.median_s(), rel=1e-3)
    assert found.low_s <= record.median_s() * (1 + 1e-9)
    assert found.high_s >= 1.21 * record.median_s() * (1 - 1e-9)


def test_all_earlier_runs_are_learnt_from_and_the_newest_judges():
    """Each run is 20 % off at every trial; what three of them say together is nearer to the truth."""
    records = usual_world(noise=0.0, shape_noise=0.0).sweep(SHAPES, NS, usual_arms())
    noisy = [
        replace(record, started_at=f"2026-11-2{day}T10:00:00.000+00:00")
        for day in range(2, 6)
        for record in second_run(records, noise=0.2, seed=day)
    ]
    newest, earlier = runs(noisy)[0]
    assert [record.started_at[9] for record in (newest, *earlier)] == ["5", "4", "3", "2"]
    _, group = seen_of(noisy)
    _, once = seen_of(records)
    far = [np.std([math.log(getattr(a, name) / b.time_s) for a, b in zip(group, once, strict=True)]) for name in
           ("judged_s", "before_s", "first_s", "time_s")]  # fmt: skip
    assert far[:2] == pytest.approx([0.2, 0.2], rel=0.25)
    assert far[2:] == pytest.approx([0.2 / math.sqrt(3), 0.1], rel=0.25)


def test_every_line_of_a_folder_is_read_those_a_newer_one_replaces_too(tmp_path):
    record = usual_world().record(Case(m=64, k=64, n=8, pattern="unstructured", sparsity=0.5), "csr.c")
    write_results(tmp_path, [record, replace(record, started_at=LATER)])
    assert len(list(every_line(tmp_path))) == 2
    assert len(list(every_line(tmp_path, record.machine))) == 2
    with pytest.raises(StoreError, match=r"no records of machine moon were found"):
        list(every_line(tmp_path, "moon"))
    with pytest.raises(StoreError, match=r"results folder .*none was not found"):
        list(every_line(tmp_path / "none"))


# --- intervals --------------------------------------------------------------------------------------------------------


def test_each_shape_weighs_the_same_and_the_unseen_one_too():
    group = np.repeat(np.arange(20), 5)
    log = np.repeat(np.linspace(0.01, 0.2, 20), 5)
    assert half_width(log, group) == pytest.approx(0.19)  # rank .9 x 21 = 18.9 of 20 shapes
    crowd = np.concatenate([log, np.full(1000, 0.001)]), np.concatenate([group, np.zeros(1000, int)])
    assert half_width(*crowd) == pytest.approx(0.19)  # a shape of a thousand timings is one shape
    assert half_width(log[:25], group[:25]) == pytest.approx(log[:25].max())  # five shapes: the largest residual
    assert half_width(np.empty(0), np.empty(0, int)) is None


@pytest.mark.parametrize("spread", ["the same", "each its own"])
def test_nominal_coverage_is_met_on_new_shapes(spread):
    """Residuals of 60 shapes, each with an offset of its own: the intervals hold nine of ten timings of new shapes."""
    rng, inside = np.random.default_rng(9), []
    for _ in range(200):
        scale = np.exp(rng.normal(0, 0.5, 60)) if spread == "each its own" else np.ones(60)
        log = (scale * rng.normal(0, 0.1, 60))[:, None] + rng.normal(0, 0.05, (60, 8)) * scale[:, None]
        width = half_width(log[:40].ravel(), np.repeat(np.arange(40), 8))
        inside.append((np.abs(log[40:]) <= width).mean())
    assert np.mean(inside) == pytest.approx(NOMINAL, abs=0.03)


def test_coverage_tells_intervals_that_do_not_hold():
    """Timings of one shape err together; a bootstrap over timings would be sure of the wrong thing."""
    rng = np.random.default_rng(10)
    log = (rng.normal(0, 0.1, 50)[:, None] + rng.normal(0, 0.03, (50, 10))).ravel()
    found = coverage(log, np.repeat(np.arange(50), 10))
    assert found.holds
    assert found.shapes == 50
    assert not Coverage(0.8, 0.75, 0.85, 50).holds
    assert not Coverage(0.99, 0.97, 1.0, 50).holds
    assert coverage(log[:10], np.zeros(10, int)) is None


def test_a_law_far_off_on_some_shapes_gets_wide_intervals_and_keeps_its_promise():
    """A kernel that is slow on shapes no axis tells of, 55 of them: measured coverage is about nine of ten."""
    world = usual_world(shape_noise=0.15)
    shapes = [(int(m), int(k)) for m, k in 2 ** np.random.default_rng(11).uniform(7, 11, (55, 2))]
    fitted = fit(world.sweep(shapes, [16, 64], usual_arms((0.8, 0.9))[::4]))
    (model,) = fitted.sparse.values()
    found = model.parts[""].coverage
    assert found.shapes >= 40
    assert found.holds
    assert 0.15 < model.parts[""].half_log < 0.5


def test_drift_is_error_by_distance_beyond_what_is_known():
    assert drift(np.array([0.3, -0.3]), np.array([0.0, 0.0]), 0.1) is None
    assert drift(np.array([0.3, -0.3]), np.array([2.0, 2.0]), 0.1) == pytest.approx(0.1)
    assert drift(np.array([0.05]), np.array([2.0]), 0.1) == 0.0


# --- regret -----------------------------------------------------------------------------------------------------------


def rivals(factor):
    """csr.c and a rival that is `factor` times as slow below 64 columns and as fast above."""

    def rival(kept, bh, bw, n):
        return smooth_rate(kept, bh, bw, n) * (factor if n < 64 else 1 / factor)

    world = World(rates={"csr.c": smooth_rate, "csr.rival": rival}, shape_noise=0.01)
    arms = [("unstructured", {}, s, name) for s in (0.7, 0.8, 0.9) for name in ("csr.c", "csr.rival")]
    return world.sweep(SHAPES, NS, arms)


def test_regret_is_small_where_the_law_tells_rivals_apart():
    found = regret(fit(rivals(1.5)), dense=False)
    assert found.cases == 72
    assert found.geomean < 0.01
    assert found.right > 0.9


def test_a_law_that_does_not_know_n_regrets_its_choices():
    fitted = fit(rivals(3.0))
    assert regret(fitted, "irf", dense=False).geomean > 5 * regret(fitted, dense=False).geomean
    assert regret(fitted, "irf", dense=False).p95 > 0.5


def test_dense_may_be_the_right_choice():
    """Sparse kernels that lose everywhere: with dense among the choices nothing is regretted."""
    world = World(rates={"csr.c": lambda kept, bh, bw, n: 1e-9})
    fitted = fit(world.sweep(SHAPES, NS, [("unstructured", {}, s, "csr.c") for s in (0.5, 0.7)]))
    assert regret(fitted, dense=False) is None  # one kernel: nothing to choose
    assert regret(fitted, dense=True).geomean == pytest.approx(0, abs=1e-9)
