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
from pathlib import Path
from types import TracebackType
from typing import Self

# psutil: the resident memory of another process, on Linux and macOS alike.
import psutil

from sparsebench.errors import SparsebenchError
from sparsebench.lab.wire import Answer, Request, Setup, Suspect

START_TIMEOUT_S = 120.0
LOOK_S = 0.2  # how often the parent looks at the worker's memory while it waits


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of a worker: threads fixed and pinned, and freed memory kept, so that no kernel times page faults.

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


class WorkerProcess:
    """One worker process, started at the first request and again after each death. Use it as a context manager."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.starts = 0
        self._folder = tempfile.TemporaryDirectory(prefix="sparsebench-")
        self._suspect = Suspect(Path(self._folder.name) / "suspect")
        self._log = Path(self._folder.name) / "stderr"
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def pid(self) -> int | None:
        """The process number of the worker that is alive, if any."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """Close the line; the worker ends by itself, or is killed after two seconds."""
        if self._line:
            self._line.close()
        if self._process:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._line = None

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._process and self._line:
            return self._process, self._line
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sparsebench.lab.worker", str(theirs.fileno()), f"{self._folder.name}/suspect"],
                env=worker_environment(self.setup.protocol.threads),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._line = Connection(ours.detach())
        self.starts += 1
        self._suspect.write("")
        self._line.send(self.setup)
        if not self._line.poll(START_TIMEOUT_S) or not self._received(self._line):
            tail = self._tail()
            self._kill()
            raise SparsebenchError(f"the worker process could not start: {tail or 'no message'}")
        return self._process, self._line

    def ask(self, request: Request, timeout_s: float) -> tuple[Answer, str]:
        """The worker's answer to `request`, and the name of what ran last.

        Its death, silence beyond `timeout_s` or excess of memory are answers too, and end it.
        """
        process, line = self._start()
        self._suspect.write("")
        line.send(request)
        deadline_s = time.monotonic() + timeout_s
        while not line.poll(LOOK_S):
            if time.monotonic() > deadline_s:
                return self._ended(Answer("timeout", f"no answer within {timeout_s:g} s; the worker was killed"))
            if _resident_bytes(process.pid) > 2 * self.setup.memory_bytes:
                return self._ended(
                    Answer("oom", f"it held over {2 * self.setup.memory_bytes} bytes of memory; the worker was killed")
                )
        answer = self._received(line)
        if isinstance(answer, Answer):
            return answer, self._suspect.read()
        return self._ended(self._death(process))

    @staticmethod
    def _received(line: Connection) -> object:
        try:
            return line.recv()
        except (EOFError, OSError):
            return None

    def _ended(self, answer: Answer) -> tuple[Answer, str]:
        suspect = self._suspect.read()
        self._kill()
        return answer, suspect

    def _death(self, process: subprocess.Popen[bytes]) -> Answer:
        code = process.wait(START_TIMEOUT_S)
        if code == -signal.SIGKILL:
            return Answer("oom", "the system killed the worker (SIGKILL), which it does when memory runs out")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Answer("crashed", f"the worker died of {name}: {self._tail() or 'no message'}")

    def _tail(self) -> str:
        """The first line of what the worker last complained of."""
        lines = [text.strip() for text in self._log.read_text(errors="replace").splitlines() if text.strip()]
        fatal = [text for text in lines if text.startswith("Fatal")]
        return (fatal or lines[-1:] or [""])[0][:300]

    def _kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        if self._line:
            self._line.close()
        self._process = self._line = None


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
