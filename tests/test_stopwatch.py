"""Where a run's time goes: parts exclude each other, and add up."""

from __future__ import annotations

import pytest

from sparsebench.lab.stopwatch import Stopwatch


class Clock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def __call__(self) -> float:
        return self.time_s


def test_a_part_within_another_is_not_counted_twice():
    clock = Clock()
    watch = Stopwatch(clock)
    clock.time_s = 5  # before any part: nobody's
    with watch.part("pack"):
        clock.time_s += 1
        with watch.part("build"):
            clock.time_s += 10
        clock.time_s += 2
    clock.time_s += 7
    with watch.part("build"):
        clock.time_s += 1
    assert watch.take() == {"pack": 3, "build": 11}
    assert watch.take() == {}


def test_a_part_that_raises_is_counted_and_closed():
    clock = Clock()
    watch = Stopwatch(clock)

    def planted() -> None:
        with watch.part("check"):
            clock.time_s += 2
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        planted()
    clock.time_s += 9
    assert watch.take() == {"check": 2}


def test_what_is_open_is_counted_up_to_now():
    clock = Clock()
    watch = Stopwatch(clock)
    with watch.part("clock"):
        clock.time_s += 2
        assert watch.take() == {"clock": 2}
        clock.time_s += 3
    assert watch.take() == {"clock": 3}
