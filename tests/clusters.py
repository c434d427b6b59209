"""Real scheduler, worker and runner processes on loopback, each of which a test may kill. Workers replay trials."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
WORKER = """
import sys
from functools import partial
from sparsebench.lab.cluster_worker import serve
from sparsebench.lab.process import WorkerProcess
from sparsebench.machine import Machine
start = partial(WorkerProcess, module="replay_worker")
serve(sys.argv[1], Machine.here("cpu"), lambda text: print(text, flush=True), start=start)
"""
RUNNER = """
import sys
from pathlib import Path
from sparsebench.lab.cluster import FleetRun
from sparsebench.lab.docket import Watch
from sparsebench.suite import Suite
watch = Watch(said=lambda text: print(text, flush=True))
FleetRun(Suite.load(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], device="cpu", watch=watch).execute()
"""
HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """A scheduler and workers; `start` and `kill` them by name. Logs go to `folder`/NAME.log."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def scheduler(self) -> None:
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--dashboard-address", "127.0.0.1:0")
        self.start("scheduler", SCHEDULER, *where, "--no-dashboard")

    def worker(self, name: str) -> None:
        self.start(name, WORKER, self.address)

    def runner(self, suite: Path, results: Path, name: str = "runner") -> None:
        self.start(name, RUNNER, str(suite), str(results), self.address)

    def start(self, name: str, code: str, *arguments: str) -> None:
        paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                env={**os.environ, **self.environment, "PYTHONPATH": paths},
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """kill -9, and wait for the end."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def child(self, name: str) -> int | None:
        """The process in which worker `name` runs its trials, if it has one now."""
        try:
            children = psutil.Process(self.processes[name].pid).children()
        except psutil.Error:
            return None
        return children[0].pid if children else None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_for(self, name: str, text: str, seconds: float = 60) -> None:
        """Wait until the log of `name` says `text`."""
        deadline_s = time.monotonic() + seconds
        while text not in self.log(name):
            assert time.monotonic() < deadline_s, f"{name} never said {text!r}:\n{self.log(name)}"
            time.sleep(0.05)


@contextmanager
def cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    """A cluster with a scheduler, whose processes end with the block."""
    made = Cluster(folder, environment)
    try:
        made.scheduler()
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait()
