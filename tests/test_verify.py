"""verify end to end on a tiny network: one record, three networks that agree, and a check that fails when it must."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsebench.cli import main
from sparsebench.cli.verify import LEVELS, _runs
from sparsebench.errors import BadInput, Refused
from sparsebench.kernel import load_kernels
from sparsebench.lab import verify, verify_build
from sparsebench.lab.clock import MAX_COPIES
from sparsebench.lab.ready import WrongAnswer
from sparsebench.lab.sides import CpuSide
from sparsebench.lab.verify import Verification, builder_of
from sparsebench.lab.verify_bench import NetworkBench, relative_error
from sparsebench.lab.verify_build import load_builder
from sparsebench.lab.verify_sides import CpuNetworkSide
from sparsebench.machine import Machine
from sparsebench.network import Network, shipped_networks
from sparsebench.paired import LEAST_ROUNDS
from sparsebench.plan import Plan
from sparsebench.record import Protocol
from sparsebench.rest import DENSE, PLANNED, TORCH, measured_rest, rest_share, series, times_of
from sparsebench.shipped import shipped_plans
from sparsebench.store import read_records

TOY = Path(__file__).parent / "networks" / "toy.yaml"
QUICK = Protocol(budget_s=0.05, precision=0.05)
MACHINE = replace(Machine.here("cpu"), cache_bytes=2**20)  # little to write over before each pass
KERNELS = {kernel.name: kernel for kernel in load_kernels()}
SPARSE = "csr.scipy"  # needs no compiler; linear layers alone
PLAN = f"""
network: {TOY}
layers:
  "body.*": {{pattern: unstructured, sparsity: 0.8, kernel: {SPARSE}}}
