"""The lab's GPU side as far as a machine without a GPU can hold it true: clock, arithmetic, sources, what is kept.

The clock's samplers and its synchronisation can be replaced; here they are a pretend GPU with a time of its own.
"""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from test_clock import time_interleaved

from sparsebench.case import NUMPY_DTYPES, Case, Conv
from sparsebench.errors import SparsebenchError
from sparsebench.kernel import Launch
from sparsebench.lab.baselines import aa_flags
from sparsebench.lab.check import NUMPY
from sparsebench.lab.clock import Contestant, Rotation
from sparsebench.lab.cuda_build import as_argument, poisoned, tensor_of
from sparsebench.lab.cuda_clock import CudaClock, NotCapturable
from sparsebench.lab.cuda_source import translation_unit
from sparsebench.lab.device_check import TorchArithmetic
from sparsebench.lab.matrices import Matrices
from sparsebench.lab.probes import releaser
from sparsebench.lab.reference import Reference
from sparsebench.lab.throttle import LONGEST_REST_S, REST_S, Throttle
from sparsebench.paired import paired_ratio
from sparsebench.record import Protocol

CACHE_BYTES = 2**16
PROTOCOL = Protocol(budget_s=0.2, precision=1e-4)


class Gpu:
    """A pretend GPU: launches take the seconds they are told, work waits in a queue, and time passes at the end."""

    def __init__(self, order_bias: float = 0.0, refuses: str = "") -> None:
        self.order_bias, self.refuses = order_bias, refuses
        self.queue: list[Sample] = []
        self.done: list[str] = []
        self.rng = np.random.default_rng(0)

    def contestant(self, name: str, cost_s: float, copies: int = 3, weight_bytes: int = CACHE_BYTES) -> Contestant:
        def launch(copy: int) -> Launch:
            def run() -> tuple[str, float]:
                self.done.append(f"{name}{copy}")
                return name, cost_s

            return Launch(run)

        return Contestant(name, Rotation([launch(i) for i in range(copies)], weight_bytes), Marker(self, "x"))

    def clock(self, **fields) -> CudaClock:
        return CudaClock(
            CACHE_BYTES,
            rng=np.random.default_rng(1),
            graph=lambda before, call, loops: Sample(self, before, call, loops, graph=True),
            spin=lambda before, call, loops: Sample(self, before, call, loops, graph=False),
            synchronize=self.synchronize,
            flood=lambda: self.done.append("flood"),
            **fields,
        )

    def synchronize(self) -> None:
        for place, sample in enumerate(self.queue):
            late = self.order_bias * place / max(len(self.queue) - 1, 1)
            sample.took_s = sample.cost_s * (1 + late + 0.01 * self.rng.standard_normal())
        self.queue.clear()


class Marker:
    """An X whose reading is noted."""

    def __init__(self, gpu: Gpu, name: str) -> None:
        self.gpu, self.name = gpu, name

    def sum(self) -> None:
        self.gpu.done.append(f"read {self.name}")


class Sample:
    def __init__(self, gpu: Gpu, before, call, loops: int, *, graph: bool) -> None:
        self.gpu, self.before, self.call, self.loops = gpu, before, call, loops
        self.cost_s, self.took_s = 0.0, 0.0
        if graph and gpu.refuses and gpu.refuses == call()[0]:
            raise NotCapturable("operation not permitted when stream is capturing")
        gpu.done.clear()

    def enqueue(self) -> None:
        self.before()
        for _ in range(self.loops):
            _, self.cost_s = self.call()
        self.gpu.queue.append(self)

    def time_s(self) -> float:
        return self.took_s


def timed(gpu: Gpu, contestants, protocol: Protocol = PROTOCOL, **fields):
    return time_interleaved(gpu.clock(**fields), contestants, protocol, [contestants[0].name])


# ------------------------------------------------------------------------------------------------------------- clock


def test_ratios_are_right_and_the_twin_is_one():
    gpu = Gpu()
    dense = gpu.contestant("dense.x", 2e-5)
    twin = Contestant("dense.aa", dense.rotation, dense.x)
    timing = timed(gpu, [dense, twin, gpu.contestant("csr.x", 1e-5)])
    times_s = timing.samples["weights_cold"]
    assert paired_ratio(times_s["dense.x"], times_s["csr.x"]).median == pytest.approx(2, abs=0.02)
    assert aa_flags("dense.x", timing.samples) == []


