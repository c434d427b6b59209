"""compare: the right verdict on records whose truth is known, and what is compared with what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from replay import World, broken, usual_arms, write_results
from runs_again import BASE, COLUMNS, NEW, SHAPES, run, told, words

from sparsebench.desk import compare_say as say
from sparsebench.desk.compare import FLOOR_S, LEAST_OWN, spread
from sparsebench.desk.compare_runs import read_side
from sparsebench.desk.compare_verdict import _plain, verdict_lines
from sparsebench.errors import BadInput, StoreError
from sparsebench.record import Protocol, Record

# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_two_runs_of_the_same_code_are_the_same(tmp_path):
    base, new = BASE, NEW
    found = told(tmp_path, base, new)
    assert words(found) == {"SAME"}
    assert len(found.pairs) == len(base)
    assert not found.worse


def test_a_slower_kernel_is_found_and_no_other(tmp_path):
    found = told(tmp_path, BASE, run({"csr.c": 1.05}))
    assert words(found, "csr.c") == {"SLOW"}
    assert words(found, "bsr.c") == words(found, "condensed.c") == words(found, "dense") == {"SAME"}
    assert found.worse
    assert found.pairs[0].judged.word == "SLOW"
    assert found.pairs[0].ratio == pytest.approx(1.05, rel=0.01)
    back = told(tmp_path, run({"csr.c": 1.05}), NEW)
    assert words(back, "csr.c") == {"FAST"}
    assert not back.worse


def test_what_slows_the_whole_machine_cancels_in_the_pairs(tmp_path):
    found = told(tmp_path, BASE, run(drift=0.3))
    assert words(found) <= {"SAME", "UNSURE"}
    moved = spread(found)
    assert moved["ratios"]["p95"] < 0.02 < 0.1 < moved["seconds"]["median"]


def test_runs_that_differ_for_no_reason_leave_a_change_of_their_size_unsure(tmp_path):
    """The part between runs comes from the records: the same 5 % is found on a steady machine, above."""
    found = told(tmp_path, run(shape_noise=0.05), run({"csr.c": 1.05}, shape_noise=0.05))
    assert "SLOW" not in words(found)
    assert "UNSURE" in words(found, "csr.c")
    assert found.apart.overall["alike"].controls > 0 or found.apart.overall["unlike"].controls > 0


def test_more_runs_of_both_sides_decide_what_one_cannot(tmp_path):
    noisy = {"shape_noise": 0.02}
    once = told(tmp_path, run(**noisy), run({"csr.c": 1.08}, **noisy))
    base = [record for _ in range(8) for record in run(**noisy)]
    new = [record for _ in range(8) for record in run({"csr.c": 1.08}, **noisy)]
    often = told(tmp_path, base, new)
    assert sum(c.judged.word == "SLOW" for c in often.pairs) > sum(c.judged.word == "SLOW" for c in once.pairs)
    assert {len(c.pair.base_runs) for c in often.pairs} == {8}
    assert often.apart.own, f"with {LEAST_OWN} controls a kernel is judged by its own"


def test_runs_are_pooled_though_their_baselines_were_named_anew(tmp_path):
    """Two near-equal dense kernels swap places from run to run; what all runs have in common serves."""
    base = [*BASE, *map(alone, run())]
    found = told(tmp_path, base, NEW)
    sparse = [compared.pair for compared in found.pairs if compared.pair.base.case.pattern != "dense"]
    assert {len(pair.base_runs) for pair in sparse} == {2}
    assert {pair.yardstick.names for pair in sparse} == {("dense.onednn",)}
    apart = [*BASE, *map(all_other, run())]
    found = told(tmp_path, apart, NEW)
    assert {len(compared.pair.base_runs) for compared in found.pairs if "csr" in compared.pair.base.kernel} == {2}
    assert {compared.pair.yardstick.kind for compared in found.pairs if "csr" in compared.pair.base.kernel} == {
        "seconds"
    }


def test_each_cache_state_is_a_pair_of_its_own(tmp_path):
    protocol = Protocol(cache=("hot", "weights_cold"))
    found = told(tmp_path, run(protocol=protocol), run(protocol=protocol))
    assert {compared.pair.cache for compared in found.pairs} == {"hot", "weights_cold"}


def test_nanoseconds_fail_nobody(tmp_path):
    """A tenth more of a microsecond is below what reading the clock costs."""
    tiny = [(8, 16)]
    make = [
        World(rates={"csr.c": lambda *at, f=f: f * 5e-9}, noise=0.001, rounds=60, seed=int(f * 10)) for f in (1, 1.1)
    ]
    base, new = (world.sweep(tiny, [1], usual_arms((0.8,))[:1]) for world in make)
    found = told(tmp_path, base, [replace(record, started_at="later") for record in new])
    (csr,) = (compared for compared in found.pairs if compared.pair.base.kernel == "csr.c")
    assert csr.ratio == pytest.approx(1.1, rel=0.01)
    assert csr.pair.new_s - csr.pair.base_s < FLOOR_S
    assert csr.judged.word == "SAME"


def test_a_baseline_that_stands_alone_is_compared_with_the_fastest_other_dense_kernel(tmp_path):
    base, new = ([alone(record) for record in side] for side in (BASE, NEW))
    found = told(tmp_path, base, new)
    own = [compared.pair for compared in found.pairs if compared.pair.base.kernel == "dense.onednn"]
    assert own
    assert all(pair.yardstick.names == ("dense.torch",) for pair in own)
    assert words(found, "dense.onednn") == {"SAME"}


def alone(record: Record, name: str = "dense.onednn") -> Record:
    """The same record, with `name` as its only baseline."""
    samples = {c: {n: t for n, t in s.items() if n in (record.kernel, name)} for c, s in record.samples.items()}
    return replace(record, baselines={name: record.baselines[name]}, samples=samples)


# --- baselines that changed -------------------------------------------------------------------------------------------


def other_baseline(record: Record, name: str = "dense.onednn") -> Record:
    """The same record, dense kernel `name` being of other sources."""
    sha = "other sha" if record.kernel == name else record.source_sha
    baselines = {of: "other sha" if of == name else sha for of, sha in record.baselines.items()}
    return replace(record, baselines=baselines, source_sha=sha, key=f"other {name} {record.key}")


def all_other(record: Record) -> Record:
    """The same record, every dense kernel being of other sources."""
    for name in ("dense.onednn", "dense.torch", "dense.numpy"):
        record = other_baseline(record, name)
    return record


def test_one_changed_baseline_is_told_and_the_other_takes_its_place(tmp_path):
    found = told(tmp_path, BASE, [other_baseline(record) for record in NEW])
    sparse = [compared.pair for compared in found.pairs if compared.pair.base.case.pattern != "dense"]
    assert {pair.yardstick.names for pair in sparse} == {("dense.torch",)}
    lines = say.changed_baselines(found)
    assert len({line.split(":")[0] for line in lines}) == len(SHAPES) * len(COLUMNS)
    named = "dense.onednn + dense.torch"
    assert (
        f"BASELINE CHANGED on 256x512 n=1 dense: BASE has {named} and NEW has {named}; dense.onednn has other sources; "
        f"compared with dense.torch (6 pairs)" in lines
    )


def test_sides_that_named_different_baselines_meet_in_a_dense_kernel_that_both_screened(tmp_path):
    """Two dense kernels within a hair of each other, each named once: the screening leads from one to the other."""
    base = [alone(record, "dense.onednn") for record in run(drift=0.1)]
    new = [alone(record, "dense.torch") for record in run({"csr.c": 1.5}, drift=0.4)]
    found = told(tmp_path, base, new)
    assert {compared.pair.yardstick.kind for compared in found.pairs} == {"ratio"}
    assert {compared.pair.yardstick.screened for compared in found.pairs} == {True}
    assert words(found, "csr.c") == {"SLOW"}
    assert words(found, "bsr.c") | words(found, "condensed.c") | words(found, "dense") <= {"UNSURE", "SAME"}
    for compared in found.pairs:
        expected = 1.5 if compared.pair.base.kernel == "csr.c" else 1.0
        assert compared.ratio == pytest.approx(expected, rel=0.03)
        assert compared.pair.base.kernel not in compared.pair.yardstick.names
    text = " ".join(say.changed_baselines(found))
    assert "BASE has dense.onednn and NEW has dense.torch; compared with dense." in text
    assert "which both screened beside their own" in text
    assert "plain seconds" not in text


def test_without_an_unchanged_baseline_plain_seconds_are_all_there_is_and_the_doubt_says_so(tmp_path):
    new = [all_other(record) for record in run({"csr.c": 1.1}, drift=0.2)]
    found = told(tmp_path, run(drift=0.2), new)
    sparse = [compared for compared in found.pairs if compared.pair.base.case.pattern != "dense"]
    assert {compared.pair.yardstick.kind for compared in sparse} == {"seconds"}
    assert "SLOW" not in words(found), "10 % is nothing in plain seconds"
    assert any("compared in plain seconds" in line for line in say.changed_baselines(found))
    assert "plain seconds carry all that the machine did" in _plain(found)
    told_first = "the machine changed, not they", "plain seconds carry"  # the first where all moved by more than 2 %
    assert any(text in verdict_lines(found)[1] for text in told_first)


def test_another_torch_is_another_baseline_and_another_compiler_is_not(tmp_path):
    def versions(record: Record, **changed: str) -> Record:
        return replace(record, versions={**record.versions, **changed}, key=f"{changed} {record.key}")

    base = [versions(record, cc="gcc 13") for record in NEW]
    compiler = told(tmp_path, base, [versions(record, cc="gcc 14") for record in NEW])
    assert say.changed_baselines(compiler) == []
    assert {c.pair.same_code for c in compiler.pairs if c.pair.base.kernel == "csr.c"} == {False}
    assert {c.pair.same_code for c in compiler.pairs if c.pair.base.kernel.startswith("dense")} == {True}
    library = told(tmp_path, base, [versions(record, cc="gcc 13", torch="2.14.0") for record in NEW])
    assert "dense.onednn was made by torch 2.13.0 -> 2.14.0" in say.changed_baselines(library)[0]


# --- what is compared with what ---------------------------------------------------------------------------------------


def test_the_newest_code_of_a_side_speaks_for_it(tmp_path):
    history = [*run({"csr.c": 3.0}), *run()]
    assert words(told(tmp_path, BASE, history)) == {"SAME"}
    assert words(told(tmp_path, BASE, list(reversed(history)))) == {"SAME"}, "the newest, not the last line"


def test_another_protocol_is_another_trial(tmp_path):
    base, new = BASE, run(protocol=Protocol(threads=2))
    with pytest.raises(BadInput, match="no case, kernel and protocol in common; compare two runs of the same suite"):
        told(tmp_path, base, new)


def test_cases_of_one_side_are_counted_and_named(tmp_path):
    base, new = BASE, NEW
    found = told(tmp_path, base[3:], new[:-2])
    assert (len(found.only_base), len(found.only_new)) == (2, 3)
    lines = say.one_sided(found)
    assert lines[0].startswith("in BASE alone, 2: ")
    assert lines[1].startswith("in NEW alone, 3: dense.onednn on 256x512 n=1 dense; ")
    assert verdict_lines(found)[1] == "Doubt: 2 cases of BASE were not run again."


def test_a_kernel_that_broke_is_worse_and_one_that_was_skipped_is_told(tmp_path):
    base, new = BASE, NEW
    crashed = told(tmp_path, base, [*new[:-1], broken(new[-1], "crashed", "SIGSEGV")])
    assert crashed.worse
    assert words(crashed) == {"SAME"}
    assert verdict_lines(crashed)[0].startswith("1 that had times broke: bsr.c on 768x3072 n=64 block 16x16 90 % is")
    assert "is crashed: SIGSEGV" in say.one_sided(crashed)[0]
    skipped = told(tmp_path, base, [*new[:-1], broken(new[-1], "skipped", "needs a C compiler")])
    assert not skipped.worse
    assert "needs a C compiler" in say.one_sided(skipped)[0]


def test_one_record_on_both_sides_is_one_measurement(tmp_path):
    base, new = BASE, NEW
    found = told(tmp_path, base, [*base, *new[:5]])
    assert len(found.pairs) == 5
    assert found.same_record == len(base) - 5
    assert say.one_sided(found) == [f"left out, {len(base) - 5}: both sides hold the same record, measured once"]
    assert told(tmp_path, base, base).pairs == ()


def test_folders_of_a_machine_and_single_files_are_sides_too(tmp_path):
    results = write_results(tmp_path / "results", BASE)
    (folder,) = results.iterdir()
    (file,) = folder.glob("*.jsonl")
    assert read_side(results) == read_side(folder) == read_side(file)
    (folder / "peaks.jsonl").write_text('{"no": "record"}\n')
    assert read_side(results) == read_side(file)


def test_another_machine_is_refused_and_across_compares_speedups(tmp_path):
    base, new = BASE, run(machine="other-cpu-0", floor_s=1e-6)
    with pytest.raises(
        BadInput, match=r"on replay-cpu-0a1b2c, .* on other-cpu-0: .*; --across compares their speedups"
    ):
        told(tmp_path, base, new)
    found = told(tmp_path, base, new, across=True)
    assert {compared.pair.yardstick.kind for compared in found.pairs} == {"speedup"}
    assert found.machines == ("replay-cpu-0a1b2c", "other-cpu-0")
    assert not {"dense.onednn", "dense.torch"} & {c.pair.base.kernel for c in found.pairs}, "their speedup is 1"
    assert say.changed_baselines(found) == []
    with pytest.raises(BadInput, match=r"--across compares two machines, .* holds other-cpu-0, replay-cpu-0a1b2c; g"):
        told(tmp_path, [*base, *new], new, across=True)


def test_speedups_that_fall_on_another_machine_are_found(tmp_path):
    slower = {"csr.c": 1.5, "condensed.c": 1.5}
    base = [record for _ in range(3) for record in NEW]
    new = [record for _ in range(3) for record in run(slower, machine="other-cpu-0")]
    found = told(tmp_path, base, new, across=True)
    assert "SLOW" in words(found, "csr.c")
    assert "less speedup on the other machine" in verdict_lines(found)[0]


def test_of_several_machines_those_of_both_sides_are_compared(tmp_path):
    base, new = [*BASE, *run(machine="other-cpu-0")], NEW
    assert told(tmp_path, base, new).machines == ("replay-cpu-0a1b2c",)


def test_a_side_without_a_file_is_an_error_of_the_store(tmp_path):
    with pytest.raises(StoreError, match="was not found"):
        read_side(tmp_path / "nowhere")
