"""Kernels that only need names, and a way to write a suite, network or plan and read back what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sparsebench import FORMATS, Kernel
from sparsebench.errors import BadInput, SuiteError
from sparsebench.sources import TensorInfo
from sparsebench.suite import Suite, Trial

T = TypeVar("T")
SHA = {"a.smtx": "a" * 64, "b.smtx": "b" * 64, "w.npz": "c" * 64}
SMTX = "2, 4, 3\n0 2 3 \n0 3 1 \n"


def kernel(name: str, **more: Any) -> Kernel:
    """A kernel that can be planned, not run; its format is the first part of its name."""
    return Kernel(name=name, format=FORMATS[name.split(".")[0]], prepare=lambda *_: None, about="", source="", **more)


KERNELS = {
    each.name: each
    for each in (
        kernel("bsr.c"),
        kernel("bsr.cuda", devices=("cuda",)),
        kernel("condensed.c"),
        kernel("csr.c"),
        kernel("csr.torch"),
        kernel("dense.conv", ops=("conv2d",)),
        kernel("dense.one"),
        kernel("dense.two"),
        kernel("hbs.c"),
        kernel("rbgp4.c"),
    )
}


def told(name: str) -> list[Any]:
    """The mistakes of mistakes/NAME.txt, each as pytest's parameters (text with marks, start of the message).

    A blank line stands between two of them; the first line is `# id`, the last `! message`, the YAML between them.
    """
    blocks = (Path(__file__).parent / "mistakes" / f"{name}.txt").read_text().strip().split("\n\n")
    return [
        pytest.param("\n".join(lines[1:-1]), lines[-1].removeprefix("! "), id=lines[0].removeprefix("# "))
        for lines in (block.split("\n") for block in blocks)
    ]


def spots(marked: str) -> tuple[str, list[str]]:
    """A text without its marks (^ stands before each place that is wrong), and those places as line:column.

    >>> spots("a: ^1")
    ('a: 1', ['1:4'])
    """
    places = [marked[: at.start()].replace("^", "") for at in re.finditer(r"\^", marked)]
    return marked.replace("^", ""), [
        f"{before.count(chr(10)) + 1}:{len(before.split(chr(10))[-1]) + 1}" for before in places
    ]


def mistakes(load: Callable[[Path], object], path: Path, text: str | bytes) -> list[str]:
    """What `load` says about a file with this text: one entry a line, without the file's name."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SuiteError) as caught:
        load(path)
    return str(caught.value).replace(f"{path}:", "").splitlines()


def survived(call: Callable[[], T], path: Path) -> T | None:
    """What `call` returns, or None where it refuses its input with a message that names `path`."""
    try:
        return call()
    except BadInput as error:
        message = str(error)
    assert str(path) in message
    return None


def suite(tmp_path: Path, text: str, **more: Any) -> Suite:
    """The suite with this text, in a file suite.yaml."""
    (tmp_path / "suite.yaml").write_text(text)
    return Suite.load(tmp_path / "suite.yaml", **more)


def inspect(path: Path, tensors: str = "*") -> list[TensorInfo]:
    """Two masks of one shape, and a file with two weights and a mask; of these what the glob `tensors` chooses."""
    if path.suffix == ".smtx":
        return [TensorInfo(None, 8, 16, "mask", SHA[path.name])]
    weights: list[tuple[str, int, int, Any]] = [
        ("one", 8, 16, "weights"),
        ("two", 4, 4, "weights"),
        ("mask", 4, 4, "mask"),
    ]
    chosen = [entry for entry in weights if fnmatchcase(entry[0], tensors)]
    return [TensorInfo(name, m, k, kind, SHA[path.name]) for name, m, k, kind in chosen]


def planned(tmp_path: Path, problems: str, arms: str, top: str = "", **more: Any) -> list[Trial]:
    """The trials of problems x arms, with files a.smtx, b.smtx and w.npz in the folder."""
    for name in SHA:
        (tmp_path / name).touch()
    text = f"name: a\n{top}problems:\n{listed(problems)}arms:\n{listed(arms)}"
    return suite(tmp_path, text).trials(KERNELS, inspect, **more)


def listed(entries: str) -> str:
    return "".join(f"  - {{{entry.strip()}}}\n" for entry in entries.strip().splitlines())


def sparse(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.case.pattern != "dense"]
