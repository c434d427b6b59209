"""Many machines: who may take part, once on each kind of machine, shared by equal ones, through comings and goings."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("distributed", reason="distributed is not installed (extra cluster)")

import dask
from distributed import KilledWorker
from fake_devices import Device, small, stored

import sparsebench
from sparsebench import commands
from sparsebench.case import Case, Source
from sparsebench.cli import main
from sparsebench.errors import BadInput, StoreError
from sparsebench.lab import cluster, cluster_link, cluster_worker
from sparsebench.lab.cluster import FleetRun, why_not
from sparsebench.lab.cluster_about import About, Survey, code_of, own_code, survey
from sparsebench.lab.cluster_link import CannotTake, Link
from sparsebench.lab.docket import Summary, Watch
from sparsebench.lab.wire import Answer, Kit, Lost, Measure
from sparsebench.machine import Machine
from sparsebench.record import Protocol
from sparsebench.store import Store

CPU = Machine(device="cpu", name="Some CPU", memory_gib=8, cores=2, isa=("avx2",), cache_bytes=2**20)
GPU = Machine(device="cuda", name="Some GPU", memory_gib=80, cores=132, isa=("sm_90",), cache_bytes=2**25)
VERSIONS = {"torch": "2.13.0"}


def about(machine: Machine = CPU, **changes) -> About:
    known = About(sparsebench.__version__, own_code(), machine, VERSIONS, "host", "core 1")
    return replace(known, **changes)


# Who may take part ----------------------------------------------------------------------------------------------------


def test_an_introduction_comes_back_whole():
    assert About.from_json(about().to_json()) == about()
    here = About.here(Machine.here("cpu"))
    assert About.from_json(here.to_json()) == here
    assert here.why_not() is None


@pytest.mark.parametrize(
    "data, message",
    [
        (about(version="0.0.9").to_json(), r"it runs sparsebench 0\.0\.9 \(code \w{8}\), this is .* install the same"),
        (about(code="f" * 64).to_json(), r"\(code ffffffff\), this is .*start that worker anew"),
        ({"id": "x"}, "does not say what workers of this sparsebench say"),
        ({**about().to_json(), "machine": {"device": "cpu"}}, "does not say what workers"),
        (about(GPU).to_json(), "it offers a cuda device, and --device cpu was asked for"),
    ],
)
def test_a_worker_that_is_not_of_this_sparsebench_is_refused_in_a_sentence(data, message):
    assert re.search(message, why_not(data, "cpu"))


def test_another_line_in_any_module_is_another_code(tmp_path):
    (tmp_path / "lab").mkdir()
    codes = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "lab" / "clock.py").write_text(text)
        codes.add(code_of(tmp_path))
    assert len(codes) == 2


def test_other_versions_on_an_equal_machine_are_refused():
    assert about().differs(VERSIONS) is None
    assert "it has torch 2.13.0, and the first worker of some-" in about().differs({"torch": "2.6.0"})
    assert "it has cc none, and the first" in about().differs({**VERSIONS, "cc": "gcc 12"})


def test_a_survey_finds_other_kernels_and_files_that_are_not_there(tmp_path):
    found = survey([], [tmp_path / "a.smtx", Path(__file__)])
    assert found.absent == [tmp_path / "a.smtx"]
    assert "put the run's data and plugins on a file system" in found.why_not(found.kernels)
    there = replace(found, absent=[])
    assert there.why_not(found.kernels) is None
    assert "its source of csr.c is another than here" in there.why_not({**found.kernels, "csr.c": "0" * 64})
    assert "its source of csr.mine is another" in there.why_not({**found.kernels, "csr.mine": "0" * 64})


# The slot -------------------------------------------------------------------------------------------------------------


MADE: list[Worker] = []


class Worker:
    """In place of a worker process: answers at once, and notes what happens to it."""

    def __init__(self, setup) -> None:
        self.setup, self.stopped, self.given_up = setup, False, threading.Event()
        MADE.append(self)

    def ask(self, request, timeout_s, *, alone=False):
        if timeout_s == 0:
            self.given_up.wait(10)
            raise Lost("given up")
        return Answer("ok", facts={"alone": alone}), request.kernel

    def give_up(self):
        self.given_up.set()

    def stop(self):
        self.stopped = True


@pytest.fixture
def slot():
    MADE.clear()
    made = cluster_worker.Slot(CPU, Worker)
    yield made
    made.teardown(None)


def kit(run: str = "a", **protocol) -> Kit:
    return Kit(run, Protocol(**protocol))


REQUEST = Measure(Case(m=8, k=8, n=2), None, "csr.c", [])


def test_a_slot_keeps_one_worker_for_a_run_and_starts_another_for_the_next(slot):
    assert slot.ask(kit(), REQUEST, 1, False)[:2] == (Answer("ok", facts={"alone": False}), "csr.c")
    assert slot.ask(kit(), REQUEST, 1, True)[0].facts == {"alone": True}
    (first,) = MADE
    assert first.setup.cache_bytes == CPU.cache_bytes
    answer, _, host = slot.ask(kit("b"), REQUEST, 1, False)
    assert answer.outcome == "ok"
    assert "load" in host
    assert first.stopped
    assert len(MADE) == 2


def test_a_slot_at_work_gives_up_when_its_run_ends_and_not_when_another_does(slot):
    slot.ask(kit(), REQUEST, 1, False)
    slot.rest("b")
    assert not MADE[0].given_up.is_set()
    threading.Timer(0.1, slot.rest, ("a",)).start()
    with pytest.raises(Lost):
        slot.ask(kit(), REQUEST, 0, False)
    deadline_s = time.monotonic() + 5
    while not MADE[0].stopped and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert MADE[0].stopped


def test_the_file_behind_a_case_must_be_the_one_that_was_planned_with(slot, tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, w=np.ones((8, 8), np.float32))
    right = cluster_worker.hashlib.sha256(path.read_bytes()).hexdigest()

    def asked(data: Path, sha256: str) -> Answer:
        case = Case(m=8, k=8, n=2, pattern="file", source=Source("w.npz", "w", sha256))
        return slot.ask(kit(), Measure(case, data, "csr.c", []), 1, False)[0]

    assert asked(path, right).outcome == "ok"
    other, gone = asked(path, "0" * 64), asked(tmp_path / "no.npz", right)
    for answer in (other, gone):
        assert answer.outcome == "skipped"
        assert answer.reason.startswith("needs "), "so a later run tries the trial again"
        assert "all workers see under the same path" in answer.reason
    assert "found another content" in other.reason
    assert "No such file" in gone.reason


def test_what_keeps_a_worker_quiet_is_known_to_dask():
    """A setting that a later version calls otherwise would be passed over without a word."""
    for name, value in cluster_worker.QUIET.items():
        assert type(dask.config.get(name)) is type(value), name


@pytest.mark.parametrize("visible, number, chosen", [("", 1, "1"), ("2,3", 1, "3"), ("GPU-a,GPU-b", 0, "GPU-a")])
def test_gpus_are_counted_among_those_that_are_visible(monkeypatch, visible, number, chosen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cluster_worker.choose_gpu(number)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_a_gpu_that_is_not_visible_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with pytest.raises(BadInput, match="--gpu 2 was asked for, but CUDA_VISIBLE_DEVICES shows 2"):
        cluster_worker.choose_gpu(2)


# One request of a device ----------------------------------------------------------------------------------------------


class Future:
    """In place of Dask's: its task ends at once, and `result` gives or raises these in turn."""

    def __init__(self, *results: object, status: str = "finished") -> None:
        self._results, self.status = list(results), status

    def add_done_callback(self, function):
        if self.status != "pending":
            function(self)

    def result(self, timeout):
        found = self._results.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def ask(monkeypatch, future: Future):
    monkeypatch.setattr(cluster_link, "BEAT_S", 0.01)
    link = SimpleNamespace(submit=lambda *about: future)
    device = cluster_link.Remote(link, "id", "tcp://a:1", about(), kit())
    if future.status == "pending":
        threading.Timer(0.05, device.leave).start()
    answer = device.ask(REQUEST, 1)
    return answer, device


