""".ci/power.py plants what it says, and says no where a rate is missed. (Running it takes twenty minutes.)"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from sparsebench.kernel import Launch, load_plugin
from sparsebench.suite import Suite

SCRIPT = Path(__file__).parent.parent / ".ci" / "power.py"
spec = importlib.util.spec_from_file_location("power", SCRIPT)
assert spec is not None
assert spec.loader is not None
power = importlib.util.module_from_spec(spec)
spec.loader.exec_module(power)


def asked(folder: Path, kernel: str) -> argparse.Namespace:
    return argparse.Namespace(folder=folder, kernel=kernel, problems=5, runs=1, budget=0.1, cache="hot")


@pytest.mark.parametrize("kernel", ["dense.torch_mm", "csr.c"])
def test_the_plugin_has_a_copy_for_each_share_and_no_copy_can_be_a_baseline(tmp_path, kernel):
    plugin = power.write_plugin(asked(tmp_path, kernel), "new", power.PLANTED)
    kernels = {each.name.partition(".planted_")[2]: each for each in load_plugin(plugin)}
    assert set(kernels) == set(power.PLANTED)
    assert all(bool(each.lossy) == kernel.startswith("dense") for each in kernels.values())
    suite = Suite.load(power.write_suite(asked(tmp_path, kernel)), plugins=[plugin])
    trials = suite.trials({each.name: each for each in kernels.values()})
    assert len(trials) == 5 * len(power.PLANTED)


def test_a_copy_takes_its_share_longer(tmp_path):
    plugin = power.write_plugin(asked(tmp_path, "csr.scipy"), "new", power.PLANTED)
    load_plugin(plugin)
    slowed = next(
        module.slowed for name, module in sys.modules.items() if name.startswith("sparsebench_plugin_planted")
    )
    launch = slowed(Launch(lambda: time.sleep(0.01), again=lambda: Launch(lambda: None)), 0.5)
    start_s = time.perf_counter()
    launch.run()
    assert time.perf_counter() - start_s >= 0.015
    assert launch.again().run() is None


def pairs(letter: str, *words: str) -> list[dict[str, object]]:
    return [{"kernel": f"csr.planted_{letter}", "verdict": word, "against": {"names": []}} for word in words]


@pytest.mark.parametrize(
    "letter, words, missed",
    [
        ("a", ["SAME"] * 100, 0),
        ("a", ["SAME"] * 99 + ["FAST"], 0),
        ("a", ["SAME"] * 98 + ["SLOW"] * 2, 1),
        ("f", ["SLOW"] * 8 + ["UNSURE"] * 2, 0),
        ("f", ["SLOW"] * 7 + ["SAME"] * 3, 1),
        ("g", ["SLOW"] * 94 + ["FAST"] * 6, 1),
        ("h", ["SLOW"] * 98 + ["UNSURE"] * 2, 1),
    ],
)
def test_a_missed_rate_is_a_no(letter, words, missed, capsys):
    found = {**{each: pairs(each, "SLOW") for each in "fgh"}, "a": pairs("a", "SAME"), letter: pairs(letter, *words)}
    apart = {"alike": {"sd": 0.01, "controls": 9}}
    assert power.report({"pairs": list(chain(*found.values())), "apart": apart}) == missed
    assert "false alarms" in capsys.readouterr().out
    assert power.report({"pairs": [], "apart": apart}) == 1, "nothing found is nothing shown"
