"""The worker process: owns torch, the compiler and the clock, and answers one request at a time.

Started by lab/process.py as `python -m sparsebench.lab.worker SOCKET SUSPECT` (two file numbers), with its threads and
its core already fixed by the environment, since OpenMP runtimes read that when they load. This is the one edge where an
exception becomes an outcome; what kills the process is turned into one by the parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

# psutil: when this process started, on Linux and macOS alike.
import psutil

from sparsebench.errors import FormatError, MissingNeed, PatternError, Refused
from sparsebench.kernel import all_kernels
from sparsebench.lab.bench import Bench
from sparsebench.lab.ready import WrongAnswer
from sparsebench.lab.sides import CpuSide, Side
from sparsebench.lab.turns import Turns, here
from sparsebench.lab.wire import Answer, CheckDense, Inspect, Measure, Peaks, Request, Screen, Setup, Suspect, Verify

if TYPE_CHECKING:
    from sparsebench.lab.verify_sides import NetworkSide

# What libraries say in a RuntimeError when memory ran out.
_NO_MEMORY = ("can't allocate memory", "std::bad_alloc", "out of memory", "Cannot allocate memory")
GPU_FAULT = 70  # this process's exit status when a kernel broke the GPU's context
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def outcome_of(error: Exception) -> Answer:
    """The outcome that an exception in a trial stands for; the reason is its message, with the place for a bug."""
    if isinstance(error, WrongAnswer):
        return Answer("wrong", str(error), {"error_ratio": error.ratio})
    if isinstance(error, (MissingNeed, PatternError, FormatError, Refused)):
        return Answer("skipped", str(error))
    if isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY):
        return Answer("oom", f"{type(error).__name__}: {error}".rstrip(": "))
    place = traceback.extract_tb(error.__traceback__)[-1]
    return Answer("failed", f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")


class Worker:
    """Answers requests with one bench."""

    def __init__(self, setup: Setup, mark: Callable[[str], None]) -> None:
        from sparsebench.lab.pth import inspect, load

        self._inspect, self._device = inspect, setup.device
        self._side = _side_of(setup, mark)
        self._bench = Bench(all_kernels(setup.plugins), setup.protocol, self._side, load, mark)
        # All that lies between the start of this process and now: mostly torch.
        self._bench.watch.spent_s["import"] = max(0.0, time.time() - psutil.Process().create_time())

    def answer(self, request: Request) -> Answer:
        """What came of `request`, and in facts.spent where its time went; never raises."""
        try:
            answer = Answer("ok", facts=self._facts(request))
        except Exception as error:
            answer = outcome_of(error)
            if self._device == "cuda":
                _settle_gpu(answer)
        return replace(answer, facts={**answer.facts, "spent": self._bench.watch.take()})

    def _facts(self, request: Request) -> dict[str, Any]:
        match request:
            case CheckDense(case, kernel):
                return self._bench.check_dense(case, kernel)
            case Screen(case, kernels, twin):
                return self._bench.again(case, kernels) if twin else self._bench.screen(case, kernels)
            case Measure():
                return self._bench.measure(request)
            case Inspect(path, tensors):
                return {"tensors": self._inspect(path, tensors)}
            case Verify():
                return self._verified(request)
            case Peaks():
                with self._bench.watch.part("peaks"):
                    return self._peaks()

    def _verified(self, request: Verify) -> dict[str, Any]:
        from sparsebench.lab.verify_bench import NetworkBench

        bench, turns = self._bench, Turns(here(self._device))
        side = _network_side(self._side)
        return NetworkBench(request, bench.kernels, bench.protocol, side, bench.mark, turns).facts()

    def _peaks(self) -> dict[str, Any]:
        if self._device == "cuda":
            from sparsebench.lab.cuda_peaks import measure_peaks as measure_gpu_peaks

            return measure_gpu_peaks(self._side.toolchain())
        from sparsebench.lab.peaks import measure_peaks

        return measure_peaks(self._side.cache_bytes)


def _side_of(setup: Setup, mark: Callable[[str], None]) -> Side:
    if setup.device == "cpu":
        return CpuSide(setup.cache_bytes, setup.protocol.threads, mark)
    from sparsebench.lab.cuda_side import CudaSide

    return CudaSide(setup.cache_bytes, mark)


def _network_side(side: Side) -> NetworkSide:
    if isinstance(side, CpuSide):
        from sparsebench.lab.verify_sides import CpuNetworkSide

        return CpuNetworkSide(side)
    from sparsebench.lab.cuda_side import CudaSide
    from sparsebench.lab.verify_cuda import CudaNetworkSide

    assert isinstance(side, CudaSide)
    return CudaNetworkSide.of(side)


def _settle_gpu(answer: Answer) -> None:
    """Give memory back after a trial that failed. A fault in a kernel leaves the GPU unusable for this process: end it.

    The parent then records what this says last, and starts another worker.
    """
    import torch

    gc.collect()  # the traceback held the trial's tensors
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception as fault:
        print(
            f"Fatal: the GPU stopped after {answer.reason}: {str(fault).splitlines()[0]}", file=sys.stderr, flush=True
        )
        os._exit(GPU_FAULT)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, even in the middle of a kernel that never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(memory_bytes: int) -> None:
    """Let an endless allocation raise MemoryError here before the system starts killing its neighbours.

    The limit is one of addresses, and memory that was given back (memory.py) keeps its own: a whole network held 5 GB
    and had come to 13 GB of them. So half as many again are allowed; the parent watches what is really held, and kills
    at twice `memory_bytes`.
    """
    if sys.platform != "linux":
        return  # macOS does not enforce RLIMIT_AS; the parent's watch on resident memory is the net there
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 3 * memory_bytes // 2
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def serve(connection: Connection, suspect: Suspect) -> None:
    """Answer requests until the parent closes the line."""
    setup: Setup = connection.recv()
    import torch  # loaded before the limit: its libraries alone map gigabytes of address space

    torch.set_num_threads(setup.protocol.threads)
    torch.set_grad_enabled(False)
    if setup.device == "cpu":
        _limit_memory(setup.memory_bytes)  # CUDA reserves far more addresses than it uses
    worker = Worker(setup, suspect.write)
    connection.send("ready")
    while True:
        try:
            request: Request = connection.recv()
        except EOFError:
            return
        connection.send(worker.answer(request))


if __name__ == "__main__":
    faulthandler.enable()
    _die_with_parent()
    if os.getppid() == 1:
        sys.exit("the parent is gone")
    serve(Connection(int(sys.argv[1])), Suspect(int(sys.argv[2])))
