"""verify on a GPU, as far as a machine without one can hold it true: a pretend GPU whose events are the CPU's clock.

Its graphs run the pass again when they are replayed. Kernels are those of a GPU: libraries on tensors of the CPU, and
CUDA bodies on the shim.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shim_cases import needs_shim
from test_movable_cuda import Tensors

from sparsebench.errors import BadInput
from sparsebench.kernel import load_kernels
from sparsebench.lab import verify, verify_cuda
from sparsebench.lab.cuda_clock import NotCapturable
from sparsebench.lab.cuda_side import CudaSide
from sparsebench.lab.movable_cuda import NetworkCudaToolchain
from sparsebench.lab.ready import WrongAnswer
from sparsebench.lab.verify import Verification, builder_of
from sparsebench.lab.verify_bench import NetworkBench
from sparsebench.lab.verify_build import load_builder
from sparsebench.lab.verify_cuda import EAGER_ROUNDS, CudaNetworkSide, EagerSample, EventLap
from sparsebench.machine import Machine
from sparsebench.network import Network
from sparsebench.plan import Choice, Plan
from sparsebench.record import Protocol
from sparsebench.rest import DENSE, PLANNED, TORCH, series

TOY = Path(__file__).parent / "networks" / "toy.yaml"
QUICK = Protocol(budget_s=0.05, precision=0.05)
MACHINE = replace(Machine.here("cpu"), device="cuda", cache_bytes=2**16)
KERNELS = {kernel.name: kernel for kernel in load_kernels()}
LINEAR, CONV = ("body.0", "body.2"), ("stem", "out")


class PretendEvent:
    """Notes the time; in `log` every record."""

    log: list[PretendEvent] = []  # noqa: RUF012

    def record(self):
        self.at_s = time.perf_counter()
        PretendEvent.log.append(self)

    def elapsed_time(self, end):
        return 1e3 * (end.at_s - self.at_s)


class PretendSample:
    """As GraphSample: the call runs once when it is made, and again with each replay."""

    def __init__(self, before, call, loops):
        self.before, self.call, self.took_s, self.runs = before, call, 0.0, 0
        self.replay()

    def replay(self):
        self.before()
        start_s = time.perf_counter()
        self.call()
        self.took_s, self.runs = time.perf_counter() - start_s, self.runs + 1

    def enqueue(self):
        self.replay()

    def time_s(self):
        return self.took_s


class Refuses(PretendSample):
    """A network waits for the GPU in its forward pass: nothing can be captured."""

    def __init__(self, before, call, loops):
        raise NotCapturable("operation not permitted when stream is capturing\nsearch the documentation")


class Frozen(PretendSample):
    """A graph whose replay changes nothing: it always answers what it answered when it was captured."""

    def enqueue(self):
        pass


@pytest.fixture(autouse=True)
def grad_off():
    PretendEvent.log.clear()
    with torch.no_grad():
        yield


def pretend(tensors, graph=PretendSample):
    side = CudaSide(MACHINE.cache_bytes, device="cpu")
    side.clock.graph, side.clock.spin, side.clock.synchronize = graph, PretendSample, lambda: None
    side.clock.flood = lambda: None
    return CudaNetworkSide(side, NetworkCudaToolchain(tensors), eager=PretendSample, event=PretendEvent)


def verification(monkeypatch, sparse="csr.torch_cuda", layers=LINEAR):
    monkeypatch.setattr(verify, "missing_needs", lambda kernels: {})
    net = Network.load(TOY)
    plan = Plan(net, {name: Choice("unstructured", {}, 0.8, sparse) for name in layers})
    return Verification(
        network=net, builder=builder_of(TOY), planned=plan.cases(net, layout="batch"),
        chosen=dict.fromkeys(layers, sparse), baselines={}, machine=MACHINE, kernels=KERNELS, protocol=QUICK,
    )  # fmt: skip


def bench(monkeypatch, side, **about):
    return NetworkBench(verification(monkeypatch, **about).request(), KERNELS, QUICK, side)


def test_three_networks_in_graphs(monkeypatch):
    found = bench(monkeypatch, pretend(Tensors())).facts()
    names = [name for side in (DENSE, PLANNED) for name in (side, *(series(side, layer) for layer in (*LINEAR, *CONV)))]
    times_s = found["samples"]["weights_cold"]
    assert sorted(times_s) == sorted([TORCH, *names])
    assert len({len(rounds) for rounds in times_s.values()}) == 1
    assert min(map(min, times_s.values())) > 0
    assert 0 < found["error_ratio"] < 1
    assert found["facts"]["clock"] == "graph"
    assert set(found["facts"]["eager_s"]) == {TORCH, DENSE, PLANNED}
    about = found["facts"]["layers"]
    assert {about[name]["kernel"] for name in LINEAR} == {"csr.torch_cuda"}
    assert {about[name]["dense_kernel"].split("_")[0] for name in CONV} <= {"dense.cudnn", "dense.im2col"}
    assert {about[name]["follows"] for name in about} == {"arguments"}
    assert set(found["clocks"]) >= {"before_mhz", "after_mhz"}


@needs_shim
@pytest.mark.shim
def test_cuda_bodies_run_in_a_network(monkeypatch, shim):
    side = pretend(shim())
    found = bench(monkeypatch, side, sparse="csr.cuda", layers=("body.2", "out")).facts()
    about = found["facts"]["layers"]
    assert {about[name]["kernel"] for name in ("body.2", "out")} == {"csr.cuda"}
    assert {entry["follows"] for entry in about.values()} == {"arguments"}
    assert 0 < found["error_ratio"] < 1


def test_what_cannot_be_captured_takes_all_networks_to_the_other_way(monkeypatch):
    side = pretend(Tensors(), graph=Refuses)
    found = bench(monkeypatch, side).facts()["facts"]
    assert (found["clock"], found["not_capturable"]) == ("eager", "operation not permitted when stream is capturing")
    assert "eager_s" not in found
    assert side.way == "eager"


def test_the_second_check_judges_what_the_graphs_answer(monkeypatch):
    """Their inputs are written over; a graph that answers as before is found."""
    with pytest.raises(WrongAnswer, match=r"whole network against float64: network\.torch is off by"):
        bench(monkeypatch, pretend(Tensors(), graph=Frozen)).facts()


def test_events_stand_in_passes_of_their_own(monkeypatch):
    """Two a call, in the passes that are taken apart alone: nothing but kernels is in the time of the whole."""
    side = pretend(Tensors())
    made = bench(monkeypatch, side)
    inputs = (torch.randn(1, 4, 8, 8),)
    networks = made.building.networks(load_builder(builder_of(TOY)).build().eval(), inputs)
    rounds = side.rounds(networks, made.building.products, inputs)
    next(rounds)
    calls = 6  # of the four layers, two of which run twice
    PretendEvent.log.clear()
    times_s = next(rounds)
    assert len(PretendEvent.log) == 2 * 2 * calls
    assert {name for name in times_s if " " not in name} == {TORCH, DENSE, PLANNED}
    PretendEvent.log.clear()
    side.answer(PLANNED, networks[PLANNED], inputs)
    assert PretendEvent.log == []


def test_a_lap_is_silent_unless_it_is_open():
    lap = EventLap(PretendEvent)
    lap.begin()
    lap.end()
    assert PretendEvent.log == []
    lap.open()
    for _ in range(2):
        lap.begin()
        lap.end()
    pairs = lap.close()
    lap.begin()
    assert [event for pair in pairs for event in pair] == PretendEvent.log
    assert len(pairs) == 2


def test_tf32_is_off_inside_and_as_it_was_after(monkeypatch):
    seen = []

    def look(self):
        seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        raise BadInput("seen")

    monkeypatch.setattr(NetworkBench, "_facts", look)
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert before[0], "torch's default, which this is about"
    with pytest.raises(BadInput, match="seen"):
        bench(monkeypatch, pretend(Tensors())).facts()
    assert seen == [(False, "highest")]
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


def test_a_pass_that_is_enqueued_anew_starts_when_the_gpu_waits(monkeypatch):
    """What prepares the cache must be over before the first event: else it would hide the host's time."""
    done = []

    class Event:
        def __init__(self, **about):
            assert about == {"enable_timing": True}

        def record(self):
            done.append("event")

        def elapsed_time(self, end):
            return 2.0

    monkeypatch.setattr(verify_cuda.torch.cuda, "Event", Event)
    monkeypatch.setattr(verify_cuda.torch.cuda, "synchronize", lambda: done.append("wait"))
    sample = EagerSample(lambda: done.append("flood"), lambda: done.append("pass"), 1)
    sample.enqueue()
    assert done == ["flood", "wait", "event", "pass", "event"]
    assert sample.time_s() == pytest.approx(2e-3)


def test_eager_seconds_are_medians_of_all_three(monkeypatch):
    made = []

    def eager(before, call, loops):
        made.append(PretendSample(before, call, loops))
        return made[-1]

    side = pretend(Tensors())
    side.eager = eager
    networks = {name: torch.nn.Identity() for name in (TORCH, DENSE, PLANNED)}
    next(side.rounds(networks, {}, (torch.ones(1),)))
    assert [sample.runs for sample in made] == [1 + EAGER_ROUNDS] * 3
    assert all(np.isfinite(time_s) for time_s in side.facts()["eager_s"].values())