"""


@pytest.fixture
def grad_off():
    with torch.no_grad():
        yield


def verification(plan=None, network=TOY, **changes):
    net = Network.load(network)
    plan = plan or Plan.uniform(net, "unstructured", {}, 0.8, SPARSE)
    named = {name: choice.kernel for name, choice in plan.choices.items() if name.startswith("body")}
    about = {
        "network": net, "builder": builder_of(network), "planned": plan.cases(net, layout="batch"), "chosen": named,
        "baselines": {}, "machine": MACHINE, "kernels": KERNELS, "protocol": QUICK,
    }  # fmt: skip
    return Verification(**{**about, **changes})


def bench(asked):
    return NetworkBench(asked.request(), KERNELS, QUICK, CpuNetworkSide(CpuSide(MACHINE.cache_bytes)))


def test_one_record_of_three_networks(tmp_path):
    asked = verification()
    record = asked.execute(tmp_path)
    assert record.outcome == "ok"
    assert read_records(tmp_path) == [record]
    assert [path.name for path in tmp_path.glob("*/*.jsonl")] == ["verify-toy.jsonl"]
    assert record.case.kind == "rest"
    assert set(record.case.params["plan"]) == {"body.0", "body.2"}
    assert 0 < record.error_ratio < 1
    layers = [layer.name for layer in asked.network.layers]
    names = [TORCH, *(name for side in (DENSE, PLANNED) for name in (side, *(series(side, own) for own in layers)))]
    assert sorted(record.samples["weights_cold"]) == sorted(names)
    assert len({len(times_s) for times_s in record.samples["weights_cold"].values()}) == 1
    assert record.speedup().rounds >= 6
    for side in (DENSE, PLANNED):
        times = times_of(record, side)
        assert set(times.layers_s) == set(layers)
        assert 0 < times.rest_s < times.whole_s
        assert sum(times.layers_s.values()) < times.whole_s
    about = record.facts["layers"]
    assert {name: about[name]["kernel"] for name in ("body.0", "body.2")} == {"body.0": SPARSE, "body.2": SPARSE}
    assert about["stem"]["kernel"] == about["stem"]["dense_kernel"]
    assert about["body.0"]["nnz"] == round(0.2 * 64 * 32)
    assert about["body.0"]["changes_layout"]
    least = 2 * MACHINE.cache_bytes
    weights = {TORCH: "dense_bytes", DENSE: "dense_bytes", PLANNED: "format_bytes"}
    for side, copies in record.facts["copies"].items():
        held = copies * sum(found[weights[side]] for found in about.values())
        assert held >= least or copies == MAX_COPIES
    assert record.nnz == sum(found["nnz"] for found in about.values())
    assert measured_rest([record], asked.network, 1, MACHINE.id).dense == rest_share(record, DENSE)
    assert set(record.facts["sources"]) == {own[side] for own in about.values() for side in ("kernel", "dense_kernel")}


def test_named_baselines_and_torchs_own_are_all_the_rivals_there_are(grad_off):
    """Not those that lost to the named ones; and all layers by torch must be a way, since a user has that network."""
    planned = verification().planned
    best = {entry.dense.identity: ("dense.numpy",) for entry in planned if not entry.dense.conv}
    asked = verification(baselines=best)
    rivals = {layer.name: set(layer.dense_kernels) for layer in asked.request().layers}
    assert rivals["body.0"] == rivals["body.2"] == {"dense.numpy", "dense.torch", "dense.torch_mm"}
    made = bench(asked)
    facts = made.facts()["facts"]["layers"]
    assert {facts[name]["dense_kernel"] for name in ("body.0", "body.2")} <= rivals["body.0"]
    assert facts["stem"]["dense_kernel"] in ("dense.torch_conv", "dense.onednn_conv", "dense.onednn_nhwc")


def test_a_plan_that_leaves_all_dense_shares_every_layer(grad_off):
    made = bench(verification(chosen={}))
    made.facts()
    assert made.building.products[DENSE] == made.building.products[PLANNED]
    assert verification(chosen={}).case.params == {"plan": {}}


def test_one_wrong_weight_fails_the_check(grad_off, monkeypatch):
    """The largest weight of one layer of the planned network, off by 1 %."""
    right = verify_build.product_of

    def nudged(w, draw, case, *rest):
        if case.pattern != "dense" and w.shape == (64, 32):
            w = w.copy()
            w[np.unravel_index(np.argmax(np.abs(w)), w.shape)] *= 1.01
        return right(w, draw, case, *rest)

    monkeypatch.setattr(verify_build, "product_of", nudged)
    with pytest.raises(WrongAnswer, match=r"whole network against float64: network.planned is off by .* is allowed"):
        bench(verification()).facts()


def test_the_check_is_made_again_on_fresh_inputs_after_the_clock(grad_off, monkeypatch):
    """A layer that goes wrong only after the first check is found by the second."""
    checked, seen = NetworkBench._checked, []

    def spy(self, networks, model, inputs, copies=None):
        seen.append(inputs[0])
        found = checked(self, networks, model, inputs, copies)
        own = networks[PLANNED].networks[0].out
        own.bias = own.bias + 0.1
        return found

    monkeypatch.setattr(NetworkBench, "_checked", spy)
    with pytest.raises(WrongAnswer, match=r"network\.planned is off by"):
        bench(verification()).facts()
    assert len(seen) == 2
    assert not torch.equal(*seen)


def test_passes_take_copies_in_turn_and_each_that_is_timed_comes_after_one_that_is_not(grad_off, monkeypatch):
    """Copy after copy, all others between two passes over the same; a copy that is wrong is found after the clock."""
    made, seen = bench(verification()), []

    def noted(number, right):
        return lambda x: seen.append(number) or right(x)

    model, inputs = load_builder(builder_of(TOY)).build().eval(), (torch.randn(1, 4, 8, 8),)
    networks = made.building.networks(model, inputs)
    planned = networks[PLANNED]
    for layer, product in made.building.products[PLANNED].items():
        if layer == "body.2":
            for number, each in enumerate(product.moved.copies):
                right = each.following.call
                noting = each.following._replace(call=noted(number, right))
                product.moved.copies[number] = replace(each, following=noting)
    rounds = made.side.rounds(networks, made.building.products, inputs)
    for _ in range(planned.copies):
        next(rounds)
    taken = [number for number, last in zip(seen, [None, *seen], strict=False) if number != last]  # calls of one pass
    assert len(taken) == 2 * planned.copies
    assert taken == [(taken[0] + i) % planned.copies for i in range(len(taken))]
    wrong = made.building.products[PLANNED]["body.0"].moved
    astray = wrong.copies[1].following._replace(call=lambda x: 2 * wrong.copies[0](x))
    wrong.copies[1] = replace(wrong.copies[1], following=astray)
    for network in networks.values():
        while network._turn:
            network.next_copy()
    made._checked(networks, model, inputs)
    with pytest.raises(WrongAnswer, match=r"network\.planned is off by"):
        made._checked(networks, model, inputs, {name: network.copies for name, network in networks.items()})


HOLDS_A_LOCK = """
import sys, time
from pathlib import Path
from filelock import FileLock
Path(sys.argv[1]).parent.mkdir()
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(0.5)
"""


def test_a_record_waits_for_another_verification_that_is_being_written(tmp_path, monkeypatch):
    """Two plans of one network that end together share its file."""
    monkeypatch.setattr(verify, "WRITTEN_S", 5.0)
    asked = verification()

    class Done:
        def __init__(self, setup): ...

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

        def ask(self, request, limit_s):
            return verify.Answer("wrong", "made up", {"error_ratio": 3.0}), None

    command = [sys.executable, "-c", HOLDS_A_LOCK, tmp_path / MACHINE.id / ".verify-toy.lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == b"held\n"
        assert asked.execute(tmp_path, start=Done).reason == "made up"
        assert held.wait() == 0
    assert len(read_records(tmp_path)) == 1


def test_others_have_their_turn_amid_the_rounds(grad_off, monkeypatch):
    """Time spent waiting is neither the budget's nor a sign of a busy core."""
    waited, told = [], []

    class Crowd:
        def __enter__(self):
            waited.append("begins")

        def __exit__(self, *error):
            waited.append("ends")

        def pass_on(self):
            time.sleep(0.01)
            waited.append(0.01)
            return 0.01

    monkeypatch.setattr(CpuNetworkSide, "away", lambda self, time_s: told.append(time_s))
    made = bench(verification())
    made.turns = Crowd()
    found = made.facts()
    assert (waited[0], waited[-1]) == ("begins", "ends")
    assert told == waited[1:-1]
    assert len(told) == len(found["samples"]["weights_cold"][TORCH]) - 1 >= LEAST_ROUNDS - 1


