"""The device's end of a cluster: a Dask worker that holds one slot, in which our own worker process does the work.

A kernel may crash, hang or eat all memory; that happens in the spawned process, and what comes of it is an answer like
any other, so no Dask worker ever dies of a trial. The Dask worker has one thread, no nanny and no memory limit, and
takes one task at a time: its machine's id is a resource, of which it has one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import pickle
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# dask, distributed: workers on many machines that join late, die and come back; TLS; one small wheel (extra `cluster`).
import dask
from distributed import Worker, WorkerPlugin
from distributed.comm.addressing import parse_address
from distributed.comm.registry import get_backend

from sparsebench.errors import BadInput
from sparsebench.lab.cluster_about import SHARE, About, Survey, survey
from sparsebench.lab.cluster_tasks import SLOT
from sparsebench.lab.executor import Start, setup_for
from sparsebench.lab.process import WorkerProcess
from sparsebench.lab.versions import host_facts
from sparsebench.lab.wire import Answer, Kit, Measure, Request
from sparsebench.machine import Machine
from sparsebench.record import MISSING_NEED

Reply = tuple[Answer, str, Mapping[str, Any]]  # the answer, what ran last, host_facts() there

RETRY_S = 1.0
QUIET = {  # what a Dask worker does beside its tasks would be heard by a kernel under the clock
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.diagnostics.nvml": False,
}


@dataclass(slots=True, eq=False)
class Slot(WorkerPlugin):  # type: ignore[misc]
    """One device. Its worker process is started anew for each run, and only ever asked from one thread that lasts."""

    machine: Machine
    start: Start = WorkerProcess
    name: str = SLOT
    _kit: Kit | None = None
    _worker: WorkerProcess | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "slot"))
    _hashes: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    def perform(self, errand: bytes) -> Reply:
        """`ask` of the pickled (kit, request, timeout_s, alone)."""
        return self.ask(*pickle.loads(errand))

    def look(self, errand: bytes) -> Survey:
        """A survey of this worker's kernels and files; `errand` is the pickled (plugins, files)."""
        return survey(*pickle.loads(errand))

    def ask(self, kit: Kit, request: Request, timeout_s: float, alone: bool) -> Reply:
        """The answer to `request` from a worker process of this run."""
        return self._thread.submit(self._ask, kit, request, timeout_s, alone).result()

    def _ask(self, kit: Kit, request: Request, timeout_s: float, alone: bool) -> Reply:
        if self._worker is None or kit != self._kit:
            self._stop()
            self._kit, self._worker = kit, self.start(setup_for(self.machine, kit.protocol, kit.plugins))
        if isinstance(request, Measure) and (reason := self._other_file(request)):
            return Answer("skipped", reason), request.kernel, host_facts()
        answer, suspect = self._worker.ask(request, timeout_s, alone=alone)
        return answer, suspect, host_facts()

    def _other_file(self, request: Measure) -> str | None:
        """Why the file behind a case is not the one that was planned with, as a need that may be met another time."""
        if request.data is None or request.case.source is None:
            return None
        try:
            about = request.data.stat()
            seen = request.data, about.st_mtime_ns, about.st_size
            if seen not in self._hashes:
                with request.data.open("rb") as file:
                    self._hashes[seen] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{MISSING_NEED}{request.data}, which cannot be read here ({error.strerror}); {SHARE}"
        if self._hashes[seen] != request.case.source.sha256:
            return f"{MISSING_NEED}{request.data} as it is where the run was started, found another content; {SHARE}"
        return None

    def rest(self, run: str | None = None) -> None:
        """End the worker process of `run`, or of any run, whatever it is doing."""
        if self._worker and (run is None or (self._kit and run == self._kit.run)):
            self._worker.give_up()
            self._thread.submit(self._stop)

    def _stop(self) -> None:
        if self._worker:
            self._worker.stop()
        self._worker = None

    def teardown(self, worker: Worker) -> None:
        """The scheduler is gone or this worker ends: whoever asked does not listen any more."""
        self.rest()
        self._thread.shutdown(wait=False)


# The process ----------------------------------------------------------------------------------------------------------


def choose_gpu(number: int) -> None:
    """Let this process and its children see GPU `number` alone, of those that it sees; BadInput if they are fewer."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if visible and number >= len(visible):
        raise BadInput(
            f"--gpu {number} was asked for, but CUDA_VISIBLE_DEVICES shows {len(visible)}, counted from 0; "
            f"give a smaller number, or let it show more"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)


def hush() -> None:
    """Keep Dask's own log off the terminal: what breaks is told in a line of ours, not in a page of tracebacks."""
    for name in ("distributed", "distributed.client"):  # the second has a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)


def checked(address: str) -> str:
    """The address of a scheduler with its default scheme; BadInput where Dask knows no such kind of address."""
    scheme, place = parse_address(address)
    try:
        get_backend(scheme)
    except ValueError:
        told = f"the scheduler's address is {address!r}; give one such as tcp://host:8786 or tls://host:8786"
        raise BadInput(told) from None
    return f"{scheme}://{place}"


def serve(
    address: str,
    machine: Machine,
    say: Callable[[str], None],
    name: str | None = None,
    port: int = 0,
    start: Start = WorkerProcess,
) -> None:
    """Offer a device to the scheduler at `address` until Ctrl-C or SIGTERM, through any number of its restarts."""
    hush()
    with dask.config.set(QUIET), suppress(asyncio.CancelledError):
        asyncio.run(_serve(checked(address), About.here(machine), say, {"name": name, "port": port}, start))


async def _serve(
    address: str, about: About, say: Callable[[str], None], options: Mapping[str, Any], start: Start
) -> None:
    me = asyncio.current_task()
    assert me
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    told = ""
    say(f"{about.machine.id}: looking for the scheduler at {address}")
    while True:
        try:
            async with Worker(
                address,
                **options,
                nthreads=1,
                memory_limit=0,
                resources={about.machine.id: 1},
                plugins=(Slot(about.machine, start),),
                startup_information={"sparsebench": lambda worker: {"id": worker.id, **about.to_json()}},
            ) as worker:
                say(f"{about.machine.id} waits for trials at {worker.address}, from {address}")
                told = ""
                await worker.finished()
                say(f"the scheduler at {address} went away; waiting for it")
        except (OSError, ValueError) as error:
            if str(error) != told:
                say(f"{address}: {error}; trying again")
                told = str(error)
        await asyncio.sleep(RETRY_S)
