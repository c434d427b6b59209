"""Three lines: the right winner, the strongest doubt, a command that exists. Each doubt has a test that raises it."""

from dataclasses import replace

import pytest
from replay import World, broken, file_records, usual_arms, usual_world

from sparsebench.case import Case
from sparsebench.desk.arms import arms
from sparsebench.desk.doubts import doubts, skipped_needs
from sparsebench.desk.frame import frame
from sparsebench.desk.verdict import NO_DOUBT, best_arm, verdict_of, verdicts

WORLD = usual_world()
SHAPES = [(256, 512), (768, 3072)]
NEED = "needs a C compiler (cc, gcc or clang), none was found: apt install gcc"


def sweep(world=WORLD, sparsities=(0.8, 0.9)):
    return world.sweep(SHAPES, [1, 64], usual_arms(sparsities))


def told(records):
    return verdict_of(frame(records))


def texts(records):
    table = frame(records)
    return [doubt.text for doubt in doubts(table, best_arm(table))]


def test_the_winner_with_its_interval_and_where_it_wins():
    found = told(sweep())
    best = arms(frame(sweep())).iloc[0]
    assert found.answer.startswith(f"bsr.c on block 16x16 90 % runs {best.speedup:.2f}x [")
    assert "over 4 problems (from 3." in found.answer
    assert "faster on 4, slower on 0)" in found.answer
    assert found.answer.endswith("(gemm float32 ieee feature, weights_cold, 1 thread)")
    assert found.lines[1].startswith("Doubt: ")
    assert found.lines[2] == "Next: sparsebench predict NETWORK --pattern block:16x16 --sparsity 0.9"


def test_one_problem_is_named():
    found = told(WORLD.sweep([(256, 512)], [64], usual_arms([0.9])))
    assert "as fast as dense.onednn on 256x512 n=64" in found.answer
    assert "rests on one problem" in found.doubt


def test_break_even_is_told_where_it_is_bracketed():
    records = WORLD.sweep(SHAPES, [64], usual_arms([0.5, 0.8, 0.9])[::4])
    assert "; it breaks even at 82 %" in told(records).answer


def test_nothing_beats_dense_is_said_plainly():
    found = told(WORLD.sweep(SHAPES, [64], usual_arms([0.5])[::4]))
    assert found.answer.startswith("Nothing here beats dense: the best, csr.c on unstructured 50 %, reaches 0.3")
    assert "predict" not in found.command


def test_a_single_win_is_not_hidden_behind_a_mean():
    rates = {"csr.c": lambda kept, bh, bw, n: 2e-11 if n == 1 else 5e-10}
    found = told(World(rates=rates).sweep(SHAPES, [1, 16, 64], usual_arms([0.9])[::4]))
    assert found.answer.startswith("Nothing here beats dense on the whole")
    assert "2 of 6 timings do beat it, most of all csr.c on unstructured 90 % by" in found.answer


def test_an_arm_of_few_problems_does_not_win_by_luck():
    case = Case(m=64, k=64, n=64, pattern="block", params={"block": [32, 32]}, sparsity=0.75)
    lucky = WORLD.record(case, "bsr.c")
    samples = {**lucky.samples["weights_cold"], "bsr.c": [1e-9] * 9}
    fast = replace(lucky, samples={"weights_cold": samples})
    assert "32x32" in told([fast]).answer
    assert "32x32" not in told([*sweep(), fast]).answer


def test_machines_have_verdicts_of_their_own():
    found = verdicts(sweep(usual_world(machine="a")) + sweep(usual_world(machine="b"), (0.5,)))
    assert list(found) == ["a", "b"]
    assert "90 %" in found["a"].answer
    assert "50 %" in found["b"].answer


def test_the_default_cache_speaks_for_all():
    protocol = replace(WORLD.protocol, cache=("hot", "weights_cold"))
    assert "weights_cold" in told(sweep(usual_world(protocol=protocol))).answer


# --- doubts -----------------------------------------------------------------------------------------------------------


def test_a_missing_compiler_is_the_first_doubt():
    lost = [replace(broken(r, "skipped", NEED), key=f"lost {i}") for i, r in enumerate(sweep(usual_world(seed=5))[3:7])]
    lost = [replace(r, case=replace(r.case, seed=7)) for r in lost]
    found = told(sweep() + lost)
    assert found.doubt == f"3 kernels were skipped (bsr.c, condensed.c, csr.c): {NEED}"
    assert found.command == "sparsebench run replay"
    assert skipped_needs(frame(lost)) == [found.doubt]
    assert skipped_needs(frame(sweep())) == []


