"""`sparsebench trace` as a user meets it: the file or its text, and every mistake in one sentence."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebench.cli import main
from sparsebench.errors import BadInput
from sparsebench.lab import trace_target
from sparsebench.lab.trace import trace
from sparsebench.lab.trace_inputs import DTYPES, Input, parse_inputs
from sparsebench.network import Network

MINE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(3, 4, 3, padding=1)
        self.fc = torch.nn.Linear(4, 5)

    def forward(self, x, scale=None):
        return self.fc(self.conv(x).mT).relu() * 2
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sparsebench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a folder that holds MINE as my_net.py; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    (tmp_path / "my_net.py").write_text(MINE)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sparsebench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_a_module_of_this_folder_becomes_a_file_and_says_what_is_not_in_it(sparsebench: Run, tmp_path: Path) -> None:
    code, out, err = sparsebench("trace", "my_net:Net", "--input", "x=1,3,10", "--out", "mine.yaml")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "Traced on the meta device. One sample is x 1x3x10 float32",
        "1 layer of 20 weights, 200 multiply-adds a sample; 1 kept dense",
        "Left out: conv (1 product, 360 multiply-adds): it is a convolution over a line with padding 1, and a network "
        "pads rows and columns alike",
        "Network: mine.yaml",
        "Next: sparsebench predict mine.yaml --pattern block:16x16 --sparsity 0.9",
    ]
    network = Network.load(tmp_path / "mine.yaml")
    assert (network.name, [layer.name for layer in network.layers]) == ("mine", ["fc"])
    assert network.source.startswith("sparsebench trace my_net:Net --input x=1,3,10 (torch ")
    assert "# Left out: conv (1 product" in (tmp_path / "mine.yaml").read_text()


def test_without_out_the_file_is_what_is_printed(sparsebench: Run, tmp_path: Path) -> None:
    code, out, err = sparsebench("trace", "my_net:Net", "--input", "x=1,3,10")
    assert (code, err) == (0, "")
    (tmp_path / "net.yaml").write_text(out)
    assert Network.load(tmp_path / "net.yaml").name == "Net"


def test_json_is_one_document(sparsebench: Run) -> None:
    code, out, _ = sparsebench("trace", "my_net:Net", "--input", "x=1,3,10", "--json")
    found = json.loads(out)
    assert (code, found["network"], found["file"], found["device"]) == (0, "Net", None, "meta")
    assert found["layers"] == [
        {"name": "fc", "kind": "linear", "m": 5, "k": 4, "n": 10, "calls": 1, "prunable": False, "conv": None}
    ]
    assert (found["macs"], found["weights"], found["weightless"]) == (200, 20, {"products": 0, "macs": 0})
    assert [(each["name"], each["macs"]) for each in found["left_out"]] == [("conv", 360)]


def test_a_file_that_cannot_be_written(sparsebench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparsebench.store.write_atomically", full)
    code, _, err = sparsebench("trace", "my_net:Net", "--input", "x=1,3,10", "--out", "net.yaml")
    assert (code, err) == (2, "--out net.yaml cannot be written: No space left on device; choose another place\n")


MISTAKES = {
    "no colon": (["my_net"], r"trace takes MODULE:CALLABLE, found 'my_net'; write for example"),
    "no module": (["no_such_net:Net"], r"no module is called 'no_such_net', neither installed nor in /.*; mend"),
    "no callable": (["my_net:Ne"], r"my_net has no Ne; did you mean 'Net'\?"),
    "no such name": (["traced:Zoo.mpl"], r"traced has no Zoo\.mpl; did you mean 'mlp'\?"),
    "not callable": (["traced:number"], r"traced:number is a int, and cannot be called; name a function"),
    "needs arguments": (["traced:Needs"], r"traced:Needs needs in_features, out_features, and is called without.*make"),
    "no module comes of it": (["traced:thing"], r"traced:thing must give a torch\.nn\.Module, found a int; return"),
    "raises": (["traced:Raises"], r"traced:Raises could not be made: ValueError: no such checkpoint; mend it"),
    "no input": (["my_net:Net"], r"forward of my_net:Net takes x, scale, and needs x; say .*, such as --input x=1,4"),
    "tokens": (["traced:Shared"], r"needs ids, mask; say .* such as --input ids=1,128:int64 --input mask=1,128:int64"),
    "pixels": (["traced:Pixels"], r"needs x; say the shape of one sample, such as --input x=1,3,224,224"),
    "an unknown input": (["my_net:Net", "--input", "y=1"], r"takes no input 'y'; there are scale, x"),
    "a missing input": (["traced:Shared", "--input", "ids=1,4:int64"], r"takes ids, mask, and needs mask; say"),
    "nothing by name": (["traced:Nameless", "--input", "x=1"], r"takes nothing by name; wrap it in a module"),
    "no sizes": (["my_net:Net", "--input", "x"], r"--input takes NAME=SIZES\[:DTYPE\], found 'x'; write for example"),
    "a size of 0": (["my_net:Net", "--input", "x=1,0"], r"--input takes NAME=SIZES\[:DTYPE\], found 'x=1,0'"),
    "a size of 5000 digits": (["my_net:Net", "--input", "x=" + "9" * 5000], r"--input takes NAME=SIZES"),
    "a dtype": (["my_net:Net", "--input", "x=1:int46"], r"--input x was asked for in 'int46', .* did you mean 'int64'"),
    "an input twice": (["my_net:Net", "--input", "x=1", "--input", "x=2"], r"--input x was given 2 times; give it"),
    "a wrong shape": (
        ["traced:Mlp", "--input", "x=1,7"],
        r"traced:Mlp failed on x 1x7 float32: RuntimeError: .*cannot be multiplied.*; give inputs that fit it",
    ),
    "more than fits": (["traced:Mlp", "--input", "x=2147483647,2147483647,2147483647,8"], r"traced:Mlp failed on x "),
    "no layers": (["traced:Bare", "--input", "x=1,2"], r"traced:Bare has no layer that a network can say; trace a mod"),
    "none that can be said": (["traced:OnlyUp", "--input", "x=1,4,5,5"], r"no layer .* \(up: it is a transposed conv"),
    "no folder": (["my_net:Net", "--input", "x=1,3,10", "--out", "no/net.yaml"], r"--out no/net\.yaml .* no is no f"),
    "a folder": (["my_net:Net", "--input", "x=1,3,10", "--out", "."], r"--out \. was asked for, but it is a folder"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_one_sentence_and_nothing_is_written(mistake: str, sparsebench: Run, tmp_path: Path) -> None:
    arguments, message = MISTAKES[mistake]
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "net.yaml"]
    code, out, err = sparsebench("trace", *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"my_net.py", "__pycache__"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import no_such_package",
            r"broken_net needs the module 'no_such_package', which is not installed; install it",
        ),
        ("1 / 0", r"broken_net cannot be imported: ZeroDivisionError: division by zero; mend it"),
        ("raise SystemExit(2)", r"broken_net cannot be imported: SystemExit: 2; mend it"),
        ("def f(:", r"broken_net cannot be imported: SyntaxError: "),
    ],
)
def test_code_that_cannot_be_imported(code: str, message: str, sparsebench: Run, tmp_path: Path) -> None:
    sys.modules.pop("broken_net", None)
    (tmp_path / "broken_net.py").write_text(code)
    assert re.search(message, sparsebench("trace", "broken_net:Net", "--input", "x=1")[2])


def test_a_network_that_fits_in_no_memory_is_not_tried_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available = 2**30

    monkeypatch.setattr(trace_target.psutil, "virtual_memory", Little)
    message = r"failed on the meta device: .*item.*; on the CPU its weights would take 64\.0 TiB of 1\.00 GiB free, so"
    with pytest.raises(BadInput, match=message):
        trace("traced:Huge", parse_inputs(["x=1,4194304"]))


NAMES = st.from_regex(r"[a-z_]\w{0,9}", fullmatch=True).filter(str.isidentifier)
SHAPES = st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=5).map(tuple)


@given(st.builds(Input, NAMES, SHAPES, st.sampled_from(list(DTYPES))))
def test_any_input_is_read_back(one: Input) -> None:
    assert Input.parse(one.text) == one


def parsed(text: str) -> Input | str:
    """The input, or the sentence that says why there is none; any other exception fails the test."""
    try:
        return Input.parse(text)
    except BadInput as error:
        return str(error)


@given(st.text(max_size=20) | st.from_regex(r"[a-z]?=?[0-9,:x]{0,9}(int64)?", fullmatch=True))
def test_any_text_is_an_input_or_a_sentence(text: str) -> None:
    found = parsed(text)
    assert found.startswith("--input ") if isinstance(found, str) else min(found.shape) >= 1
