"""What happened: one trial makes exactly one record, whatever happens. Times exist only on ok.

History of the schema (bump SCHEMA, add a line and a file in tests/golden/ for every change of a field):

    1  2026-11  the first. Beyond the fields of the contract it keeps `baselines` {kernel name: source_sha} (the key is
                hashed from them) and `facts` (what the pattern certifies, what really ran).
    2  2026-11  case.kind: `rest` for a record of a whole network (rest.py). Left out where it is `layer`, which every
                record of schema 1 is, so that no key of theirs changes and they load as they are.
"""

from __future__ import annotations

import json
import math
import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np

# orjson: JSON at ten times the speed of the standard library's and twice that of pydantic_core's; it knows no NaN.
import orjson

from sparsebench.case import Case, canonical, case_data, digest
from sparsebench.errors import StoreError
from sparsebench.paired import Ratio, median, paired_ratio

SCHEMA = 2

Outcome = Literal["ok", "skipped", "wrong", "failed", "crashed", "oom", "timeout"]
Cache = Literal["hot", "weights_cold", "cold"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
BROKEN = frozenset({"wrong", "failed", "crashed", "oom", "timeout"})
MISSING_NEED = "needs "  # a skip whose reason starts so is tried again: what is missing may be installed by then

Samples = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a trial is timed: cache states, threads, and when to stop."""

    cache: tuple[str, ...] = ("weights_cold",)
    threads: int = 1
    budget_s: float = 2.0
    precision: float = 0.01

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Protocol:
        """The protocol that asdict wrote."""
        return cls(**{**data, "cache": tuple(data["cache"])})


@dataclass(frozen=True, kw_only=True)
class Record:
    """The one result of a trial. Fields are plain JSON data, save `case` and `protocol`.

    samples   {cache: {kernel name: [seconds, ...]}}, as arrays of doubles; entry i of every one is round i; the
              baselines are in it
    layout_s  {kernel name: seconds to bring X from the case's layout to its own and Y back}; 0 where they agree
    baselines {kernel name: source_sha} of the named baselines timed beside this kernel
    pack_s    seconds from the dense matrix to a kernel ready to launch
    error_ratio  largest |error| over its allowance, of both precision gates; above 1 the outcome is wrong
    """

    key: str
    suite: str
    case: Case
    kernel: str
    source_sha: str
    machine: str
    protocol: Protocol
    outcome: Outcome
    reason: str = ""
    baselines: Mapping[str, str] = field(default_factory=dict)
    nnz: int | None = None
    format_bytes: int | None = None
    moved_bytes: int | None = None
    useful_flops: int | None = None
    peak_memory_bytes: int | None = None
    samples: Samples = field(default_factory=dict)
    layout_s: Mapping[str, float] = field(default_factory=dict)
    pack_s: float | None = None
    error_ratio: float | None = None
    stop: Literal["precision", "budget"] | None = None
    flags: Sequence[str] = ()
    clocks: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    started_at: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        object.__setattr__(self, "flags", tuple(self.flags))
        # A quarter of the memory of lists of floats: most of a record is samples, and a store holds millions of them.
        arrays = {
            cache: {kernel: _seconds(kernel, cache, times_s) for kernel, times_s in by_name.items()}
            for cache, by_name in self.samples.items()
        }
        object.__setattr__(self, "samples", arrays)
        if self.outcome not in OUTCOMES:
            raise StoreError(f"outcome must be one of {', '.join(OUTCOMES)}, found {self.outcome!r}")
        if self.outcome != "ok" and self.samples:
            raise StoreError(f"a record with outcome {self.outcome} carries times; times exist only on ok")

    @property
    def final(self) -> bool:
        """Whether the trial need not run again: ok, wrong, or skipped by a limit rather than a missing need."""
        return self.outcome in ("ok", "wrong") or (
            self.outcome == "skipped" and not self.reason.startswith(MISSING_NEED)
        )

    @property
    def sparsity(self) -> float | None:
        """The achieved sparsity, 1 - nnz / (m k)."""
        return None if self.nnz is None else 1 - self.nnz / (self.case.m * self.case.k)

    def times_s(self, cache: str | None = None, kernel: str | None = None) -> Sequence[float]:
        """Seconds of each round, of this kernel and the protocol's first cache unless said; may be empty."""
        return self.samples.get(cache or self.protocol.cache[0], {}).get(kernel or self.kernel, ())

    def median_s(self, cache: str | None = None, kernel: str | None = None) -> float | None:
        """Median time in seconds, or None where there are no times."""
        times_s = self.times_s(cache, kernel)
        return median(times_s) if len(times_s) else None

    def best_baseline(self, cache: str | None = None, *, total: bool = False) -> str | None:
        """The named baseline with the least median time in these rounds, layout change included when `total`."""

        def cost_s(name: str) -> float:
            return (self.median_s(cache, name) or math.inf) + (self.layout_s.get(name, 0.0) if total else 0.0)

        if len(self.baselines) < 2:  # most have one, whose median nobody needs
            return next(iter(self.baselines), None)
        return min(self.baselines, key=cost_s)

    def speedup(self, cache: str | None = None, *, total: bool = False) -> Ratio | None:
        """How many times faster than the best baseline, paired by round; None where there are no times.

        Each kernel runs in its native layout; `total` adds both sides' layout change, which is the headline.
        """
        baseline = self.best_baseline(cache, total=total)
        if baseline is None or not (own_s := self.times_s(cache)) or not (base_s := self.times_s(cache, baseline)):
            return None
        extra = self.layout_s if total else {}
        return paired_ratio(
            np.add(base_s, extra.get(baseline, 0.0)).tolist(), np.add(own_s, extra.get(self.kernel, 0.0)).tolist()
        )

    def to_json(self) -> str:
        """This record as one line of JSON; ValueError rather than NaN or Infinity."""
        data = asdict(self)
        case_data(data["case"])
        return json.dumps(data, allow_nan=False, separators=(",", ":"), default=array.tolist)

    @classmethod
    def from_json(cls, line: str | bytes) -> Record:
        """The record that `to_json` wrote, of this or an earlier schema; StoreError says what is wrong."""
        try:
            data = orjson.loads(line)
        except ValueError as error:
            told = "; NaN is not allowed in a record, null stands for an unknown number" if _names_nan(line) else ""
            raise StoreError(f"not a line of JSON: {error}{told}") from None
        if not isinstance(data, dict):
            raise StoreError(f"a record is a JSON object, found {type(data).__name__}")
        schema = data.get("schema")
        if schema not in range(1, SCHEMA + 1):
            raise StoreError(
                f"schema {schema!r} is not one of 1..{SCHEMA}; a newer sparsebench wrote it, or it is no record"
            )
        try:
            if not _well_typed(tuple(data), tuple(map(type, data.values()))):
                _refuse_other_types(data)
            data["case"], data["protocol"] = _CASES.read(data["case"]), _PROTOCOLS.read(data["protocol"])
            return cls._of(data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(f"not a record of schema {schema}: {type(error).__name__}: {error}") from None

    @classmethod
    def _of(cls, data: dict[str, Any]) -> Record:
        """The record whose fields are `data`, which it keeps.

        A frozen dataclass assigns its fields one by one, which takes as long as parsing them did: this does it at once.
        """
        if data.keys() != cls.__dataclass_fields__.keys():
            return cls(**data)  # a line of an earlier schema, or one too few or too many
        record = object.__new__(cls)
        object.__setattr__(record, "__dict__", data)
        record.__post_init__()
        return record


T = TypeVar("T")


class _Last(Generic[T]):
    """What `read` made of the last JSON it saw, given again where the next is the same: lines come sorted by case."""

    def __init__(self, read: Callable[[Mapping[str, Any]], T]) -> None:
        self._read = read
        self._last: tuple[Any, T | None] = None, None

    def read(self, data: Mapping[str, Any]) -> T:
        """What `data` stands for."""
        seen, made = self._last
        if made is None or seen != data:
            made = self._read(data)
            self._last = data, made
        return made


_CASES, _PROTOCOLS = _Last(Case.from_json), _Last(Protocol.from_json)
_NONE = type(None)
_MAPPINGS = ("case", "protocol", "baselines", "samples", "layout_s", "clocks", "facts", "versions", "host")
# What each field must hold, for lines that something else wrote or a disk broke; a wrong type names its field. JSON has
# no subtypes, so that types are compared, not asked: a store holds a hundred thousand lines.
_TYPES: Mapping[str, frozenset[type]] = {
    **dict.fromkeys(
        ("key", "suite", "kernel", "source_sha", "machine", "outcome", "reason", "started_at"), frozenset({str})
    ),
    **dict.fromkeys(_MAPPINGS, frozenset({dict})),
    **dict.fromkeys(
        ("nnz", "format_bytes", "moved_bytes", "useful_flops", "peak_memory_bytes"), frozenset({int, _NONE})
    ),
    **dict.fromkeys(("pack_s", "error_ratio"), frozenset({int, float, _NONE})),
    "stop": frozenset({str, _NONE}),
    "flags": frozenset({list}),
    "schema": frozenset({int}),
}


@lru_cache(maxsize=256)
def _well_typed(names: tuple[str, ...], types: tuple[type, ...]) -> bool:
    """Whether fields of these names may hold values of these types; most lines of a store look alike in this."""
    return all(kind in _TYPES.get(name, {kind}) for name, kind in zip(names, types, strict=True))


def _refuse_other_types(data: Mapping[str, Any]) -> None:
    for name, value in data.items():
        if name in _TYPES and type(value) not in _TYPES[name]:
            raise TypeError(f"{name} is {value!r}")


def _seconds(kernel: str, cache: str, times_s: Sequence[float]) -> array[float]:
    """`times_s` as an array of doubles; TypeError unless all are positive numbers."""
    try:
        seconds = array("d", struct.pack(f"{len(times_s)}d", *times_s))
    except (TypeError, struct.error):
        seconds = array("d", [0.0])
    if seconds and not min(times_s) > 0:
        raise TypeError(f"samples of {kernel} ({cache}) are not positive seconds")
    return seconds


def _names_nan(line: str | bytes) -> bool:
    text = line if isinstance(line, bytes) else line.encode()
    return b"NaN" in text or b"Infinity" in text


def record_key(
    case: Case,
    kernel: str,
    source_sha: str,
    baselines: Mapping[str, str],
    machine: str,
    protocol: Protocol,
    versions: Mapping[str, str],
) -> str:
    """What makes two trials the same trial: sha256 of the canonical JSON of everything that made the result."""
    return digest(
        {
            "case": case.to_json(),
            "kernel": kernel,
            "source_sha": source_sha,
            "baselines": dict(baselines),
            "machine": machine,
            "protocol": json.loads(canonical(asdict(protocol))),
            "versions": dict(versions),
        }
    )