OK = Answer("ok"), "csr.c", {"load": 0.5}


def test_an_answer_that_comes_through_late_is_an_answer(monkeypatch):
    """A task is done at the scheduler before its answer is here; on a busy machine that may take its time."""
    answer, device = ask(monkeypatch, Future(TimeoutError(), UnboundLocalError(), OSError(), OK))
    assert answer == (Answer("ok"), "csr.c")
    assert device.host == {"load": 0.5}


@pytest.mark.parametrize(
    "future, error, message",
    [
        (Future(*[OSError("no route")] * 5), Lost, "the answer was lost: OSError: no route"),
        (Future(RuntimeError("cancelled"), status="cancelled"), Lost, "the answer was lost"),
        (Future(KilledWorker("a", None, 0), status="error"), Lost, "the worker died"),
        (Future(Lost("given up"), status="error"), Lost, "given up"),
        (Future(BadInput("plugin x.py is broken"), status="error"), BadInput, "plugin x.py is broken"),
        (Future(ImportError("no module torch"), status="error"), CannotTake, "no module torch; scheduler and workers"),
        (Future(status="pending"), Lost, "the device went away"),
    ],
)
def test_what_ends_a_request_without_an_answer_is_told_apart(monkeypatch, future, error, message):
    with pytest.raises(error, match=message):
        ask(monkeypatch, future)


