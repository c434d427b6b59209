"""A problem of many trials is not finished at once: devices come back to it; nothing is asked twice."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
from fake_devices import Bout, Device, stored

from sparsebench.lab.session import work
from sparsebench.lab.wire import Lost, Measure
from sparsebench.suite import Suite

SUITE = """
name: small
problems: [{{m: 32, k: 48, n: {n}, dtype: [float32]}}]
arms: [{{pattern: unstructured, sparsity: {sparsities}, kernels: [csr.scipy, csr.torch]}}]
"""


def suite(folder: Path, n: list[int], sparsities: int) -> Suite:
    """A problem for each n, with two kernels at each of so many sparsities."""
    path = folder / "small.yaml"
    path.write_text(SUITE.format(n=n, sparsities=[round(0.5 + i / 100, 2) for i in range(sparsities)]))
    return Suite.load(path)


def measured(device: Device) -> list[tuple[int, float | None]]:
    """(n, sparsity) of each sparse trial, in the order in which it was asked."""
    return [(asked.case.n, asked.case.sparsity) for asked, _ in device.asked if isinstance(asked, Measure)]


def visits(device: Device) -> list[tuple[int, int]]:
    """(n, trials) of each visit."""
    return [(n, len(list(group))) for n, group in groupby(n for n, _ in measured(device))]


def test_problems_take_turns_until_all_are_done(tmp_path):
    device = Device()
    with Bout(suite(tmp_path, [4, 8, 16], 20), tmp_path / "results") as docket:
        work(docket, device)
        assert docket.done
    turns = visits(device)
    assert [n for n, _ in turns] == [4, 8, 16] * 5
    assert {trials for _, trials in turns} == {8}  # 40 trials in at most 6 visits, of whole cases
    assert len(measured(device)) == 3 * 40
    assert len({record.key for record in stored(tmp_path / "results")}) == len(stored(tmp_path / "results"))


def test_kernels_of_one_case_are_timed_in_one_visit(tmp_path):
    device = Device()
    with Bout(suite(tmp_path, [4, 8], 13), tmp_path / "results") as docket:
        work(docket, device)
    asked = measured(device)
    assert asked[::2] == asked[1::2]
    assert len(set(asked)) == 26


def test_a_small_problem_is_finished_at_once(tmp_path):
    device = Device()
    with Bout(suite(tmp_path, [4, 8], 2), tmp_path / "results") as docket:
        work(docket, device)
    assert visits(device) == [(4, 4), (8, 4)]


@pytest.mark.parametrize("breaks_at", [3, 9, 17])
def test_a_visit_that_is_cut_short_goes_on_where_it_was(tmp_path, breaks_at):
    def leaves(request, alone):
        if isinstance(request, Measure) and len(measured(first)) == breaks_at:
            raise Lost("gone")

    first, second = Device(leaves), Device()
    with Bout(suite(tmp_path, [4, 8], 6), tmp_path / "results") as docket:
        with pytest.raises(Lost):
            work(docket, first)
        work(docket, second)
        assert docket.done
    assert measured(first)[-1] == measured(second)[0]  # what was under way is asked again, and first
    assert len(measured(first)[:-1] + measured(second)) == 24
    assert len(set(measured(first) + measured(second))) == 12
