"""The dense kernel of a layer is chosen where the layer stands, on X as the layer before hands it on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sparsebench.case import Case, Conv
from sparsebench.errors import MissingNeed, Refused
from sparsebench.kernel import leaves_channels_last
from sparsebench.lab.verify_choice import COPIES, PASS_ROUNDS, SCREEN_ROUNDS, Choice, Judge

CASE = Case(m=8, k=8, n=16, op="conv2d", conv=Conv(8, 4, 4, 1, 1))
X = torch.zeros(1, 8, 4, 4)
LAST = X.to(memory_format=torch.channels_last)


class Product:
    """A product that takes as long as its table says of the strides of X."""

    def __init__(self, name, contiguous_s, channels_last_s):
        self.name, self.contiguous_s, self.channels_last_s = name, contiguous_s, channels_last_s
        self.moved, self.copies, self.turn = self, 1, 0

    def hold(self, copies):
        self.copies = max(self.copies, copies)

    def next_copy(self):
        self.turn = (self.turn + 1) % self.copies

    def __call__(self, x):
        return self.contiguous_s if x.is_contiguous() else self.channels_last_s


class Clock:
    """Believes what products say, and counts rounds of each."""

    def __init__(self):
        self.timed = {}

    def rounds(self, contestants, caches):
        while True:
            for each in contestants:
                self.timed[each.name] = self.timed.get(each.name, 0) + 1
            yield {cache: {each.name: each.rotation.take().run() for each in contestants} for cache in caches}


PRODUCTS = {
    "plain": Product("plain", 1.0, 3.0),
    "blocked": Product("blocked", 1.1, 1.0),
    "slow": Product("slow", 9.0, 9.0),
}


def make(name):
    if name == "missing":
        raise MissingNeed("not installed")
    return PRODUCTS[name]


def choice(*names, judge=None):
    return Choice(CASE, names, make, judge or Judge(SimpleNamespace(clock=Clock())))


@pytest.mark.parametrize(("x", "best"), [(X, "plain"), (LAST, "blocked")])
def test_the_way_x_lies_decides(x, best):
    asked = choice("plain", "blocked", "slow", "missing")
    asked(x)
    assert asked.settled().name == best


def test_what_is_hopeless_is_not_timed_again():
    judge = Judge(SimpleNamespace(clock=Clock()))
    choice("plain", "blocked", "slow", judge=judge)(X)
    both = COPIES + SCREEN_ROUNDS
    assert judge.side.clock.timed == {"plain": both, "blocked": both, "slow": COPIES}


def test_rounds_in_which_code_was_cold_do_not_count():
    """The clock writes the cache over where the rotation wraps: then all is cold, and a big library loses most."""
    cold = 10.0

    class Washing(Clock):
        def rounds(self, contestants, caches):
            for number, times_s in enumerate(super().rounds(contestants, caches)):
                wraps = [each.rotation.wraps_within(2**20) for each in contestants]
                assert wraps == [(number + 1) % COPIES == 0] * len(contestants)
                if number % COPIES == 0:
                    times_s[caches[0]]["blocked"] *= cold
                yield times_s

    judge = Judge(SimpleNamespace(clock=Washing()))
    asked = choice("plain", "blocked", judge=judge)
    asked(LAST)
    assert asked.settled().name == "blocked"
    assert {product.copies for product in (PRODUCTS["plain"], PRODUCTS["blocked"])} == {COPIES}


def test_one_question_is_timed_once_and_another_way_x_lies_is_another():
    judge = Judge(SimpleNamespace(clock=Clock()))
    for _ in range(3):
        choice("plain", "blocked", judge=judge)(X)
    assert judge.side.clock.timed["plain"] == COPIES + SCREEN_ROUNDS
    later = choice("plain", "blocked", judge=judge)
    later(LAST)
    assert later.settled().name == "blocked"


def test_one_kernel_needs_no_clock_and_none_is_refused():
    assert choice("slow").settled().name == "slow"
    assert choice("missing", "blocked").settled().name == "blocked"
    for ask in (lambda: choice("missing", "missing")(X), choice("missing").settled):
        with pytest.raises(Refused, match="no dense kernel can run"):
            ask()


class Network:
    """A network of one module, whose pass takes what its product takes and, with images left otherwise, some more."""

    def __init__(self):
        self.product = None

    def __call__(self, x):
        return self.product(x) + (1.0 if self.product.name == "blocked" else 0.0)


def test_whole_passes_say_what_layers_do_to_what_follows():
    judge, network = Judge(SimpleNamespace(clock=Clock())), Network()
    both = [{network: PRODUCTS["blocked"]}, {network: PRODUCTS["plain"]}]
    assert judge.faster_pass(network, both, [LAST]) == 0, "2 and 3 s"
    assert judge.faster_pass(network, both, [X]) == 1, "2.1 and 1 s"
    assert judge.faster_pass(network, both[:1], [X]) == 0, "there is one way"


def test_passes_that_are_near_and_short_are_looked_at_longer():
    judge, network = Judge(SimpleNamespace(clock=Clock())), Network()
    fast, near, far = (Product("plain", time_s, time_s) for time_s in (0.100, 0.101, 0.2))
    assert judge.faster_pass(network, [{network: each} for each in (far, near, fast)], [X]) == 2
    assert judge.side.clock.timed == {"0": COPIES, "1": COPIES + PASS_ROUNDS, "2": COPIES + PASS_ROUNDS}


def test_a_choice_among_some_kernels():
    names = ("dense.torch_conv", "dense.onednn_conv", "dense.onednn_nhwc")
    assert choice(*names).among(lambda name: "torch" in name).names == ["dense.torch_conv"]
    assert choice(*names).among(leaves_channels_last).names == [*names[1:]]
    assert choice(*names[:1]).among(leaves_channels_last) is None
