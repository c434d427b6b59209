"""What runs requests on one device: here a worker process behind a pipe, elsewhere one behind Dask (lab/remote.py).

A run asks and gets an answer, whatever a kernel does to the worker. Only the loss of the device itself is an exception,
since it says nothing about the request: that is asked again, of the device when it is back or of an equal one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil

from sparsebench.kernel import Kernel
from sparsebench.lab.build import missing_need
from sparsebench.lab.process import WorkerProcess
from sparsebench.lab.versions import code_versions, host_facts
from sparsebench.lab.wire import Answer, Request, Setup
from sparsebench.machine import Machine
from sparsebench.record import Protocol as Timing

MEMORY_SHARE = 0.6  # of what is free at the start, for one worker

Start = Callable[[Setup], WorkerProcess]


class Executor(Protocol):
    """A device that answers one request at a time.

    versions  of what makes the code there, part of every record's key
    missing   {need: what to install} for the needs of kernels that are not met there
    host      what surrounded the last request
    gone      whether it went away, so that it should be asked no more
    """

    @property
    def versions(self) -> Mapping[str, str]:
        """{package or "cc": version}."""
        ...

    @property
    def missing(self) -> Mapping[str, str]:
        """{need: sentence}."""
        ...

    @property
    def host(self) -> Mapping[str, Any]:
        """As host_facts."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it went away."""
        ...

    def ask(self, request: Request, timeout_s: float, *, alone: bool = False) -> tuple[Answer, str]:
        """The answer and the name of what ran last, `alone` in a fresh worker; Lost if the device went away."""
        ...


class Local:
    """The device of this machine, which never goes away."""

    gone = False

    def __init__(self, worker: WorkerProcess, kernels: Iterable[Kernel]) -> None:
        self.versions, self.missing = code_versions(), missing_needs(kernels)
        self.ask = worker.ask

    @property
    def host(self) -> Mapping[str, Any]:
        """What surrounds a measurement now."""
        return host_facts()


def setup_for(machine: Machine, protocol: Timing, plugins: Sequence[Path], memory_bytes: int | None = None) -> Setup:
    """What a worker on this machine is told at its start; `memory_bytes` is derived where it is None."""
    limit = memory_bytes or int(MEMORY_SHARE * psutil.virtual_memory().available)
    return Setup(protocol, machine.cache_bytes, limit, tuple(plugins), device=machine.device)


def missing_needs(kernels: Iterable[Kernel]) -> dict[str, str]:
    """{need: what to install} for all needs of these kernels that are not met here."""
    needs = dict.fromkeys(need for kernel in kernels for need in kernel.needs)
    return {need: text for need in needs if (text := missing_need(need))}
