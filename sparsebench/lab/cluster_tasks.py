"""What Dask carries: functions that find a worker's slot and hand it an errand, pickled so that only the slot reads it.

They stand alone because the scheduler imports what it passes on, and is deaf while it does.
"""

from __future__ import annotations

from typing import Any

from distributed import Worker, get_worker

SLOT = "sparsebench"  # the plugin of a worker that is its slot (cluster_worker.Slot)


def perform(errand: bytes) -> Any:
    """A request on this worker's device."""
    return get_worker().plugins[SLOT].perform(errand)


def look(errand: bytes) -> Any:
    """A survey of this worker's kernels and files."""
    return get_worker().plugins[SLOT].look(errand)


async def rest(run: str, dask_worker: Worker) -> None:
    """End what `run` left behind on this worker, whatever it is doing."""
    dask_worker.plugins[SLOT].rest(run)