def test_random_order_cancels_a_bias_by_place_and_a_fixed_one_does_not():
    def flags(**fields) -> list[str]:
        gpu = Gpu(order_bias=0.03)
        dense = gpu.contestant("dense.x", 2e-5)
        return aa_flags(
            "dense.x", timed(gpu, [dense, Contestant("dense.aa", dense.rotation, dense.x)], **fields).samples
        )

    assert flags() == []
    assert flags(order=range) == ["aa_off:dense.x:weights_cold"]


def test_what_cannot_be_captured_takes_its_whole_group_to_the_other_clock():
    gpu = Gpu(refuses="csr.x")
    clock, pair = gpu.clock(), [gpu.contestant("dense.x", 2e-5), gpu.contestant("csr.x", 1e-5)]
    time_interleaved(clock, pair, PROTOCOL, ["dense.x"])
    assert clock.way == "spin"
    time_interleaved(clock, pair[:1], PROTOCOL, ["dense.x"])
    assert clock.way == "graph"


def test_weights_cold_reads_x_and_takes_copies_in_turn():
    gpu = Gpu()
    rounds = gpu.clock().rounds([gpu.contestant("a", 1e-5)], ["weights_cold"])
    for _ in range(4):
        next(rounds)
    assert gpu.done == ["read x", "a0", "read x", "a1", "read x", "a2", "read x", "a0"]


def test_copies_that_fit_the_cache_are_washed_out_once_a_turn():
    gpu = Gpu()
    rounds = gpu.clock().rounds([gpu.contestant("a", 1e-5, copies=2, weight_bytes=16)], ["weights_cold"])
    for _ in range(3):
        next(rounds)
    assert gpu.done == ["flood", "read x", "a0", "read x", "a1", "flood", "read x", "a0"]


def test_cold_floods_before_each_launch_and_hot_calls_once_untimed():
    gpu = Gpu()
    next(gpu.clock().rounds([gpu.contestant("a", 1e-5)], ["cold"]))
    assert gpu.done == ["flood", "a0"]
    slow = Gpu()
    next(slow.clock().rounds([slow.contestant("a", 1e-2)], ["hot"]))
    assert slow.done == ["a0", "a0"]


def test_hot_loops_short_launches():
    gpu = Gpu()
    next(gpu.clock().rounds([gpu.contestant("a", 1e-6)], ["hot"]))
    assert 15 < len(gpu.done) <= 66


def test_t0_is_an_empty_kernel_of_the_same_shape():
    gpu, asked = Gpu(), []

    def empty(grid, block):
        asked.append((grid, block))
        return lambda: ("empty", 1.5e-6)

    clock = gpu.clock(empty=empty)
    assert clock.t0_s((7, 2), (128,)) == pytest.approx(1.5e-6, rel=0.02)
    assert asked == [((7, 2), (128,))]
    assert clock.t0_s((), ()) is None
    assert gpu.clock().t0_s((1,), (1,)) is None


# -------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("conv", [None, Conv(c=4, h=6, w=5, kh=3, kw=3, stride=2, padding=1, groups=2, batch=2)])
def test_the_devices_float64_agrees_with_numpys(dtype, conv):
    n = 9 if conv is None else conv.batch * conv.oh * conv.ow
    k = 33 if conv is None else 18
    fields = {} if conv is None else {"op": "conv2d", "conv": conv}
    case = Case(m=6, k=k, n=n, pattern="unstructured", sparsity=0.5, dtype=dtype, **fields)
    draw = case.draw()
    here, there = (Reference(case, draw, arithmetic=numbers) for numbers in (NUMPY, TorchArithmetic("cpu")))
    assert np.array_equal(there.integers().y, here.integers().y)
    assert np.allclose(there.normal().y, here.normal().y, rtol=1e-13, atol=1e-13)
    assert np.allclose(there.normal().allowed, here.normal().allowed, rtol=1e-6, atol=0)  # numpy's in float32