def test_an_answer_that_is_not_finite_is_infinitely_wrong():
    want = torch.ones(2, 3)
    assert relative_error(want * 1.5, want) == pytest.approx(0.5)
    assert relative_error(torch.tensor([[1.0, 1, 1], [1, 1, 2]]), want) == pytest.approx(3**-0.5)
    assert relative_error(want * float("nan"), want) == float("inf")


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_network_without_its_builder(tmp_path):
    (tmp_path / "my-net.yaml").write_text(TOY.read_text())
    with pytest.raises(BadInput, match=r"verify runs a network, so .*my_net.py was not found; write one that defines"):
        builder_of(tmp_path / "my-net.yaml")
    (tmp_path / "my_net.py").write_text("def build(): ...\n")
    with pytest.raises(Refused, match=r"my_net.py defines no inputs\(\); a network's builder has build\(\) and"):
        load_builder(builder_of(tmp_path / "my-net.yaml"))


@pytest.mark.parametrize(
    ("find", "put", "told"),
    [
        ("name: body.2", "name: body.3", "layer body.3 must be a Linear of the built network, found nothing of that"),
        ("name: body.2", "name: body.1", "layer body.1 must be a Linear of the built network, found ReLU"),
        ("m: 32, k: 64", "m: 32, k: 60", r"layer body.2 has W \[32, 60\] in the network's file, but \[32, 64\] as bu"),
    ],
)
def test_a_network_that_is_not_what_its_file_says(tmp_path, grad_off, find, put, told):
    with pytest.raises(Refused, match=told):
        bench(other_toy(tmp_path, find, put)).facts()


def test_a_refused_network_writes_nothing(tmp_path):
    with pytest.raises(BadInput, match=r"toy cannot be verified: layer body\.3 must be a Linear of the built network"):
        other_toy(tmp_path, "name: body.2", "name: body.3").execute(tmp_path / "results")
    assert not (tmp_path / "results").exists()


def other_toy(folder, find, put):
    (folder / "toy.yaml").write_text(TOY.read_text().replace(find, put))
    (folder / "toy.py").write_text(TOY.with_suffix(".py").read_text())
    return verification(network=folder / "toy.yaml")


def test_kernels_that_cannot_run_are_named():
    with pytest.raises(BadInput, match=r"layer body.0: no kernel is called 'csr.none'"):
        verification(chosen={"body.0": "csr.none"}).request()
    with pytest.raises(BadInput, match=r"layer body.0: bsr.c takes patterns .* choose another kernel in the plan"):
        verification(chosen={"body.0": "bsr.c"}).request()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run `sparsebench verify` in an empty folder, briefly; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verify, "TIMED", QUICK)
    (tmp_path / "plan.yaml").write_text(PLAN)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sparsebench", "verify", "--device", "cpu", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_the_command_measures_and_compares(command):
    code, out, err = command(TOY, "--plan", "plan.yaml", "--json")
    told = json.loads(out)
    assert (code, told["outcome"], told["network"], told["batch"]) == (0, "ok", "toy", 1)
    assert told["speedup"][1] <= told["speedup"][0] <= told["speedup"][2]
    assert "Running toy, batch 1, with 2 of 4 layers pruned ..." in err
    assert "body.0  dense." in err
    assert "of the error that is allowed" in err
    assert "The rest is this plan's own" in err
    assert "No prediction with all records: " in err
    assert told["together"]["spread"] == 0
    assert "verifications, spread" not in err
    code, out, err = command(TOY, "--plan", "plan.yaml", "--json")
    again = json.loads(out)
    first, second = again["together"]["speedups"]
    assert len(told["together"]["speedups"]) == 1  # over the baseline of that run, which may be the other one of both
    assert again["together"]["speedup"] == pytest.approx((first * second) ** 0.5)
    assert again["whole_s"] != told["whole_s"]
    assert " over 2 verifications, spread " in err
    assert "; in this run " in err


