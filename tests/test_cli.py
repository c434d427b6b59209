"""The command line as a user meets it: answers, exit codes, one message for bad input and nothing written."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsebench import __version__
from sparsebench.cli import main
from sparsebench.lab import build

GOOD = """
name: small
protocol: {cache: [hot], budget_s: 0.02, precision: 0.05}
problems:
  - {m: 32, k: 48, n: [4, 16], dtype: float32}
  - {m: 64, k: 48, n: [4, 16], dtype: float32}
arms:
  - {pattern: unstructured, sparsity: [0.5, 0.8, 0.9], kernels: ["csr.scipy", "csr.torch"]}
"""


@pytest.fixture
def sparsebench(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sparsebench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def wrote(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_version_and_help(sparsebench):
    assert sparsebench("--version") == (0, f"sparsebench {__version__}\n", "")
    code, out, _ = sparsebench("--help")
    assert code == 0
    reading = ("fit", "predict", "advise", "compare", "report", "export", "list")
    for command in ("quick", "run", "verify", "trace", "doctor", "worker", *reading):
        assert re.search(rf"^  {command} ", out, re.MULTILINE)


def test_the_whole_line_from_suite_to_report(sparsebench, tmp_path):
    """run -> fit -> predict -> report, then run again: everything is done already."""
    suite = tmp_path / "small.yaml"
    suite.write_text(GOOD)
    network = tmp_path / "net.yaml"
    layers = "".join(f"  - {{name: layer{i}, kind: linear, m: {32 + 32 * i}, k: 48, n: 4}}\n" for i in range(2))
    network.write_text(f"name: net\nsource: a test\nlayers:\n{layers}")

    code, out, err = sparsebench("run", suite, "--device", "cpu")
    assert code == 0, out + err
    assert "small: " in err
    assert "trials" in err
    summary = next(line for line in out.splitlines() if "-> results" in line)
    assert re.match(r"\d+ trials: \d+ ok -> results/.*/small.jsonl$", summary)
    assert len([line for line in out.splitlines() if line]) >= 4, "summary, verdict, doubt and next command"

    code, out, _ = sparsebench("run", suite, "--device", "cpu", "--json")
    again = json.loads(out)
    assert again["suites"][0]["kept"] == sum(again["suites"][0]["outcomes"].values())
    assert len(again["verdict"]) == 3

    code, out, _ = sparsebench("fit", "--json")
    (found,) = json.loads(out)["fits"]
    assert Path(found["model"]).is_file()
    assert found["errors"]

    code, out, _ = sparsebench("predict", network, "--pattern", "unstructured", "--sparsity", "0.8", "--json")
    predicted = json.loads(out)
    assert code == 0
    assert [layer["layer"] for layer in predicted["layers"]] == ["layer0", "layer1"]
    by_model = sparsebench(
        "predict", network, "--pattern", "unstructured", "--sparsity", "0.8", "--json", "--model", found["model"]
    )
    assert json.loads(by_model[1])["layers"][0]["time_s"] == pytest.approx(predicted["layers"][0]["time_s"])

    code, out, _ = sparsebench("report", "--json")
    page = Path(json.loads(out)["report"])
    assert code == 0
    assert page.name == "report.html"
    assert page.with_name("report.md").is_file()


def test_predict_says_layers_only_and_a_missing_model_raises(sparsebench, tmp_path):
    (tmp_path / "small.yaml").write_text(GOOD)
    assert sparsebench("run", "small.yaml", "--device", "cpu")[0] == 0
    code, _, err = sparsebench("predict", "vit-b16", "--pattern", "block:16x16", "--sparsity", "0.9")
    assert code == 2
    assert "no model says how long" in err
    assert "sparsebench run" in err


def test_dry_run_says_how_many_and_how_long_and_writes_nothing(sparsebench, tmp_path):
    (tmp_path / "small.yaml").write_text(GOOD)
    code, out, _ = sparsebench("run", "small.yaml", "--device", "cpu", "--dry-run")
    assert code == 0
    assert re.search(r"small: \d+ trials on \S+, at most about \d+ s", out)
    assert wrote(tmp_path) == ["small.yaml"]


@pytest.mark.parametrize("what", ["kernels", "formats", "patterns", "suites", "networks"])
def test_list(sparsebench, what):
    code, out, _ = sparsebench("list", what, "--json")
    assert code == 0
    assert json.loads(out)[what]
    code, out, _ = sparsebench("list", what)
    assert len(out.splitlines()) > 3


def test_list_machines_of_missing_results(sparsebench):
    code, _, err = sparsebench("list", "machines")
    assert code == 2
    assert "was not found" in err


def test_doctor_finds_this_machine_and_checks_the_clock(sparsebench):
    code, out, _ = sparsebench("doctor", "--json")
    found = json.loads(out)
    assert found["machine"]["id"]
    assert found["wrong"] == []
    assert code == (0 if found["healthy"] else 1)


def test_a_wrong_kernel_makes_exit_code_1(sparsebench, tmp_path):
    plugin = Path(__file__).parent / "plugins" / "faulty.py"
    (tmp_path / "small.yaml").write_text(GOOD.replace('"csr.scipy", "csr.torch"', '"fault.silent"'))
    code, out, err = sparsebench("run", "small.yaml", "--device", "cpu", "--plugin", plugin)
    assert code == 1
    assert "wrong: fault.silent" in err
    assert "wrong" in out


def test_without_a_compiler_the_rest_runs_and_the_first_lines_say_so(sparsebench, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    (tmp_path / "small.yaml").write_text(GOOD.replace('"csr.torch"', '"csr.c"'))
    code, out, err = sparsebench("run", "small.yaml", "--device", "cpu")
    assert code == 0, err
    assert out.startswith("No C compiler: kernels written in C will be skipped")
    assert "install gcc" in out
    code, out, _ = sparsebench("report", "--json")
    first = Path(json.loads(out)["report"]).with_name("report.md").read_text()[:1500]
    assert "C compiler" in first
    assert "install gcc" in first
    monkeypatch.undo()
    assert build.missing_need("cc") is None


# Bad input: exit code 2, one message, nothing written -------------------------------------------------------------

SUITES = {
    "unknown key": ("seed: [0]", r"bad\.yaml:2:1: .*seed.*did you mean.*seeds"),
    "wrong type": ("seeds: {a: 1}", r"bad\.yaml:2:\d+: "),
    "a second mistake": ("seed: [0]\nabout: [1]", r"bad\.yaml:2:1: (.|\n)*bad\.yaml:3:\d+: "),
}
ARMS = {
    "sparsity 1.2": ("sparsity: [0.5, 0.8, 0.9]", "sparsity: 1.2", r"bad\.yaml:\d+:\d+: .*1\.2"),
    "a block of 0": ("pattern: unstructured", "pattern: block, block: [0, 4]", r"bad\.yaml:\d+:\d+: .*0"),
    "levels that do not divide": (
        "pattern: unstructured, sparsity: [0.5, 0.8, 0.9]",
        "pattern: hierarchical, levels: [{block: [4, 1], sparsity: 0.5}, {block: [3, 1], sparsity: 0.5}]",
        r"bad\.yaml:\d+:\d+: .*divide",
    ),
    "unknown kernel": (
        '"csr.scipy", "csr.torch"',
        '"csr.scipi"',
        r"bad\.yaml:\d+:\d+: .*csr\.scipi.*did you mean.*csr\.scipy",
    ),
    "empty product": ("n: [4, 16]", "n: []", r"bad\.yaml:\d+:\d+: "),
}


def refused(sparsebench, tmp_path: Path, text: str, message: str, *options: object) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    before = wrote(tmp_path)
    code, out, err = sparsebench("run", "bad.yaml", "--device", "cpu", *options)
    assert (code, out) == (2, ""), err
    assert re.search(message, err), err
    assert "Traceback" not in err
    assert wrote(tmp_path) == before


@pytest.mark.parametrize("mistake", SUITES)
def test_a_suite_with_a_wrong_key_is_refused(sparsebench, tmp_path, mistake):
    line, message = SUITES[mistake]
    refused(sparsebench, tmp_path, GOOD.lstrip().replace("name: small\n", f"name: small\n{line}\n"), message)


@pytest.mark.parametrize("mistake", ARMS)
def test_a_suite_with_a_wrong_value_is_refused(sparsebench, tmp_path, mistake):
    before, after, message = ARMS[mistake]
    assert before in GOOD
    refused(sparsebench, tmp_path, GOOD.replace(before, after), message)


SMTX = {
    "truncated": ("2, 3, 2\n0 1 2\n0\n", r"a\.smtx:3: "),
    "no third line": ("2, 3, 2\n0 1 2", r"a\.smtx:3: |a\.smtx:2: "),
    "offsets that fall": ("2, 3, 2\n0 2 1\n0 1\n", r"a\.smtx:2: "),
    "index out of range": ("2, 3, 2\n0 1 2\n0 3\n", r"a\.smtx:3: "),
    "duplicate index": ("2, 3, 2\n0 2 2\n1 1\n", r"a\.smtx:3: "),
    "not a number": ("2, 3, x\n0 2 2\n1 1\n", r"a\.smtx:1: "),
}
FILES = """name: files
problems: [{{{kind}: "{glob}", n: 4, dtype: float32}}]
arms: [{{pattern: file, kernels: ["csr.scipy"]}}]
"""


@pytest.mark.parametrize("mistake", SMTX)
def test_a_broken_smtx_is_refused_with_file_and_line(sparsebench, tmp_path, mistake):
    text, message = SMTX[mistake]
    (tmp_path / "a.smtx").write_text(text)
    refused(sparsebench, tmp_path, FILES.format(kind="matrices", glob="*.smtx"), message)


def test_nan_weights_are_refused(sparsebench, tmp_path):
    weights = np.ones((4, 4), np.float32)
    weights[1, 2] = np.nan
    np.savez(tmp_path / "w.npz", layer=weights)
    refused(sparsebench, tmp_path, FILES.format(kind="weights", glob="w.npz"), r"w\.npz.*layer.*(?i:nan)")


class Planted:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_where_a_pth_should_be_is_refused_and_never_run(sparsebench, tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Planted()))
    refused(sparsebench, tmp_path, FILES.format(kind="weights", glob="w.pth"), r"w\.pth")
    assert not (tmp_path / "executed").exists()


def test_a_glob_without_a_match_is_refused(sparsebench, tmp_path):
    refused(sparsebench, tmp_path, FILES.format(kind="matrices", glob="*.smtx"), r"bad\.yaml:2:\d+: no file matches")


def test_results_that_cannot_be_written_are_refused(sparsebench, tmp_path):
    (tmp_path / "taken").write_text("a file")
    refused(sparsebench, tmp_path, GOOD, "choose another", "--results", tmp_path / "taken")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("run", "no-such-suite"), "no-such-suite.*neither a file"),
        (("run", "quick", "--device", "tpu"), "--device must be auto, cpu or cuda, found 'tpu'"),
        (("run", "quick", "--kernels", "nope.*"), "nope"),
        (("run", "quick", "--plugin", "nope.py"), "nope.py was not found"),
        (("predict", "no-such-network", "--pattern", "unstructured", "--sparsity", "0.9"), "no-such-network.*neither"),
        (("predict", "vit-b16"), "either --plan FILE or --pattern P"),
        (("predict", "vit-b16", "--pattern", "blok:4x1", "--sparsity", "0.9"), "names no pattern"),
        (("predict", "vit-b16", "--pattern", "block", "--sparsity", "0.9"), "does not say what block needs"),
        (("predict", "vit-b16", "--pattern", "block:4x1", "--sparsity", "1.5"), "sparsity must be in"),
        (("predict", "vit-b16", "--pattern", "block:4x1", "--sparsity", "0", "--model", "no.json"), "no.json cannot"),
        (("predict", "vit-b16", "--plan", "no.yaml"), "no.yaml"),
        (("fit",), "results.*was not found"),
        (("report",), "results.*was not found"),
        (("list", "everything"), "everything"),
        (("frobnicate",), "frobnicate"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(sparsebench, tmp_path, arguments, message):
    code, out, err = sparsebench(*arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert wrote(tmp_path) == []


def test_ctrl_c_keeps_what_is_stored(tmp_path):
    code = "import sparsebench.cli as cli\ndef app(): raise KeyboardInterrupt\ncli.app = app\ncli.main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 130
    assert "every finished trial is stored" in ended.stderr