def test_the_devices_judgement_is_numpys():
    case = Case(m=6, k=33, n=9, pattern="unstructured", sparsity=0.5)
    draw = case.draw()
    answer = here = Reference(case, draw).normal()
    answer = (here.w @ here.x).astype(np.float32)
    there = Reference(case, draw, arithmetic=TorchArithmetic("cpu")).normal()
    assert there.judge(torch.from_numpy(answer), case).ratio == pytest.approx(here.judge(answer, case).ratio, rel=1e-6)
    for fault in (np.nan, 3.0):
        answer[2, 3] = fault
        judged = [q.judge(a, case) for q, a in ((here, answer), (there, torch.from_numpy(answer)))]
        assert judged[0].reason == judged[1].reason
        assert "Y[2, 3]" in judged[0].reason


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_operands_are_rounded_and_a_lost_nonzero_or_16_bit_sums_are_refused(dtype):
    case = Case(m=16, k=2048, n=8, pattern="unstructured", sparsity=0.5, dtype=dtype)
    question = Reference(case, case.draw()).normal()
    assert np.array_equal(question.w.astype(NUMPY_DTYPES[dtype]).astype(np.float32), question.w)
    honest = (question.w @ question.x).astype(NUMPY_DTYPES[dtype])
    assert question.judge(honest.astype(np.float32), case).ok
    w = question.w.copy()
    for row in w:
        row[np.flatnonzero(row)[0]] = 0
    assert not question.judge((w @ question.x).astype(NUMPY_DTYPES[dtype]).astype(np.float32), case).ok
    total = np.zeros((16, 8), NUMPY_DTYPES[dtype])
    for column in range(2048):
        total = (total + np.outer(w[:, column], question.x[column])).astype(NUMPY_DTYPES[dtype])
    assert not question.judge(total.astype(np.float32), case).ok


def test_a_loosened_reference_allows_what_rounding_the_operands_costs_and_no_more():
    case = Case(m=16, k=512, n=8, dtype="bfloat16")
    strict = Reference(case, case.draw())
    loose = strict.loosened(2.0**-4 / 512**0.5)
    question = strict.normal()
    fp8 = [a.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) for a in (question.w, question.x)]
    answer = (fp8[0] @ fp8[1]).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert not strict.normal().judge(answer, case).ok
    assert loose.normal().judge(answer, case).ok
    assert loose.integers().allowed.max() == 0
    assert not loose.normal().judge(np.zeros_like(answer), case).ok


# ------------------------------------------------------------------------------------------------ tensors and sources


def test_tensors_keep_bits_and_bytes():
    halves = np.arange(5, dtype=np.float32).astype(ml_dtypes.bfloat16)
    assert tensor_of(halves, "cpu").dtype == torch.bfloat16
    assert tensor_of(halves, "cpu").float().tolist() == [0, 1, 2, 3, 4]
    assert tensor_of(np.array([65535], np.uint16), "cpu").tolist() == [-1]
    array = np.ones(3, np.float32)
    tensor_of(array, "cpu").zero_()
    assert array.all()
    assert poisoned((2,), "bfloat16", "cpu").isnan().all()
    assert poisoned((2,), "int32", "cpu").tolist() == [-1, -1]


def test_arguments_have_the_parameters_types():
    assert as_argument(3).value == 3
    assert type(as_argument(1.5)).__name__ == "c_float"
    assert type(as_argument(np.int64(1))).__name__ == "c_long"
    with pytest.raises(SparsebenchError, match="takes tensors, ints, floats and numpy scalars, found str"):
        as_argument("x")
    with pytest.raises(SparsebenchError, match="needs contiguous tensors"):
        as_argument(torch.zeros(3, 2).T)


