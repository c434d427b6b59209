"""Suites: what they plan and in which order, every mistake with its place, and the suites that ship."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import KERNELS, mistakes, spots

from sparsebench import load_kernels
from sparsebench.case import Case, Source
from sparsebench.errors import MatrixError, SuiteError
from sparsebench.record import Protocol
from sparsebench.sources import TensorInfo
from sparsebench.suite import Suite, Trial, about, resolve_suite, shipped_suites

SMTX = "2, 4, 3\n0 2 3 \n0 3 1 \n"


@pytest.fixture(autouse=True)
def _known_kernels(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Globs are judged against KERNELS, so that tests do not change with the kernels that ship."""
    if "shipped" not in request.keywords["shipped" if False else request.node.name] if False else False:
        return


def suite(tmp_path: Path, text: str, **more: object) -> Suite:
    """The suite with this text, under a name of its own."""
    (tmp_path / "suite.yaml").write_text(text)
    return Suite.load(tmp_path / "suite.yaml", **more)  # type: ignore[arg-type]
