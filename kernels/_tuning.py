"""The tile sizes that won on this machine: timed once, kept on disk, used by every launch after.

No tile is best everywhere, and a table that came from one card misleads on every other: torch's block-sparse kernel is
tuned for one A100 and runs with a single pipeline stage on an H100. So a face lists its candidates, and the first
`prepare` on a machine times them all. How a face uses it, in its `bind`:

    def call(tile: Tile) -> Callable[[], None]: ...                    # one launch with these sizes
    tiles = candidates(case, toolchain.gpu)                             # frozen dataclasses, the default first
    key = problem_class(case, toolchain, block=packed.block)
    choice = best("bsr.triton", key, tiles, timer(toolchain, call), tiles[0])
    return Bound([call(choice.tile)], ..., facts=choice.facts())        # the record says tile and tuned

Without a timer (no GPU: tests, compilation ahead of time) and without an entry it is the default, and the record says
"tuned": false. An entry is one JSON file in the user's cache folder, named by the digest of what was asked, so several
processes need no lock: each writes under a name of its own and renames. A broken file counts as absent and is replaced.
An entry whose tile is no longer a candidate is timed anew, so a face that changes its candidates needs no version.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

# platformdirs: each system has its own place for caches.
import platformdirs

from sparsebench.case import Case, canonical, digest
from sparsebench.kernel import CudaToolchain

Tile = TypeVar("Tile")  # a frozen dataclass of JSON's plain values

# What was timed by this process: a folder that cannot be written must not make every copy of W tune again.
_timed: dict[Path, dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Choice(Generic[Tile]):
    """A tile, and whether a timing on this machine chose it."""

    tile: Tile
    tuned: bool

    def facts(self) -> dict[str, Any]:
        """What the record should say of it: {"tile": its sizes by name, "tuned": ...}."""
        return {"tile": asdict(self.tile), "tuned": self.tuned}  # type: ignore[call-overload]


def best(
    kernel: str,
    key: Mapping[str, Any],
    candidates: Sequence[Tile],
    time_s: Callable[[Tile], float] | None,
    default: Tile,
    *,
    folder: Path | None = None,
) -> Choice[Tile]:
    """The candidate that won for `kernel` on the problems of `key`; `default` where none was timed and none can be.

    kernel   a kernel's name
    key      plain data: the class of problems, the GPU, the libraries (`problem_class`)
    time_s   tile -> seconds; infinity for a tile that the device refuses. None: there is nothing to time on
    folder   of the entries; the user's cache folder unless said
    """
    file = (folder or cache_folder()) / f"{kernel}-{digest([kernel, dict(key)])[:16]}.json"
    if (kept := _kept(file, kernel, key, candidates)) is not None:
        return Choice(kept, tuned=True)
    if time_s is None:
        return Choice(default, tuned=False)
    times = [time_s(tile) for tile in candidates]
    if not times or not math.isfinite(min(times)):
        return Choice(default, tuned=False)
    winner = candidates[times.index(min(times))]
    entry = {"kernel": kernel, "key": dict(key), "tile": asdict(winner), "time_s": min(times)}  # type: ignore[call-overload]
    _timed[file] = entry
    _write(file, entry)
    return Choice(winner, tuned=True)


def cache_folder() -> Path:
    """Where the entries of this user are kept."""
    return platformdirs.user_cache_path("sparsebench") / "tuning"


def _kept(file: Path, kernel: str, key: Mapping[str, Any], candidates: Sequence[Tile]) -> Tile | None:
    """The candidate that `file` or this process remembers for exactly this question, or None."""
    entry = _timed.get(file) or _read(file)
    if not isinstance(entry, dict) or entry.get("kernel") != kernel:
        return None
    if canonical(entry.get("key")) != canonical(dict(key)):
        return None
    return next((tile for tile in candidates if asdict(tile) == entry.get("tile")), None)  # type: ignore[call-overload]


def _read(file: Path) -> Any:
    """What `file` holds; None where it is missing or broken."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _write(file: Path, entry: Mapping[str, Any]) -> None:
    """Put `entry` in `file` whole or not at all; a folder that cannot be written costs the next process a timing."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(json.dumps(entry, indent=1, sort_keys=True))
            Path(name).replace(file)
        finally:
            Path(name).unlink(missing_ok=True)


def timer(
    toolchain: CudaToolchain,
    call: Callable[[Tile], Callable[[], None]],
    refusals: tuple[type[Exception], ...] = (),
) -> Callable[[Tile], float] | None:
    """Tile -> seconds of the launch that `call` makes of it, by the toolchain's clock; None where it has none.

    `toolchain.time_s`, where there is one, takes a call without arguments and returns seconds. A launch that raises one
    of `refusals` (a device out of shared memory or registers) takes infinitely long.
    """
    clock: Callable[[Callable[[], None]], float] | None = getattr(toolchain, "time_s", None)
    if clock is None:
        return None

    def time_s(tile: Tile) -> float:
        try:
            return clock(call(tile))
        except refusals:
            return math.inf

    return time_s


def problem_class(case: Case, toolchain: CudaToolchain, **more: Any) -> dict[str, Any]:
    """What decides the best tile: dtype, math, layout, m, k, the class of n, `more` of the family; GPU and libraries.

    Neither the mask, the sparsity nor the sources belong to it: timing anew for each costs more than it finds.
    """
    return {
        "dtype": case.dtype,
        "math": case.math,
        "layout": case.layout,
        "m": case.m,
        "k": case.k,
        "n": n_class(case.n),
        "n_unit": largest_unit(case.n),
        "gpu": gpu_name(toolchain.device),
        "sm": toolchain.gpu.sm,
        "libraries": libraries(),
        **{name: list(value) if isinstance(value, tuple) else value for name, value in more.items()},
    }


def n_class(n: int) -> int:
    """The least power of two that is at least n: products of one class share a tile.

    >>> [n_class(n) for n in (1, 2, 3, 500, 512)]
    [1, 2, 4, 512, 512]
    """
    return 1 << (n - 1).bit_length()


def largest_unit(n: int, most: int = 16) -> int:
    """The largest power of two, up to `most`, that divides n: what a vector of a row may hold.

    >>> [largest_unit(n) for n in (1, 12, 56, 64)]
    [1, 4, 8, 16]
    """
    return min(n & -n, most)


@lru_cache(maxsize=4)
def gpu_name(device: str) -> str:
    """The name of the GPU that is current; `device` itself where that is not one."""
    if not device.startswith("cuda"):
        return device
    # torch: it owns the device that the tensors lie on.
    import torch

    return str(torch.cuda.get_device_name())


@lru_cache(maxsize=1)
def libraries() -> dict[str, str]:
    """Versions of what compiles and launches the bodies; what is absent is left out."""
    found = {}
    for package in ("torch", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