# A run, with fakes for scheduler and devices --------------------------------------------------------------------------


class Scheduler:
    """In place of Link: `present` is {id: about}, None while the scheduler is away. Devices are made by `device`."""

    address = "tcp://test:8786"

    def __init__(self) -> None:
        self.present: dict[str, About] | None = {}
        self.scripts: dict[str, object] = {}
        self.surveys: dict[str, object] = {}
        self.devices: dict[str, Device] = {}
        self.rested: list[str] = []
        self.rolls = 0
        self.on_roll = lambda number: None

    def __call__(self, address):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *about):
        pass

    def roll_call(self):
        self.rolls += 1
        self.on_roll(self.rolls)
        return None if self.present is None else {id: (id, {"id": id, **a.to_json()}) for id, a in self.present.items()}

    def rest(self, run, workers):
        self.rested += workers

    def remote(self, link, id, address, about, kit):
        return Remote(self, id, about)


class Remote(Device):
    """A device that leaves when it is told to, as the real one does."""

    def __init__(self, scheduler: Scheduler, id: str, about: About) -> None:
        super().__init__(scheduler.scripts.get(id, lambda request, alone: None))
        self.id, self.address, self.about, self.versions = id, id, about, about.versions
        self._survey = scheduler.surveys.get(id)
        scheduler.devices[id] = self

    def ask(self, request, timeout_s, *, alone=False):
        if self.gone:
            raise Lost("gone")
        return super().ask(request, timeout_s, alone=alone)

    def survey(self, files):
        if isinstance(self._survey, Exception):
            raise self._survey
        return self._survey or Survey(
            {name: kernel.source_sha for name, kernel in sparsebench.kernel.all_kernels().items()}, {}, []
        )

    def leave(self):
        self.gone = True


@pytest.fixture
def scheduler(monkeypatch):
    made = Scheduler()
    monkeypatch.setattr(cluster, "Link", made)
    monkeypatch.setattr(cluster, "Remote", made.remote)
    monkeypatch.setattr(cluster, "BEAT_S", 0.01)
    return made


def fleet(folder: Path, said: list[str] | None = None, n=(4, 8), **more) -> FleetRun:
    suite = small(folder, "csr.scipy", "csr.torch", "csr.cusparse", n=n)
    watch = Watch(said=(said if said is not None else []).append)
    return FleetRun(suite, folder / "results", "tcp://test:8786", watch=watch, **more)