def test_a_gpu_that_is_not_there_is_said_so(command, monkeypatch, tmp_path):
    monkeypatch.setattr("sparsebench.machine._gpu", lambda: None)
    code, _, err = command(TOY, "--device", "cuda")
    assert (code, "--device cuda was asked for, but no CUDA device was found" in err) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


def test_a_kernel_a_level_is_one_kernel_on_either_device():
    assert [_runs("bsr.c + csr.c", LEVELS["cpu"]), _runs("bsr.cuda + csr.cuda", LEVELS["cuda"])] == [*LEVELS.values()]
    assert _runs("csr.cuda", LEVELS["cuda"]) == "csr.cuda"
    assert {device: KERNELS[name].devices for device, name in LEVELS.items()} == {"cpu": ("cpu",), "cuda": ("cuda",)}


def test_exit_1_where_the_answer_is_wrong(command, monkeypatch):
    asked = verification()
    wrong = asked._record(verify.Answer("wrong", "whole network against float64: off", {"error_ratio": 3.0}))
    monkeypatch.setattr(Verification, "execute", lambda self, results: wrong)
    code, out, _ = command(TOY, "--plan", "plan.yaml")
    assert (code, "toy is wrong: whole network against float64: off" in out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((TOY, "--machine", "other"), "verify measures on this machine, "),
        ((TOY, "--pattern", "unstructured", "--sparsity", 0.8), "So nobody chooses a kernel for body.0; name kernels"),
        ((TOY, "--sparsity", 0.8), "say what the layers become: either --plan FILE or --pattern P, mostly with"),
        ((TOY, "--plan", "plan.yaml", "--sparsity", 0.8), "--pattern and --sparsity cannot stand beside it"),
        (("wrn-40-4",), "wrn_40_4.py was not found"),
    ],
)
def test_bad_input_writes_nothing(command, tmp_path, arguments, told):
    code, _, err = command(*arguments)
    assert (code, told in err) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


# --- the plans and networks that ship --------------------------------------------------------------------------------


FOUR = ["vit-b16", "bert-base", "resnet50-v2", "vgg19-cifar"]


def test_a_plan_ships_for_each_network_that_can_be_verified():
    plans = {name: Plan.load(path) for name, path in shipped_plans().items()}
    assert {plan.network.name for plan in plans.values()} == set(FOUR)
    assert {builder_of(shipped_networks()[name]).stem for name in FOUR} == {name.replace("-", "_") for name in FOUR}
    for name, plan in plans.items():
        assert name == f"{plan.network.name}-mixed"
        assert len({(choice.pattern, choice.sparsity) for choice in plan.choices.values()}) > 1
        for entry in plan.cases(plan.network):
            if entry.sparse:
                assert (
                    entry.sparse.pattern_object.why_not(entry.sparse.m, entry.sparse.k, entry.sparse.sparsity) is None
                )


@pytest.mark.parametrize("name", FOUR)
def test_builders_are_what_their_files_say(name, grad_off):
    """Names, shapes, strides and calls of every layer, on the meta device: no weights, no time."""
    path = shipped_networks()[name]
    network, builder = Network.load(path), load_builder(builder_of(path))
    with torch.device("meta"):
        model, inputs = builder.build().eval(), builder.inputs(2)
    layers, seen = dict(model.named_modules()), {}

    def note(own):
        def hook(module, given, answer):
            columns = answer.numel() // 2 // own.m
            seen.setdefault(own.name, []).append((columns, getattr(module, "stride", None)))

        return hook

    for own in network.layers:
        layer = layers[own.name]
        assert (own.m, own.k) == (len(layer.weight), layer.weight.numel() // len(layer.weight))
        assert isinstance(layer, torch.nn.Conv2d if own.conv else torch.nn.Linear)
        layer.register_forward_hook(note(own))
    model(*inputs)
    for own in network.layers:
        stride = (own.conv.stride, own.conv.stride) if own.conv else None
        assert seen[own.name] == [(own.n, stride)] * own.calls, own.name
    known = {own.name for own in network.layers}
    others = [n for n, m in layers.items() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d) and n not in known]
    assert others == []
