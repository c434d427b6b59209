"""compare as a user meets it: the table, the reasons, each doubt, the command and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from replay import broken, write_results
from runs_again import BASE, NEW, RATES, recoded, run, told, words

from sparsebench import units
from sparsebench.between import WORDS
from sparsebench.cli import main
from sparsebench.desk import compare_say as say
from sparsebench.desk.compare import ASSUMED_SD
from sparsebench.desk.compare_verdict import verdict_lines
from sparsebench.record import Record

# --- how it is told ---------------------------------------------------------------------------------------------------


def test_the_table_has_the_worst_first_and_says_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr(say, "MOST_ROWS", 10)
    found = told(tmp_path, BASE, run({"csr.c": 1.1, "bsr.c": 0.8}))
    head, rows = say.table(found)
    assert len(rows) == 10
    assert [WORDS.index(row[0]) for row in rows] == sorted(WORDS.index(row[0]) for row in rows)
    assert rows[0][0] == "SLOW"
    assert re.fullmatch(r"\+\d+\.\d % \[\+\d+\.\d, \+\d+\.\d\]", rows[0][head.index("time in NEW")])
    left = say.rest(found)
    assert sum(map(int, re.findall(r"(\d+) [A-Z]", left))) == len(found.pairs) - 10
    assert say.rest(replace(found, pairs=found.pairs[:10])) == ""


def test_explain_says_what_each_verdict_rests_on(tmp_path):
    found = told(tmp_path, run(shape_noise=0.03), run({"csr.c": 1.3}, shape_noise=0.03))
    text = "\n".join(say.explained(found))
    assert len(re.findall(r"^(SLOW|UNSURE|SAME|FAST)  ", text, re.MULTILINE)) == len(found.pairs)
    for part in (
        r"time in NEW  [+-]\d+\.\d % \[.*\], tested at 0\.\d+ % of 5 % \(p = .*\); within 2 % is the same",
        r"base         median \d.* [mun]s, \d.* of what it is compared with; 60 rounds in 1 run$",
        r"in doubt by  0\.\d+ % from rounds, \d+\.\d+ % between runs \((\d+ controls.*|assumed.*)\)",
        r"code         changed; against dense.onednn, dense.torch",
        r"code         the same on both sides; against",
        r"to decide    about \d+ times the runs of both sides \(run --fresh\); more rounds alone would not",
    ):
        assert re.search(part, text, re.MULTILINE), part


def test_rounds_that_would_decide_are_asked_for(tmp_path):
    short = {"rounds": 8, "noise": 0.05}
    text = "\n".join(say.explained(told(tmp_path, run(**short), run(**short))))
    assert re.search(r"to decide    about \d+\.\d times the rounds \(protocol.budget_s\), on both sides", text)


def own_code(record: Record) -> Record:
    """The same record, made by the sources of every other run."""
    return replace(record, source_sha=f"sha of {record.kernel}", key=record.key.removeprefix("other "))


def one_slower(records: Sequence[Record]) -> list[Record]:
    """The same records, the last of them half as fast again, by code that did not change."""
    *others, last = records
    slower = {cache: {**s, last.kernel: [2 * t for t in s[last.kernel]]} for cache, s in last.samples.items()}
    return [*others, replace(last, samples=slower)]


SAMPLES: dict[str, Callable[[], tuple[list[Record], list[Record]]]] = {
    r"1 of the 1 slower kernels have the code they had: it is the machine that changed": lambda: (
        BASE,
        one_slower(NEW),
    ),
    r"the \d+ kernels whose code is the same take \+\d+\.\d % in the median: the machine changed, not they": lambda: (
        BASE,
        [own_code(record) for record in run(dict.fromkeys(RATES, 1.3))],
    ),
    r"other work ran beside NEW: a load of 3.5 beyond its own": lambda: (
        BASE,
        [replace(record, host={"load": 4.5}) for record in NEW],
    ),
    r"the machine was in another state: on \d+ of \d+ pairs the baselines themselves ran at another speed": lambda: (
        BASE,
        run(drift=0.4),
    ),
    r"how far two runs of this machine differ is assumed for \d+ pairs \(4%\): too few": lambda: (
        BASE,
        [recoded(record) for record in NEW],
    ),
    r"differences below \d+% are not seen by runs as far apart as these": lambda: (
        run(noise=0.04, rounds=10),
        run(noise=0.06, rounds=10),
    ),
    r"a change of less than 2 % or 200 ns counts as none": lambda: (BASE, NEW),
}


@pytest.mark.parametrize("text", SAMPLES)
def test_each_doubt_has_its_reason(tmp_path, text):
    found = told(tmp_path, *SAMPLES[text]())
    assert re.match(f"Doubt: {text}", verdict_lines(found)[1]), verdict_lines(found)[1]


def test_the_document_is_json_and_complete(tmp_path):
    base, new = BASE, run({"csr.c": 1.1})
    found = told(tmp_path, base[1:], [*new[:-1], broken(new[-1], "oom", "full")])
    data = json.loads(json.dumps(say.document(found), allow_nan=False))
    assert data["counts"] == {word: sum(p["verdict"] == word for p in data["pairs"]) for word in WORDS}
    assert len(data["pairs"]) == len(base) - 2
    assert (len(data["lost"]), len(data["only_base"]), len(data["only_new"])) == (1, 0, 1)
    assert len(data["verdict"]) == 3
    assert data["apart"]["alike"]["sd"] < ASSUMED_SD["alike"]
    worst = data["pairs"][0]
    assert worst["low"] < worst["ratio"] < worst["high"]
    assert worst["rounds"] == [60, 60]


def test_a_single_round_makes_no_verdict_and_still_a_document(tmp_path):
    found = told(tmp_path, run(rounds=1), run(rounds=1))
    assert words(found) == {"UNSURE"}
    json.dumps(say.document(found), allow_nan=False)
    assert all("\n" not in line for line in verdict_lines(found))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sparsebench(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sparsebench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_command


def test_the_command_exits_1_when_something_got_slower(sparsebench, tmp_path):
    write_results(tmp_path / "base", BASE)
    write_results(tmp_path / "new", run({"csr.c": 1.1}))
    code, out, err = sparsebench("compare", "base", "new")
    assert (code, err) == (1, "")
    assert out.startswith("verdict  kernel")
    answer, doubt, command = out.splitlines()[-3:]
    assert re.match(r"4 of 28 pairs got slower, most of all csr.c on .*; 24 same within 2 %, 0 faster, 0", answer)
    assert doubt.startswith("Doubt: ")
    assert command == "Next: sparsebench compare base new --explain"
    assert sparsebench("compare", "new", "base")[0] == 0


def test_the_command_explains_and_prints_one_document(sparsebench, tmp_path):
    write_results(tmp_path / "base", BASE)
    write_results(tmp_path / "new", NEW)
    code, out, _ = sparsebench("compare", "base", "new", "--explain")
    assert code == 0
    assert "tested at" in out
    assert re.search(r"^ratios of 28 pairs differ by \+0\.\d % in the median, 95 % by less", out, re.MULTILINE)
    assert re.search(r"^seconds of 28 pairs .*; \d+% agree within 3 %$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "Next: sparsebench report --results new"
    code, out, err = sparsebench("compare", "base", "new", "--json")
    assert json.loads(out)["verdict"][0] in err


def test_the_next_command_asks_for_what_would_decide(sparsebench, tmp_path):
    write_results(tmp_path / "base", run(noise=0.2))
    write_results(tmp_path / "new", run(noise=0.2))
    (file,) = (tmp_path / "new").glob("*/*.jsonl")
    for new in ("new", file.parent, file):
        _, out, _ = sparsebench("compare", "base", new)
        assert re.search(r"^Next: `sparsebench run replay --fresh --results \S*new` once more", out, re.MULTILINE)


def test_across_says_what_it_compares(sparsebench, tmp_path):
    write_results(tmp_path / "base", BASE)
    write_results(tmp_path / "new", run(machine="other-cpu-0"))
    code, out, _ = sparsebench("compare", "base", "new", "--across")
    assert code == 0
    assert out.startswith("Speedups over each machine's best baseline are compared, not times: replay-cpu-0a1b2c and")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nowhere", "base"), "nowhere was not found; give a results folder"),
        (("base", "empty"), "no records were found in empty; make some with `sparsebench run SUITE --results empty`"),
        (("base", "torn.jsonl"), r"torn.jsonl:1: not a line of JSON"),
        (("base",), "Missing argument"),
    ],
)
def test_bad_input_is_refused(sparsebench, tmp_path, arguments, message):
    write_results(tmp_path / "base", BASE[:3])
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.jsonl").write_text("{\n")
    code, out, err = sparsebench("compare", *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err), err


def test_times_are_told_as_changes():
    assert units.change(1.031, 1.02, 1.042) == "+3.1 % [+2.0, +4.2]"
    assert units.change(2.0, 0.1, 1e9) == "2.00x [0.100, ...]"
    assert np.isfinite(float(units.change(12.0).rstrip("x")))
