"""Numbers for people. Inside the package all is seconds, bytes, flops and fractions; only this module formats them."""

from __future__ import annotations

import math

_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_COUNT = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def three_digits(value: float) -> str:
    """`value` with three significant digits and no exponent.

    >>> three_digits(0.98765), three_digits(12.345), three_digits(1234.5)
    ('0.988', '12.3', '1234')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def seconds(time_s: float) -> str:
    """A time in the unit that suits it.

    >>> seconds(0.00123), seconds(4.5e-7), seconds(83.0)
    ('1.23 ms', '450 ns', '83.0 s')
    """
    if not math.isfinite(time_s):
        return "unknown"
    scale, unit = next(((s, u) for s, u in _TIME if abs(time_s) >= s), _TIME[-1])
    return f"{three_digits(time_s / scale)} {unit}"


def duration(time_s: float) -> str:
    """A waiting time in minutes and seconds.

    >>> duration(42.3), duration(187), duration(7300)
    ('42 s', '3 min 7 s', '2 h 2 min')
    """
    whole = round(time_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(n_bytes: float) -> str:
    """A number of bytes in binary units.

    >>> size(900), size(3 * 2**20)
    ('900 B', '3.00 MiB')
    """
    for scale, unit in _BYTES:
        if abs(n_bytes) >= scale:
            return f"{three_digits(n_bytes / scale)} {unit}"
    return f"{n_bytes:.0f} B"


def rate(per_s: float, unit: str) -> str:
    """A rate in decimal prefixes.

    >>> rate(2.72e11, "FLOP/s"), rate(3.8e10, "B/s")
    ('272 GFLOP/s', '38.0 GB/s')
    """
    for scale, prefix in _COUNT:
        if abs(per_s) >= scale:
            return f"{three_digits(per_s / scale)} {prefix}{unit}"
    return f"{three_digits(per_s)} {unit}"


def percent(fraction: float) -> str:
    """A fraction in percent, without needless digits.

    >>> percent(0.9), percent(0.9375), percent(0.0)
    ('90 %', '93.75 %', '0 %')
    """
    return f"{100 * fraction:.4g} %"


def ratio(middle: float, low: float, high: float) -> str:
    """A ratio with its interval, as every report prints it.

    >>> ratio(1.312, 1.1, 1.5)
    '1.31x [1.10, 1.50]'
    """
    return f"{three_digits(middle)}x [{three_digits(low)}, {three_digits(high)}]"


def change(ratio: float, low: float | None = None, high: float | None = None) -> str:
    """How much more a time is than another, with its interval if there is one; beyond threefold as a factor.

    >>> change(1.031, 1.02, 1.042), change(0.9), change(12.0)
    ('+3.1 % [+2.0, +4.2]', '-10.0 %', '12.0x')
    """
    if low is None or high is None:
        return f"{three_digits(ratio)}x" if ratio > 3 else f"{100 * (ratio - 1):+.1f} %"
    if high > 3:
        return f"{three_digits(ratio)}x [{three_digits(low)}, {three_digits(high) if high < 1e3 else '...'}]"
    return f"{100 * (ratio - 1):+.1f} % [{100 * (low - 1):+.1f}, {100 * (high - 1):+.1f}]"
