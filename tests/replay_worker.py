"""A worker process that replays recorded trials: it sleeps as long as their samples took, and answers what was found.

`WorkerProcess(setup, "replay_worker")` starts it in place of the real one, which lets the engine around it be tested at
full size: it needs neither torch nor a quiet machine, and starts in a tenth of the time.

    REPLAY        a file of records; what it does not hold takes REPLAY_ELSE seconds
    REPLAY_LOG    a file to which each Measure is noted as it begins: case key, kernel
"""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sparsebench.case import Case
from sparsebench.lab.wire import Answer, CheckDense, Measure, Peaks, Screen, Suspect
from sparsebench.record import Record
from sparsebench.store import read_lines

AA = "dense.aa"
ELSE_S = float(os.environ.get("REPLAY_ELSE", "0.05"))
KEPT = ("nnz", "format_bytes", "moved_bytes", "useful_flops", "peak_memory_bytes", "pack_s", "error_ratio", "facts")


def recorded() -> dict[tuple[str, str], Record]:
    """The ok records to be replayed, by case and kernel."""
    if "REPLAY" not in os.environ:
        return {}
    records = read_lines(Path(os.environ["REPLAY"]))
    return {(record.case.key, record.kernel): record for record in records if record.outcome == "ok"}


class Replay:
    """Answers from records."""

    def __init__(self) -> None:
        self._records = recorded()

    def answer(self, request: Any, suspect: Suspect) -> Answer:
        match request:
            case Measure(case, _, kernel, baselines):
                note(case, kernel)
                return self._timed(case, [kernel, *baselines], suspect)
            case Screen(case, kernels, twin):
                return self._timed(case, list(kernels), suspect, twin)
            case CheckDense(case, kernel):
                suspect.write(kernel)
                return Answer("ok", facts=self._facts(case, kernel))
            case Peaks():
                return Answer("ok", facts={"replayed": True})
        raise TypeError(request)

    def _timed(self, case: Case, names: list[str], suspect: Suspect, twin: bool = False) -> Answer:
        """The samples of `names`, the first of which is the trial's own, after the time that they took."""
        suspect.write(names[0])
        record = self._records.get((case.key, names[0]))
        by_name = next(iter(record.samples.values())) if record else {}
        time.sleep(sum(map(sum, by_name.values())) if record else ELSE_S)
        rounds = min(map(len, by_name.values()), default=5)
        samples = {
            cache: {name: list(by_name.get(name, [1e-3] * rounds))[:rounds] for name in [*names, *[AA] * twin]}
            for cache in (record.samples if record else ("weights_cold",))
        }
        about = {"wrong": {}, "error_ratios": {}, "stop": "precision", "clocks": {}, "flags": []}
        return Answer("ok", facts={**self._facts(case, names[0]), **about, "samples": samples})

    def _facts(self, case: Case, kernel: str) -> dict[str, Any]:
        record = self._records.get((case.key, kernel))
        known = {name: getattr(record, name) for name in KEPT} if record else {"nnz": 1, "error_ratio": 0.1}
        return {**known, "layout_s": {kernel: 0.0}}


def note(case: Case, kernel: str) -> None:
    """Write down that a trial begins; one write, so that several workers may share the file."""
    if "REPLAY_LOG" in os.environ:
        file = os.open(os.environ["REPLAY_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(file, f"{case.key} {kernel}\n".encode())
        os.close(file)


def serve(connection: Connection, suspect: Suspect) -> None:
    connection.recv()
    replay = Replay()
    connection.send("ready")
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(replay.answer(request, suspect))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Suspect(int(sys.argv[2])))
