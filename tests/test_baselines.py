"""Which dense kernels are timed beside a problem's trials, and what is timed once more with the winner."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sparsebench.case import Case, Conv
from sparsebench.lab.baselines import name_baselines, screen
from sparsebench.lab.bench import AA
from sparsebench.lab.wire import Answer, CheckDense
from sparsebench.record import Protocol
from sparsebench.suite import Trial

CACHE = "weights_cold"
GEMM = Case(m=16, k=72, n=16)
CONVOLUTION = Case(m=16, k=72, n=16, op="conv2d", conv=Conv(8, 4, 4, 3, 3, padding=1))
LEDGER = SimpleNamespace(protocol=Protocol(), sha=lambda name: f"sha of {name}")
ALL_TOGETHER, WITH_A_TWIN = 12, 24  # rounds of the pretend device


class Device:
    """Always the same seconds; `again` are the kernels that it timed together with a twin of the first."""

    def __init__(self, usual_s, layout_s):
        self.usual_s, self.layout_s, self.again = usual_s, layout_s, None

    def ask(self, request):
        if isinstance(request, CheckDense):
            return Answer("ok", facts={"layout_s": {request.kernel: self.layout_s.get(request.kernel, 0.0)}}), ""
        seconds = {name: self.usual_s[name] for name in request.kernels}
        if request.twin:
            self.again = list(request.kernels)
            seconds[AA] = seconds[self.again[0]]
        rounds = WITH_A_TWIN if request.twin else ALL_TOGETHER
        samples = {CACHE: {name: [time_s] * rounds for name, time_s in seconds.items()}}
        told = {"samples": samples, "wrong": {}, "error_ratios": {}, "stop": "precision", "clocks": {}, "flags": []}
        return Answer("ok", facts=told), ""


def rounds_of_records(device, case):
    """How many rounds each dense kernel's record holds, and the named baselines."""
    found, named = {}, []

    def finish(baselines, answers):
        named[:] = baselines
        for trial, answer in answers:
            assert set(answer.facts["samples"][CACHE]) >= {trial.kernel, *baselines}
            found[trial.kernel] = len(answer.facts["samples"][CACHE][trial.kernel])

    screen([Trial(case, name) for name in device.usual_s], LEDGER, device.ask, finish)
    return found, named


def test_named_baselines_are_at_most_two_within_3_percent():
    assert name_baselines({"a": 1.0, "b": 1.02, "c": 1.01, "d": 2.0}, {}) == ["a", "c"]


def test_a_trial_has_two_beside_it_in_every_run():
    """Whether a second is within 3 % is chance, and what streams between two calls of a kernel counts."""
    assert name_baselines({"a": 1.0, "b": 1.04, "c": 1.05}, {}) == ["a", "b"]
    assert name_baselines({"a": 1.0, "b": 1.5, "c": 1.04}, {"a": 0.7, "c": 0.7}) == ["a", "b"], "the fastest in all"
    assert name_baselines({"a": 1.0}, {}) == ["a"]


def test_the_fastest_with_its_layout_change_is_named_too():
    """`speedup_total` is over it: of 108 problems of a sweep it was not among the two in 10, by up to 3.2 times."""
    usual_s = {"a": 1.0, "b": 1.02, "c": 1.5, "d": 2.0}
    assert name_baselines(usual_s, {"a": 0.9, "b": 0.9}) == ["a", "b", "c"]
    assert name_baselines(usual_s, {"a": 0.9, "b": 0.1}) == ["a", "b"]
    assert name_baselines(usual_s, {"a": 0.5, "b": 0.6}) == ["a", "b"], "equal to one that is named"


@pytest.mark.parametrize(
    ("layout_s", "also"),
    [({"c": 0.9, "d": 0.9}, "c"), ({"a": 0.1, "b": 0.1, "d": 0.1}, "c"), ({}, None), ({"b": 0.1}, None)],
    ids=["none named turns images", "all named turn images", "no kernel does", "one of each is named"],
)
def test_the_fastest_convolution_of_the_other_layout_is_timed_again(layout_s, also):
    device = Device({"a": 1.0, "b": 1.01, "c": 1.5, "d": 1.6}, layout_s)
    rounds, named = rounds_of_records(device, CONVOLUTION)
    assert named == ["a", "b"]
    assert device.again == ["a", "b", *([also] if also else [])]
    assert [name for name, count in rounds.items() if count == WITH_A_TWIN] == ["a", *([also] if also else [])]


def test_products_have_no_images_to_lay_out():
    device = Device({"a": 1.0, "b": 1.01, "c": 1.5}, {"c": 0.9})
    rounds_of_records(device, GEMM)
    assert device.again == ["a", "b"]