def test_a_mixed_fleet_runs_the_suite_once_on_each_machine(scheduler, tmp_path):
    scheduler.present = {"c1": about(), "c2": about(place="core 0"), "g": about(GPU, place="gpu 0")}
    scheduler.scripts = dict.fromkeys(("c1", "c2"), lambda request, alone: time.sleep(0.005))
    run = fleet(tmp_path, n=range(1, 7))
    summaries = {summary.machine.id: summary for summary in run.execute()}
    assert set(summaries) == {CPU.id, GPU.id}
    for machine in (CPU, GPU):
        found = [record for record in stored(tmp_path / "results") if record.machine == machine.id]
        assert len(found) == len({record.key for record in found}) == len(run.trials(machine.device))
        assert {(record.case.key, record.kernel) for record in found} == {
            (trial.case.key, trial.kernel) for trial in run.trials(machine.device)
        }
        assert len((tmp_path / "results" / machine.id / "peaks.jsonl").read_text().splitlines()) == 1
        assert (tmp_path / "results" / machine.id / "machine.json").is_file()
    assert "csr.cusparse" in {record.kernel for record in summaries[GPU.id].records}
    assert "csr.cusparse" not in {record.kernel for record in summaries[CPU.id].records}
    assert all(len(scheduler.devices[id].asked) > 5 for id in ("c1", "c2", "g")), "equal machines share"
    assert sorted(scheduler.rested) == ["c1", "c2", "g"], "their worker processes end with the run"
    assert {summary.kept for summary in run.execute()} == {len(run.trials("cpu")), len(run.trials("cuda"))}


def test_the_environment_in_a_record_is_the_worker_s(scheduler, tmp_path):
    scheduler.present = {"a": about(versions={"torch": "9.9", "cc": "tcc"})}
    (summary,) = fleet(tmp_path).execute()
    assert {record.versions["torch"] for record in summary.records} == {"9.9"}
    assert summary.records[0].host == {"system": "test"}


def test_workers_join_late_die_and_come_back(scheduler, tmp_path):
    said: list[str] = []
    stages = iter(
        [
            (lambda: rolls() > 2, {"a": about()}),
            (lambda: asked("a") > 10, {"a": about(), "b": about(place="core 0")}),
            (lambda: asked("b") > 10, {"b": about(place="core 0")}),
            (lambda: asked("b") > 20, {}),
            (lambda: rolls() > 5, None),
            (lambda: rolls() > 5, {"c": about()}),
            (lambda: False, {}),
        ]
    )
    stage, since = [next(stages)], [0]

    def rolls() -> int:
        return scheduler.rolls - since[0]

    def asked(id: str) -> int:
        return len(scheduler.devices[id].asked) if id in scheduler.devices else 0

    def come_and_go(number):
        if stage[0][0]():
            scheduler.present, since[0] = stage[0][1], number
            stage[0] = next(stages)

    scheduler.on_roll = come_and_go
    scheduler.scripts = dict.fromkeys("abc", lambda request, alone: time.sleep(0.03))
    (summary,) = fleet(tmp_path, said, n=range(1, 13)).execute()
    assert set(scheduler.devices) == {"a", "b", "c"}
    found = stored(tmp_path / "results")
    assert len(found) == len({record.key for record in found}) == len(summary.records)
    assert {record.outcome for record in found} == {"ok"}
    talk = "\n".join(said)
    assert "no worker is at tcp://test:8786 yet; start one on each device with `sparsebench worker" in talk
    assert f"a ({CPU.id}) went away; what it was doing is done again" in talk
    assert re.search(rf"no worker of {CPU.id} is there: \d+ trials wait for one", talk)
    assert "the scheduler at tcp://test:8786 went away; waiting for it to come back" in talk


