"""Kernels that only need names, and a way to write a suite, network or plan and read back what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsebench import FORMATS, Kernel
from sparsebench.errors import SuiteError
from sparsebench.suite import Suite

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


def spots(marked: str) -> tuple[str, list[str]]:
    """A text without its marks (^ stands before each place that is wrong), and those places as line:column.

    >>> spots("a: ^1")
    ('a: 1', ['1:4'])
    """
    places = [marked[: at.start()].replace("^", "") for at in re.finditer(r"\^", marked)]
    return marked.replace("^", ""), [f"{before.count(chr(10)) + 1}:{len(before.split(chr(10))[-1]) + 1}" for before in places]


def mistakes(load: Callable[[Path], object], path: Path, text: str | bytes) -> list[str]:
    """What `load` says about a file with this text: one entry a line, without the file's name."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SuiteError) as caught:
        load(path)
    return str(caught.value).replace(f"{path}:", "").splitlines()


def suite(tmp_path: Path, text: str, **more: Any) -> Suite:
    """The suite with this text, in a file suite.yaml."""
    (tmp_path / "suite.yaml").write_text(text)
    return Suite.load(tmp_path / "suite.yaml", **more)