def test_only_skipped_trials_make_a_verdict_too():
    found = told([broken(r, "skipped", NEED) for r in sweep()])
    assert found.answer == f"No sparse kernel was timed: {len(sweep())} skipped"
    assert "needs a C compiler" in found.doubt
    assert told([broken(r, "crashed", "SIGSEGV") for r in sweep()]).doubt == "SIGSEGV"
    dense = [r for r in sweep() if r.kernel.startswith("dense")]
    assert told(dense).doubt == "no sparse kernel was in the plan"


def test_a_wrong_kernel_is_a_doubt():
    wrong = broken(sweep()[4], "wrong", "integer gate: entry [0, 0]")
    bad = replace(wrong, key="bad", case=replace(wrong.case, seed=3))
    assert texts([*sweep(), bad])[0] == f"1 wrong: {bad.kernel} first (integer gate: entry [0, 0])"


def test_an_interval_around_one_is_a_doubt():
    close = World(rates={"csr.c": lambda kept, bh, bw, n: (1 + 8 / n) / kept / 1.5e11}, noise=0.3)
    records = close.sweep([(256, 512)], [64], usual_arms([0.9])[::4])
    assert any(text.startswith("its interval holds 1: ") for text in texts(records))


def test_a_failed_control_is_a_doubt():
    records = sweep()
    records[0] = replace(records[0], flags=["aa_off:dense.onednn:weights_cold"])
    assert texts(records)[0].startswith("the control failed: dense.onednn entered twice differed from itself")


def test_a_busy_host_is_a_doubt():
    records = [replace(record, host={"load": 5.5}) for record in sweep()]
    assert texts(records)[0] == "other work ran beside it: load 5.5 for a run of 1 thread(s)"
    assert not any("other work" in text for text in texts([replace(r, host={}) for r in sweep()]))


def test_problems_on_which_the_winner_loses_are_a_doubt():
    rates = {"csr.c": lambda kept, bh, bw, n: 2e-11 if n == 1 else 1e-10}
    records = World(rates=rates).sweep(SHAPES, [1, 64], usual_arms([0.9])[::4])
    assert texts(records)[0].startswith("it is slower than dense on 2 of 4 problems (0.7")


def test_flags_and_budgets_are_doubts():
    flagged = [replace(record, flags=["wide_spread:x:weights_cold"], stop="budget") for record in sweep()]
    assert texts(flagged)[:2] == [
        "100 % of the timings are spread wide or were interrupted",
        "100 % of the timings ended at the time budget before the asked precision",
    ]


def test_a_wide_interval_is_a_doubt():
    noisy = usual_world(noise=0.5, rounds=6)
    assert any(text.startswith("its interval is wide: ") for text in texts(sweep(noisy)))


def test_random_masks_and_one_seed_are_doubts():
    assert "all masks are random" in texts(sweep())[0]
    assert any("one seed, so one mask" in text for text in texts(sweep()))
    seeds = [
        WORLD.record(replace(r.case, seed=s), r.kernel) for r in sweep() for s in (0, 1) if "dense" not in r.kernel
    ]
    assert not any("one seed" in text for text in texts(seeds))


def test_a_rival_that_is_not_told_apart_is_a_doubt():
    twin = usual_world(noise=0.2)
    twin.rates["condensed.c"] = twin.rates["csr.c"]
    records = [r for r in sweep(twin, (0.9,)) if r.kernel in ("csr.c", "condensed.c")]
    assert any("is not told apart from it" in text for text in texts(records))


def test_really_pruned_layers_on_a_quiet_machine_leave_no_doubt():
    found = told(file_records(usual_world(rates={"csr.c": lambda kept, bh, bw, n: 2e-12}), 12))
    assert found.doubt == NO_DOUBT
    assert found.command == "sparsebench predict NETWORK --pattern unstructured --sparsity 0.9"


@pytest.mark.parametrize("records", [sweep(), sweep(usual_world(noise=0.3))])
def test_verdicts_are_one_line_each(records):
    assert all("\n" not in line for line in told(records).lines)