def test_headers_are_taken_in_once_the_first_folder_first(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "p.cuh").write_text("#pragma once\nint from_a;\n")
    (tmp_path / "b" / "p.cuh").write_text("int from_b;\n")
    (tmp_path / "b" / "q.cuh").write_text('#include "p.cuh"  // twice\nint q;\n')
    body = tmp_path / "b" / "body.cu"
    body.write_text('#include "p.cuh"\n#include "q.cuh"\n#include <kept>\nint body;\n')
    text = translation_unit(body, [tmp_path / "a"])
    assert text.count("from_a") == 1
    assert "from_b" not in text
    assert "#include <kept>" in text
    assert text.index("from_a") < text.index("int q") < text.index("int body")
    body.write_text('#include "nowhere.cuh"\n')
    with pytest.raises(SparsebenchError, match=r'body.cu includes "nowhere.cuh", which is in none of'):
        translation_unit(body, [])


def test_what_is_kept_is_made_once_and_the_longest_unused_goes_first():
    made = []

    def make(name: str):
        def now() -> np.ndarray:
            made.append(name)
            return np.zeros(100, np.uint8)

        return now

    kept = Matrices(most_bytes=250)
    for name in ("a", "b", "a", "c", "a", "b"):
        kept.get(name, make(name))
    assert made == ["a", "b", "c", "b"]


# ---------------------------------------------------------------------------------------------------------- throttling


class Falling:
    """A GPU whose clock is told by a list, round by round, the last for ever; 2000 MHz at most."""

    def __init__(self, *seen: tuple[float | None, int]) -> None:
        self.most_mhz, self._seen = 2000.0, list(seen)

    def look(self) -> tuple[float | None, int]:
        return self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]


def rounds_of(throttle: Throttle, count: int) -> None:
    throttle.begin()
    for _ in range(count):
        throttle.after_round()


def test_a_fallen_clock_rests_longer_each_time_and_keeps_its_samples():
    rests: list[float] = []
    gpu = Gpu()
    clock = gpu.clock(throttle=Throttle(Falling((1900, 0), (1200, 4), (1200, 4), (1900, 0)), rests.append))
    timing = time_interleaved(clock, [gpu.contestant("dense.x", 1e-3)], PROTOCOL, ["dense.x"])
    assert rests == [REST_S, 2 * REST_S]
    assert {flag.split(":")[0] for flag in timing.flags} >= {"throttled", "slow_clock"}
    assert len(clock.clocks()["round_mhz"]) == len(timing.samples["weights_cold"]["dense.x"])
    assert clock.clocks()["reasons"] == 4


def test_rests_do_not_grow_for_ever():
    rests: list[float] = []
    rounds_of(Throttle(Falling((900, 32)), rests.append), 12)
    assert max(rests) == LONGEST_REST_S
    assert len(rests) == 12


def test_a_full_clock_raises_no_doubt_and_an_unknown_one_neither():
    for seen in ((1990.0, 0), (None, 0)):
        throttle = Throttle(Falling(seen), pytest.fail)
        rounds_of(throttle, 3)
        assert throttle.doubts() == ()
    assert throttle.clocks() == {}


# ---------------------------------------------------------------------------------------------------- persisting lines


class Persisting(Gpu):
    """A GPU where a kernel that marks its lines as persisting runs ten times as fast until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.marked = False

    def cheat(self) -> Contestant:
        def run() -> tuple[str, float]:
            cost_s = 1e-6 if self.marked else 1e-5
            self.marked = True
            return "cheat", cost_s

        return Contestant("cheat", Rotation([Launch(run)], CACHE_BYTES), Marker(self, "x"))

    def release(self) -> None:
        self.marked = False


@pytest.mark.parametrize("cache", ["cold", "weights_cold"])
def test_lines_that_persist_in_the_l2_make_no_kernel_faster(cache):
    def median_s(gpu: Persisting, **fields) -> float:
        protocol = Protocol(cache=(cache,), budget_s=0.1, precision=1e-9)
        timing = time_interleaved(gpu.clock(**fields), [gpu.cheat(), gpu.contestant("a", 1e-5)], protocol, ["a"])
        return float(np.median(timing.samples[cache]["cheat"]))

    gpu = Persisting()
    assert median_s(gpu, release=gpu.release) == pytest.approx(1e-5, rel=0.05)
    assert median_s(Persisting(), release=lambda: None) == pytest.approx(1e-6, rel=0.05)  # so the test can fail


def test_without_cuda_there_is_nothing_to_release():
    releaser()()
