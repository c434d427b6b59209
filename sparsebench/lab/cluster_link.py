"""The line from a run to devices behind a Dask scheduler: who is there, and how each of them is asked.

A request is a Dask task that only one worker may take. Its future breaks when that worker dies or the scheduler goes
away; a worker that vanishes without a word is missed at the next roll call. All of it is Lost: nothing is known of the
request, and it is asked again. The line itself is made anew until the scheduler is back.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import dask
from distributed import Client, Future, KilledWorker

from sparsebench.errors import BadInput, SparsebenchError
from sparsebench.lab import cluster_tasks
from sparsebench.lab.cluster_about import About, Survey
from sparsebench.lab.cluster_worker import checked, hush
from sparsebench.lab.wire import Answer, Kit, Lost, Request

CONNECT_S = 10.0
ANSWER_S = 30.0  # a scheduler that imports what it passes on is deaf for seconds
GOODBYE_S = 5.0
MOST_TROUBLES = 5  # tries to get the answer of a task that is done
BEAT_S = 0.5  # how often whoever waits for an answer looks whether the device is still there
TIMES = {"distributed.comm.timeouts.connect": f"{CONNECT_S:g}s"}


class CannotTake(SparsebenchError):
    """A device that answers, but could not take a request at all: its worker process does not start, for instance."""


class Link:
    """A connection to the scheduler at `address`. Use it as a context manager; BadInput where none answers."""

    def __init__(self, address: str) -> None:
        self.address = checked(address)
        self._client: Client | None = None
        self._settings = dask.config.set(TIMES)

    def __enter__(self) -> Self:
        hush()
        try:
            self._client = self._connected()
        except Exception as error:  # what a wrong certificate raises is anybody's guess
            raise BadInput(
                f"--scheduler {self.address}: no Dask scheduler answered within {CONNECT_S:g} s ({error}); start one "
                f"with `dask scheduler` where sparsebench is installed, and give its address, such as tcp://host:8786"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    def _connected(self) -> Client:
        return Client(self.address, timeout=CONNECT_S, set_as_default=False, name="sparsebench")

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client:
            _quietly(client.close, timeout=GOODBYE_S)

    def roll_call(self) -> Mapping[str, tuple[str, Mapping[str, Any]]] | None:
        """{a worker's own id: (its address, its introduction)}; None while the scheduler does not answer."""
        try:
            client = self._client = self._client or self._connected()
            if client.status != "running":
                raise OSError("the connection broke")
            told = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_S)
        except Exception:
            self._drop()
            return None
        present = ((address, worker.get("sparsebench")) for address, worker in told["workers"].items())
        return {about["id"]: (address, about) for address, about in present if about}

    def submit(self, function: Any, errand: Any, worker: str, resources: Mapping[str, float] | None = None) -> Future:
        """`function` of the pickled errand as a task that only `worker` may run; Lost while there is no scheduler."""
        client = self._client
        if client is None or client.status != "running":
            raise Lost("the scheduler went away")
        try:
            return client.submit(
                function,
                pickle.dumps(errand),
                key=f"{function.__name__}-{uuid4().hex}",
                workers=[worker],
                allow_other_workers=False,
                resources=resources,
                retries=0,
                pure=False,
            )
        except Exception as error:  # the client is being closed
            raise Lost(f"the scheduler went away: {type(error).__name__}: {error}") from None

    def rest(self, run: str, workers: Collection[str]) -> None:
        """Let workers end what `run` left behind there; those that do not hear it will find out by themselves."""
        if (client := self._client) and workers:
            about = {"workers": list(workers), "wait": False, "on_error": "ignore"}
            telling = threading.Thread(target=_quietly, args=(client.run, cluster_tasks.rest, run), kwargs=about)
            telling.daemon = True
            telling.start()
            telling.join(GOODBYE_S)


def _quietly(call: Callable[..., object], *arguments: Any, **about: Any) -> None:
    """Call what may fail: a scheduler that is left behind may be gone, and whether it is does not matter."""
    with suppress(Exception):
        call(*arguments, **about)


class Remote:
    """A device behind a scheduler (an Executor). `leave` makes whoever asks it stop waiting."""

    def __init__(self, link: Link, id: str, address: str, about: About, kit: Kit) -> None:
        self.id, self.address, self.about = id, address, about
        self.versions, self.missing = about.versions, dict[str, str]()
        self.host: Mapping[str, Any] = {}
        self._link, self._kit = link, kit
        self._left = threading.Event()

    @property
    def gone(self) -> bool:
        """Whether it went away."""
        return self._left.is_set()

    def leave(self) -> None:
        """It went away, or the run ends: nobody waits for it any longer."""
        self._left.set()

    def ask(self, request: Request, timeout_s: float, *, alone: bool = False) -> tuple[Answer, str]:
        """The answer and the name of what ran last; Lost if the device went away."""
        errand = (self._kit, request, timeout_s, alone)
        answer, suspect, self.host = self._result(cluster_tasks.perform, errand, {self.about.machine.id: 1})
        return answer, suspect

    def survey(self, files: Sequence[Path]) -> Survey:
        """What it finds of the run's kernels and files; BadInput for a plugin that cannot be loaded there."""
        found: Survey = self._result(cluster_tasks.look, (self._kit.plugins, files))
        self.missing = dict(found.missing)
        return found

    def _result(self, function: Any, errand: Any, resources: Mapping[str, float] | None = None) -> Any:
        future, done, troubles = self._link.submit(function, errand, self.address, resources), threading.Event(), 0
        future.add_done_callback(lambda _: done.set())
        while not self.gone:
            if not done.wait(BEAT_S):
                continue
            try:
                return future.result(timeout=ANSWER_S)
            except Exception as error:
                if future.status == "error":
                    raise _of_task(error) from None
                troubles += 1
                if future.status == "cancelled" or troubles == MOST_TROUBLES:
                    raise Lost(f"the answer was lost: {type(error).__name__}: {error}") from None
            self._left.wait(BEAT_S)  # the task is done; its answer did not come through yet
        raise Lost("the device went away")  # and with the future goes the scheduler's interest in the task


def _of_task(error: Exception) -> Exception:
    """What an exception in the task itself, or its worker's death, stands for."""
    if isinstance(error, KilledWorker):
        return Lost("the worker died")
    if isinstance(error, BadInput | Lost):
        return error
    told = str(error).strip() or type(error).__name__
    return CannotTake(f"{told}; scheduler and workers need the environment that this run has")
