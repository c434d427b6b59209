"""Runs a suite on many machines at once, behind a Dask scheduler: once on each kind, shared between equal ones.

Home plans, decides what is next and writes; devices only answer. What is handed out is a problem, so that a sparse
kernel and its baselines are timed on one device. Each device has a thread here that takes problems from its machine's
docket and asks for their trials one by one; every answer is stored at once, by this one process.

A device that goes away gives its problem back, and the next equal device goes on with it. Devices may join and leave at
any time, and the scheduler may be started anew; without devices, home waits. The run ends when every machine that took
part has a record of all its trials.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from sparsebench.errors import BadInput
from sparsebench.kernel import Kernel, all_kernels
from sparsebench.lab.cluster_about import SAME, About
from sparsebench.lab.cluster_link import BEAT_S, CannotTake, Link, Remote
from sparsebench.lab.docket import Docket, Summary, Watch
from sparsebench.lab.estimate import Costs
from sparsebench.lab.executor import setup_for
from sparsebench.lab.ledger import Ledger
from sparsebench.lab.process import WorkerProcess
from sparsebench.lab.run import inspector, plugins_of, timeout_s
from sparsebench.lab.session import work
from sparsebench.lab.wire import Kit, Lost
from sparsebench.machine import DEVICES, Machine
from sparsebench.store import Store
from sparsebench.suite import Suite, Trial


@dataclass(slots=True)
class FleetRun:
    """One suite on the devices behind a scheduler. Making it plans, and raises BadInput for what cannot be run."""

    suite: Suite
    results: Path
    scheduler: str
    device: str = "auto"
    plugins: Sequence[Path] = ()
    only: str | None = None
    time_limit_s: float | None = None
    fresh: bool = False
    watch: Watch = field(default_factory=Watch)

    kernels: Mapping[str, Kernel] = field(init=False)
    kit: Kit = field(init=False)
    _plans: dict[str | None, Sequence[Trial]] = field(default_factory=dict)
    _planning: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.device not in ("auto", *DEVICES):
            raise BadInput(f"--device must be auto, cpu or cuda, found {self.device!r}")
        self.kit = Kit(uuid4().hex, self.suite.protocol, plugins_of(self.suite, self.plugins))
        self.kernels = all_kernels(self.kit.plugins)
        self.trials(None if self.device == "auto" else self.device)

    def execute(self) -> list[Summary]:
        """Run what is not settled yet; a summary for each machine id that took part."""
        with ExitStack() as stores, Link(self.scheduler) as link:
            return _Fleet(self, link, stores).run()

    def dry(self) -> list[tuple[Machine, int, float]]:
        """For each machine id there: how many trials it gets, and how many seconds its devices take at most."""
        with Link(self.scheduler) as link:
            present = (link.roll_call() or {}).values()
        wanted = [About.from_json(data).machine for _, data in present if not why_not(data, self.device)]
        if not wanted:
            raise BadInput(f"no worker that could take part is at {self.scheduler}; {start_one(self.scheduler)}")
        devices = Counter(machine.id for machine in wanted)
        return [
            (machine, len(trials), costs.seconds(trials, self.suite.protocol, machine.device) / devices[name])
            for name, machine in {machine.id: machine for machine in wanted}.items()
            for trials, costs in [(self.trials(machine.device), Costs.before(self.results, name, self.suite.name))]
        ]

    def trials(self, device: str | None) -> Sequence[Trial]:
        """The plan for one kind of device, made once, its files by absolute path; BadInput where there is none."""
        with self._planning:
            if device not in self._plans:
                setup = setup_for(Machine.here("cpu"), self.suite.protocol, self.kit.plugins)
                with WorkerProcess(setup) as worker:
                    listed = inspector(worker, self.suite.protocol)
                    trials = self.suite.trials(self.kernels, listed, self.only, device)
                self._plans[device] = [
                    replace(trial, data=trial.data.absolute()) if trial.data else trial for trial in trials
                ]
            return self._plans[device]


class _Unfit(Exception):
    """Why a worker gets no trials of this run."""


def why_not(data: Mapping[str, Any], device: str) -> str | None:
    """Why a worker that introduces itself so cannot take part in a run of this sparsebench that asks for `device`."""
    try:
        about = About.from_json(data)
    except (KeyError, TypeError):
        return f"it does not say what workers of this sparsebench say; {SAME}"
    if device not in ("auto", about.machine.device):
        return f"it offers a {about.machine.device} device, and --device {device} was asked for"
    return about.why_not()


def start_one(scheduler: str) -> str:
    """What to do where a worker is wanted."""
    return f"start one on each device with `sparsebench worker {scheduler}`"


class _Fleet:
    """The devices of a run at work. `run` is the main thread's; each device has one that runs `_serve`."""

    def __init__(self, run: FleetRun, link: Link, stores: ExitStack) -> None:
        self._run, self._link, self._stores = run, link, stores
        self._lock = threading.RLock()
        self._shas = {name: kernel.source_sha for name, kernel in run.kernels.items()}
        self._dockets: dict[str, Docket] = {}
        self._devices: dict[str, Remote] = {}  # at work, or waiting for it
        self._welcomed: list[Remote] = []  # all that ever were
        self._threads: list[threading.Thread] = []
        self._refused: dict[str, str] = {}
        self._through: set[str] = set()  # workers that have nothing left to do
        self._stopping = False
        self._told = ""
        self._failure: BaseException | None = None
        self._stirred = threading.Event()
        limit_s = run.time_limit_s
        self._deadline_s = math.inf if limit_s is None else time.monotonic() + limit_s

    def run(self) -> list[Summary]:
        """Let devices work as they come and go, until nothing is left to do."""
        try:
            while not self._over(self._call_roll()):
                self._stirred.wait(BEAT_S)
                self._stirred.clear()
        finally:
            self._stopping = True
            there = [device for device in self._welcomed if not device.gone]
            for device in there:
                device.leave()
            self._link.rest(self._run.kit.run, [device.address for device in there])
            for thread in self._threads:
                thread.join()
        if self._failure:
            raise self._failure
        for docket in self._dockets.values():
            docket.close()
        return [docket.summary for docket in self._dockets.values()]

    # The main thread --------------------------------------------------------------------------------------------------

    def _call_roll(self) -> set[str] | None:
        """Welcome who is new and let go who is gone; the workers there, None while there is no scheduler."""
        told = self._link.roll_call()
        present = told or {}
        with self._lock:
            for device in self._devices.values():
                if device.id not in present:
                    device.leave()
            for id in present.keys() - self._devices.keys() - self._refused.keys() - self._through:
                self._welcome(id, *present[id])
        return None if told is None else set(present)

    def _welcome(self, id: str, address: str, data: Mapping[str, Any]) -> None:
        if reason := why_not(data, self._run.device):
            self._refuse(id, address, reason)
            return
        device = Remote(self._link, id, address, About.from_json(data), self._run.kit)
        for other in self._devices.values():
            if not other.gone and other.about.same_place(device.about):
                self._say(
                    f"{address} and {other.address} share {device.about.place} of {device.about.host} and disturb each "
                    f"other's times; let every worker have a device of its own (--gpu, or taskset for cores)"
                )
        self._devices[id] = device
        self._welcomed.append(device)
        self._threads.append(threading.Thread(target=self._serve, args=(device,), name=address, daemon=True))
        self._threads[-1].start()

    def _over(self, present: set[str] | None) -> bool:
        """Whether the run ends now; says what it waits for otherwise. BadInput where nobody there can take part."""
        with self._lock:
            waiting = [docket for docket in self._dockets.values() if not docket.done]
            if self._failure or (self._dockets and not self._devices and not waiting):
                return True
            if not self._devices and time.monotonic() > self._deadline_s:
                return True
            if not self._dockets and present and present <= self._refused.keys():
                raise BadInput("\n".join(self._refused.values()))
            told = "" if self._devices else self._waits_for(present, waiting)
            if told and told != self._told:
                self._say(told)
            self._told = told
            return False

    def _waits_for(self, present: set[str] | None, waiting: Sequence[Docket]) -> str:
        address = self._link.address
        if present is None:
            return f"the scheduler at {address} went away; waiting for it to come back"
        if waiting:
            names = ", ".join(docket.ledger.machine.id for docket in waiting)
            left = sum(docket.left for docket in waiting)
            return f"no worker of {names} is there: {left} trials wait for one; Ctrl-C stops, and keeps what is stored"
        return f"no worker is at {address} yet; {start_one(address)}"

    # A device's thread ------------------------------------------------------------------------------------------------

    def _serve(self, device: Remote) -> None:
        """Let a device take problems until none is left; whatever ends it, the problem it had is given back."""
        try:
            work(self._docket(device), device)
            with self._lock:
                self._through.add(device.id)
        except (_Unfit, CannotTake) as unfit:
            self._refuse(device.id, device.address, str(unfit))
        except Lost:
            if not self._stopping:
                self._say(f"{device.address} ({device.about.machine.id}) went away; what it was doing is done again")
        except BaseException as error:
            self._failure = error
        finally:
            with self._lock:
                self._devices.pop(device.id)
            self._stirred.set()

    def _docket(self, device: Remote) -> Docket:
        """The docket of this device's machine, opened by the first that comes; _Unfit where it must not share it."""
        about, run = device.about, self._run
        try:
            trials = run.trials(about.machine.device)
            found = device.survey(sorted({trial.data for trial in trials if trial.data}))
        except (BadInput, CannotTake) as error:
            raise _Unfit(str(error)) from None
        reason = found.why_not(self._shas)
        with self._lock:
            docket = self._dockets.get(about.machine.id)
            if docket and not reason:
                reason = about.differs(docket.ledger.versions)
            if reason:
                raise _Unfit(reason)
            self._say(f"{about.machine.id} at {device.address} takes part")
            return docket or self._open(about, trials)

    def _open(self, about: About, trials: Sequence[Trial]) -> Docket:
        run, machine = self._run, about.machine
        store = self._stores.enter_context(Store(run.results, machine, run.suite.name))
        ledger = Ledger(store, run.suite, machine, run.kernels, run.fresh, about.versions)
        summary = Summary(machine, store.path)
        limit_s = timeout_s(run.suite.protocol)
        docket = Docket(trials, ledger, summary, run.watch, limit_s, self._deadline_s, self._lock)
        self._dockets[machine.id] = docket
        devices = Counter(device.about.machine.id for device in self._devices.values())
        dockets = self._dockets.values()
        run.watch.planned(
            sum(len(docket.trials) for docket in dockets),
            sum(len(docket.trials) - len(docket.todo) for docket in dockets),
            max(docket.expected_s() / max(devices[name], 1) for name, docket in self._dockets.items()),
        )
        return docket

    def _refuse(self, id: str, address: str, reason: str) -> None:
        with self._lock:
            self._refused[id] = f"the worker at {address} gets no trials: {reason}"
            self._say(self._refused[id])

    def _say(self, text: str) -> None:
        with self._lock:
            self._run.watch.said(text)
