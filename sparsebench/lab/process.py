"""The parent's end: starts the worker, asks with a deadline, and turns a death into an answer.

A worker is replaced only after an unclean end: a crash, a hang or a breach of its memory. It runs in its own session,
so that Ctrl-C reaches the parent alone, which then closes the line.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

# psutil: the resident memory of another process, on Linux and macOS alike.
import psutil

from sparsebench import units
from sparsebench.errors import SparsebenchError
from sparsebench.lab.wire import Answer, Lost, Request, Setup, Suspect

WORKER = "sparsebench.lab.worker"  # the module that a worker process runs
START_TIMEOUT_S = 120.0
LOOK_S = 0.2  # how often the parent looks at the worker's memory while it waits


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of a worker: threads fixed and pinned; freed memory kept, so that no kernel times page faults.

    OpenMP runtimes read these when they load. Unpinned threads stall for 8 ms at a time on a busy machine.
    """
    cores = sorted(os.sched_getaffinity(0))[-threads:] if hasattr(os, "sched_getaffinity") else []
    places = {"OMP_PROC_BIND": "true", "OMP_PLACES": ",".join(f"{{{core}}}" for core in cores)} if cores else {}
    counts = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), str(threads)
    )
    keep_freed = {
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**24),
    }
    return {**os.environ, **counts, **places, **keep_freed, "PYTHONUNBUFFERED": "1"}


class _Life:
    """One worker from start to end. Its files have no names, so that nothing is left behind however the parent ends."""

    def __init__(self, setup: Setup, module: str) -> None:
        ours, theirs = socket.socketpair()
        self._log, page = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - they live as long as this
        self.suspect = Suspect(page.fileno(), fresh=True)
        with theirs, page:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(page.fileno())],
                env=worker_environment(setup.protocol.threads),
                pass_fds=[theirs.fileno(), page.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        self.line = Connection(ours.detach())
        self.line.send(setup)
        if not self.line.poll(START_TIMEOUT_S) or self.received() is None:
            complaint = self.complaint()
            self.end(patience_s=0)
            raise SparsebenchError(f"the worker process could not start: {complaint}")

    def received(self) -> object:
        """The next message, or None when the worker is gone."""
        try:
            return self.line.recv()
        except (EOFError, OSError):
            return None

    def complaint(self) -> str:
        """What the worker last complained of: its fatal line if there is one, else its last."""
        self._log.seek(0)
        lines = [text.strip() for text in self._log.read().decode(errors="replace").splitlines() if text.strip()]
        fatal = [text for text in lines if text.startswith("Fatal")]
        return (fatal or lines[-1:] or ["no message"])[0][:300]

    def death(self) -> Answer:
        """What the end of a worker that closed its line by itself stands for."""
        code = self.process.wait(START_TIMEOUT_S)
        if code == -signal.SIGKILL:
            return Answer("oom", "the system killed the worker (SIGKILL), which it does when memory runs out")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Answer("crashed", f"the worker died of {name}: {self.complaint()}")

    def end(self, patience_s: float) -> None:
        """Close the line and let the worker end by itself; kill it when that takes longer than `patience_s`."""
        self.line.close()
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.suspect.close()
        self._log.close()


class WorkerProcess:
    """One worker process, started at the first request and again after each death. Use it as a context manager.

    Linux ends a worker with the *thread* that started it, so all requests are made from one thread that lasts.
    """

    def __init__(self, setup: Setup, module: str = WORKER) -> None:
        self.setup, self.module = setup, module
        self._life: _Life | None = None
        self._given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process number of the worker that is alive, if any."""
        return self._life.process.pid if self._life else None

    def stop(self, patience_s: float = 2.0) -> None:
        """End the worker, if one is alive."""
        if self._life:
            self._life.end(patience_s)
            self._life = None

    def give_up(self) -> None:
        """Let the request under way, if there is one, end in Lost. The only method that another thread may call."""
        self._given_up = True

    def ask(self, request: Request, timeout_s: float, *, alone: bool = False) -> tuple[Answer, str]:
        """The worker's answer to `request`, and the name of what ran last; `alone` starts a fresh worker for it.

        Its death, silence beyond `timeout_s` or excess of memory are answers too, and end it.
        """
        self._given_up = False
        if alone:
            self.stop()
        life = self._life = self._life or _Life(self.setup, self.module)
        life.suspect.write("")
        line, deadline_s = life.line, time.monotonic() + timeout_s
        most_bytes = 2 * self.setup.memory_bytes  # the worker's own limit, on address space, comes first on Linux
        answer: object = None
        try:
            line.send(request)
            while not line.poll(LOOK_S):
                if self._given_up:
                    raise Lost("the request was given up")
                if time.monotonic() > deadline_s:
                    answer = Answer("timeout", f"no answer within {timeout_s:g} s; the worker was killed")
                elif _resident_bytes(life.process.pid) > most_bytes:
                    answer = Answer("oom", f"it held over {units.size(most_bytes)} of memory; the worker was killed")
                if answer:
                    break
            else:
                answer = life.received()
                if isinstance(answer, Answer):
                    return answer, life.suspect.read()
        except OSError:
            pass  # the line broke: the worker died before it could read
        except BaseException:
            self.stop(patience_s=0)  # Ctrl-C: do not wait for a kernel that may never return
            raise
        suspect = life.suspect.read()
        ended = answer if isinstance(answer, Answer) else life.death()
        self.stop(patience_s=0)
        return ended, suspect


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