REFUSALS = {
    "other code": (about(code="0" * 64), None, "this is"),
    "other device": (about(GPU), None, "--device cpu was asked for"),
    "no data": (about(), Survey({}, {}, [Path("/data/a.smtx")]), "it has no /data/a.smtx; put the run's data"),
    "other kernels": (about(), Survey({}, {}, []), "is another than here"),
    "a broken plugin": (about(), BadInput("plugin x.py cannot be imported"), "plugin x.py cannot be imported"),
    "another environment": (about(), CannotTake("ModuleNotFoundError"), "ModuleNotFoundError"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_a_run_that_no_worker_can_take_part_in_is_refused_and_writes_nothing(scheduler, tmp_path, why):
    who, found, message = REFUSALS[why]
    scheduler.present, scheduler.surveys = {"a": who}, {"a": found}
    with pytest.raises(BadInput, match=f"the worker at a gets no trials: .*{re.escape(message)}"):
        fleet(tmp_path, device="cpu").execute()
    assert not (tmp_path / "results").exists()


def test_a_refused_worker_keeps_no_other_from_working(scheduler, tmp_path):
    said: list[str] = []
    scheduler.present = {"a": about(code="0" * 64), "b": about()}
    (summary,) = fleet(tmp_path, said).execute()
    assert set(summary.outcomes) == {"ok"}
    assert any("the worker at a gets no trials" in text for text in said)


def test_an_equal_machine_with_other_versions_gets_no_trials(scheduler, tmp_path):
    said: list[str] = []
    scheduler.present = {"a": about()}

    def late(request, alone):
        scheduler.present["b"] = about(versions={"torch": "2.6.0"})
        time.sleep(0.02)

    scheduler.scripts = {"a": late}
    (summary,) = fleet(tmp_path, said).execute()
    assert any("b gets no trials: it has torch 2.6.0, and the first worker" in text for text in said)
    assert {record.versions["torch"] for record in summary.records} == {"2.13.0"}


def test_a_worker_whose_process_does_not_start_is_let_go_and_its_problem_goes_on_elsewhere(scheduler, tmp_path):
    said: list[str] = []

    def broken(request, alone):
        raise CannotTake("the worker process could not start: no torch")

    scheduler.present = {"a": about(), "b": about(place="core 0")}
    scheduler.scripts = {"a": broken, "b": lambda request, alone: time.sleep(0.005)}
    (summary,) = fleet(tmp_path, said).execute()
    assert set(summary.outcomes) == {"ok"}
    assert any("a gets no trials: the worker process could not start" in text for text in said)


def test_two_workers_on_one_device_are_told_of(scheduler, tmp_path):
    said: list[str] = []
    scheduler.present = {"a": about(), "b": about()}
    fleet(tmp_path, said).execute()
    assert any("share core 1 of host and disturb each other's times" in text for text in said)


def test_the_time_limit_ends_a_run_that_nobody_joins_and_one_whose_workers_left(scheduler, tmp_path):
    start_s = time.monotonic()
    assert fleet(tmp_path, time_limit_s=0.2).execute() == []
    assert time.monotonic() - start_s < 5

    def leave(request, alone):
        scheduler.present = {}
        raise Lost("planted")

    scheduler.present, scheduler.scripts = {"a": about()}, {"a": leave}
    (summary,) = fleet(tmp_path, time_limit_s=0.5).execute()
    assert summary.not_started == 16
    assert stored(tmp_path / "results") == []


def test_ctrl_c_stops_every_device_and_leaves_whole_records(scheduler, tmp_path):
    at_work = threading.Event()

    def script(request, alone):
        at_work.set()
        time.sleep(0.005)

    def interrupt(number):
        if at_work.is_set() and number > 10:
            raise KeyboardInterrupt

    scheduler.present = {"a": about(), "b": about(place="core 0")}
    scheduler.scripts, scheduler.on_roll = dict.fromkeys("ab", script), interrupt
    with pytest.raises(KeyboardInterrupt):
        fleet(tmp_path, n=range(1, 40)).execute()
    assert sorted(scheduler.rested) == ["a", "b"]
    assert all(device.gone for device in scheduler.devices.values())
    assert not [thread for thread in threading.enumerate() if thread.name in ("a", "b")]
    before = stored(tmp_path / "results")
    scheduler.on_roll, scheduler.scripts = lambda number: None, {}
    (summary,) = fleet(tmp_path, n=range(1, 40)).execute()
    assert summary.kept >= len(before) - 8, "but for dense records of a problem cut off before its baselines had names"
    found = stored(tmp_path / "results")
    assert len(found) == len({record.key for record in found}) == len(summary.records)


def test_results_that_another_run_writes_to_are_refused(scheduler, tmp_path):
    scheduler.present = {"a": about()}
    with Store(tmp_path / "results", CPU, "small"), pytest.raises(StoreError, match="is being written by another run"):
        fleet(tmp_path).execute()


def test_a_dry_run_says_what_each_machine_gets_and_writes_nothing(scheduler, tmp_path):
    scheduler.present = {"a": about(), "b": about(), "g": about(GPU), "x": about(code="")}
    run = fleet(tmp_path)
    found = {machine.id: (trials, most_s) for machine, trials, most_s in run.dry()}
    assert {id: trials for id, (trials, _) in found.items()} == {
        CPU.id: len(run.trials("cpu")),
        GPU.id: len(run.trials("cuda")),
    }
    scheduler.present = {"a": about()}
    assert run.dry()[0][2] == pytest.approx(2 * found[CPU.id][1]), "two equal machines take half the time"
    scheduler.present = {}
    with pytest.raises(BadInput, match="no worker that could take part"):
        run.dry()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1"])
def test_a_scheduler_that_is_not_there_is_refused_in_a_sentence(monkeypatch, address):
    monkeypatch.setattr("sparsebench.lab.cluster_link.CONNECT_S", 0.5)
    with pytest.raises(BadInput, match=r"--scheduler tcp://127\.0\.0\.1:1: no Dask scheduler answered"), Link(address):
        pass


def test_an_address_of_another_kind_is_refused_by_run_and_worker_alike():
    for use in (Link, lambda address: cluster_worker.serve(address, CPU, print)):
        with pytest.raises(BadInput, match="the scheduler's address is 'http://a:1'; give one such as tcp://host:8786"):
            use("http://a:1")


def test_what_is_not_planned_at_all_is_refused_before_any_connection(tmp_path):
    with pytest.raises(BadInput, match="--device must be auto, cpu or cuda"):
        fleet(tmp_path, device="tpu")
    with pytest.raises(BadInput, match="nope"):
        fleet(tmp_path, only="nope.*")


# The command line -----------------------------------------------------------------------------------------------------


def cli(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run a command; (exit code, stdout, stderr)."""
    monkeypatch.setattr("sys.argv", ["sparsebench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_run_says_what_each_machine_found(scheduler, tmp_path, monkeypatch, capsys):
    scheduler.present = {"c": about(), "g": about(GPU, place="gpu 0")}
    suite = small(tmp_path, "csr.scipy", "csr.cusparse")
    where = ("--scheduler", "tcp://test:8786", "--results", tmp_path / "results")
    code, out, err = cli(monkeypatch, capsys, "run", suite.path, *where)
    assert code == 0
    for machine in (CPU, GPU):
        assert re.search(rf"^\d+ trials: \d+ ok.* -> .*/results/{machine.id}/small.jsonl$", out, re.MULTILINE)
        assert f"{machine.id}:\n" in out, "a verdict for each machine"
    assert out.count("Next: ") == out.count("Doubt: ") == 2
    assert "No C compiler" not in out, "whether there is one here does not matter"
    assert f"small: {CPU.id} at c takes part" in err
    code, out, _ = cli(monkeypatch, capsys, "run", suite.path, *where, "--dry-run", "--json")
    assert {plan["machine"] for plan in json.loads(out)["plans"]} == {CPU.id, GPU.id}


def test_a_kernel_left_out_is_told_in_the_summary(tmp_path):
    summary = Summary(CPU, tmp_path / "small.jsonl", left_out=Counter({"csr.c": 5}))
    assert "; csr.c broke too often, 5 of its trials wait for another run -> " in commands.summary_line(summary)
    assert commands.summary_json(summary)["left_out"] == {"csr.c": 5}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("worker", "http://a:1", "--device", "cpu"), "the scheduler's address is 'http://a:1'; give one such as"),
        (("worker", "tcp://a:1", "--device", "cpu", "--gpu", "0"), "--gpu and --device cpu were asked for"),
        (("worker", "tcp://a:1", "--device", "tpu"), "--device must be auto, cpu or cuda, found 'tpu'"),
        (("run", "quick", "--scheduler", "ftp://a"), "the scheduler's address is 'ftp://a'"),
        (("run", "no-such-suite", "--scheduler", "tcp://a:1"), "no-such-suite.*neither a file"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("worker", "tcp://a:1"), ("run", "quick", "--scheduler", "tcp://a:1")])
def test_without_dask_a_sentence_says_what_to_install(monkeypatch, capsys, arguments):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = cli(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "needs Dask distributed, which is not installed; install the extra: pip install -e '.[cluster]'" in err
