"""Records of whole networks: no old key changes, and nobody takes one for the timing of a kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from replay import MACHINE, usual_arms, usual_world

from sparsebench.case import Case
from sparsebench.desk import report
from sparsebench.desk.compare import compare
from sparsebench.desk.export import export_tables
from sparsebench.desk.fit import fit
from sparsebench.desk.frame import frame
from sparsebench.desk.verified import Measured, named_baselines
from sparsebench.errors import BadInput, StoreError
from sparsebench.network import Network
from sparsebench.record import Record, record_key
from sparsebench.rest import (
    DENSE,
    PLANNED,
    TORCH,
    Rest,
    is_rest,
    measured_rest,
    rest_case,
    runs_of,
    series,
    times_of,
    verifications,
)
from sparsebench.store import read_lines

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "record_schema2.jsonl"
TOY = Network.load(Path(__file__).parent / "networks" / "toy.yaml")
DENSE_S = 4 * 4e-4  # of its layers, dense


def whole(rest_s=1e-3, planned_s=1e-4, rounds=7, **changes):
    """An ok record of the toy: each layer 0.4 ms dense."""
    layers = [layer.name for layer in TOY.layers]
    samples = {TORCH: [4e-3] * rounds}
    for side, time_s in ((DENSE, 4e-4), (PLANNED, planned_s)):
        samples |= {series(side, layer): [time_s] * rounds for layer in layers}
        samples[side] = [rest_s + len(layers) * time_s] * rounds
    golden = list(read_lines(GOLDEN))[1]
    return replace(golden, machine=MACHINE, samples={"weights_cold": samples}, **changes)


def test_no_key_of_a_stored_record_changes():
    """A case of kind `layer` is written as it was before there were kinds."""
    seen = 0
    for path in sorted((ROOT / "results").glob("*/*.jsonl")):
        if path.name == "peaks.jsonl":
            continue
        for line in path.read_bytes().splitlines()[:-1:37]:
            data, record = json.loads(line), Record.from_json(line)
            if data["schema"] > 1:
                continue
            about = (record.source_sha, record.baselines, record.machine, record.protocol, record.versions)
            assert record_key(record.case, record.kernel, *about) == record.key
            assert record.case.to_json() == data["case"]
            assert json.loads(record.to_json())["case"] == data["case"]
            seen += 1
    assert seen > 50


def test_kind_is_written_only_where_it_is_not_a_layer():
    layer = Case(m=8, k=8, n=1)
    assert "kind" not in layer.to_json()
    assert Case.from_json(layer.to_json()) == layer
    rest = rest_case(TOY, 4, {})
    assert rest.to_json()["kind"] == "rest"
    assert Case.from_json(rest.to_json()) == rest
    assert rest.key != rest_case(TOY, 4, {"out": {}}).key != rest_case(TOY, 1, {}).key
    assert rest.describe() == "toy as a whole, batch 4, 0 layers planned"
    with pytest.raises(BadInput, match="kind must be one of layer, rest, found 'network'"):
        Case(m=1, k=1, n=1, kind="network")


def test_a_network_whose_layers_changed_is_another():
    other = replace(TOY, layers=TOY.layers[1:])
    assert measured_rest([whole()], TOY, 1, MACHINE).dense == pytest.approx(1e-3 / DENSE_S)
    assert measured_rest([whole()], other, 1, MACHINE) is None


@pytest.mark.parametrize(
    "about",
    [{"batch": 2}, {"machine": "other"}, {"threads": 2}, {"but": "its own"}],
    ids=lambda about: next(iter(about)),
)
def test_a_rest_is_of_one_machine_batch_and_number_of_threads(about):
    about = {name: whole().case if name == "but" else value for name, value in about.items()}
    assert measured_rest([whole()], **{"network": TOY, "batch": 1, "machine": MACHINE, **about}) is None


def test_the_rest_is_what_no_layer_took():
    record = whole(rest_s=2e-3)
    dense = times_of(record, DENSE)
    assert (dense.whole_s, dense.rest_s) == (pytest.approx(3.6e-3), pytest.approx(2e-3))
    assert set(dense.layers_s) == {layer.name for layer in TOY.layers}
    assert times_of(record, "network.none") is None
    assert measured_rest([record, whole(rest_s=4e-3)], TOY, 1, MACHINE).dense == pytest.approx(3e-3 / DENSE_S)
    assert measured_rest([replace(whole(), outcome="wrong", samples={})], TOY, 1, MACHINE) is None


def test_what_dense_layers_took_in_place_is_known_from_other_plans():
    found = measured_rest([whole(), whole(rest_s=4e-3)], TOY, 1, MACHINE)
    assert found.dense_layers_s == pytest.approx(DENSE_S)
    assert found.dense_lying == "first", "there are no images"
    assert found.where("last").dense_layers_s == found.unpruned().dense_layers_s == found.dense_layers_s


def test_a_pruned_network_has_a_rest_of_its_own():
    """Behind sparse convolutions activations lie otherwise."""
    pruned = whole(rest_s=1e-3)
    samples = dict(pruned.samples["weights_cold"])
    samples[PLANNED] = [time_s + 2e-3 for time_s in samples[PLANNED]]
    pruned = replace(pruned, samples={"weights_cold": samples})
    dense = replace(whole(rest_s=1e-3), case=rest_case(TOY, 1, {}), key="dense")
    found = measured_rest([pruned, dense], TOY, 1, MACHINE)
    assert (found.dense, found.planned) == (pytest.approx(1e-3 / DENSE_S), pytest.approx(3e-3 / DENSE_S))
    assert set(found.lying.values()) == {found.planned}, "of plans under which images lay as under this one"
    alone = measured_rest([dense], TOY, 1, MACHINE)
    assert alone.planned == alone.dense == pytest.approx(1e-3 / DENSE_S)


def test_a_rest_is_a_share_of_what_the_dense_layers_took_in_the_same_record():
    """A machine at half its speed in some rounds, or in another verification, changes none of it."""
    record = whole(rounds=8)
    slow = {
        name: [(1 + number % 2) * time_s for number, time_s in enumerate(times_s)]
        for name, times_s in record.samples["weights_cold"].items()
    }
    uneven = replace(record, samples={"weights_cold": slow})
    assert measured_rest([uneven], TOY, 1, MACHINE).dense == pytest.approx(1e-3 / DENSE_S)
    assert Rest(0.5, 0.25).seconds(2.0) == (1.0, 0.5)


def test_a_round_in_which_another_had_the_core_does_not_count():
    record = whole(rounds=8)
    samples = {name: [time_s * 50 ** (number == 3) for number, time_s in enumerate(times_s)] for name, times_s in
               record.samples["weights_cold"].items()}  # fmt: skip
    times, usual = (times_of(one, DENSE) for one in (replace(record, samples={"weights_cold": samples}), record))
    assert (times.whole_s, times.rest_s) == (pytest.approx(usual.whole_s), pytest.approx(usual.rest_s))
    assert times.layers_s == pytest.approx(usual.layers_s)


# --- verified more than once -----------------------------------------------------------------------------------------


def test_every_verification_is_read_not_the_newest_alone(tmp_path):
    (tmp_path / MACHINE).mkdir()
    twice = [whole(started_at="1"), whole(started_at="2")]
    lines = "".join(record.to_json() + "\n" for record in twice)
    (tmp_path / MACHINE / "verify-toy.jsonl").write_text(lines)
    assert [record.started_at for record in verifications(tmp_path, MACHINE)] == ["1", "2"]
    assert len(verifications(tmp_path)) == 2
    assert verifications(tmp_path, "other") == verifications(tmp_path / "none") == []


def test_other_dense_kernels_are_the_same_code_and_other_sources_are_not():
    """Which dense kernels are the fastest is found anew each time; the plan's kernels are in the case."""
    facts = {"sources": {"dense.a": "1", "csr.c": "2"}}
    first = whole(key="first", facts=facts)
    other_dense = whole(key="second", facts={"sources": {"dense.b": "3", "csr.c": "2"}})
    changed = whole(key="third", facts={"sources": {"dense.a": "1", "csr.c": "4"}})
    unknown, again = whole(key="fourth", facts={}), whole(key="fourth", facts={})
    other_plan = whole(key="fifth", facts=facts, case=rest_case(TOY, 1, {}))
    wrong = replace(first, outcome="wrong", samples={})
    records = [first, other_dense, changed, unknown, again, other_plan, wrong]
    assert runs_of(first, records) == [first, other_dense]
    assert runs_of(changed, records) == [changed]
    assert runs_of(unknown, records) == [unknown, again]


def test_the_baseline_is_the_faster_dense_network():
    assert Measured.of(whole()).baseline == DENSE
    slow = whole(rest_s=5e-3)
    assert Measured.of(slow).baseline == TORCH
    assert Measured.of(slow).speedup.value == pytest.approx(4e-3 / 5.4e-3)
    samples = {name: times_s for name, times_s in whole().samples["weights_cold"].items() if name != TORCH}
    with pytest.raises(StoreError, match=r"toy as a whole, batch 1, 1 layers planned lacks one of the three networks"):
        Measured.of(replace(whole(), samples={"weights_cold": samples}))


# --- the desk ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records():
    return usual_world().sweep([(256, 512), (512, 512)], [16, 64], usual_arms([0.8, 0.9]))


def folder(tmp_path, *records):
    home = tmp_path / MACHINE
    home.mkdir()
    (home / "all.jsonl").write_text("".join(record.to_json() + "\n" for record in records))
    return tmp_path


def test_a_fit_does_not_see_it(records):
    assert fit([*records, whole()]).to_json() == fit(records).to_json()


def test_a_frame_does_not_show_it(records):
    assert frame([*records, whole()]).equals(frame(records))
    assert frame([whole()]).empty
    assert named_baselines([*records, whole()]) == named_baselines(records)


def test_a_report_does_not_see_it(tmp_path, records, monkeypatch):
    seen = []
    monkeypatch.setattr(report, "make_pages", lambda results, records: seen.extend(records) or [])
    report.write_report(folder(tmp_path, *records, whole()), tmp_path / "out")
    assert seen == records


def test_tables_leave_it_out(tmp_path, records):
    made = export_tables("csv", folder(tmp_path, *records, whole()), tmp_path / "out")
    assert "network.planned" not in made.files[0].read_text() + made.files[1].read_text()
    (tmp_path / "alone").mkdir()
    with pytest.raises(StoreError, match="holds records of whole networks alone, and the tables are of kernels"):
        export_tables("csv", folder(tmp_path / "alone", whole()), tmp_path / "out")


def test_compare_judges_the_whole_network_as_one_case(tmp_path):
    """It is never mixed with a kernel: its case is its own, and its baselines are dense networks."""
    sides = []
    for name, planned_s in (("base", 1e-4), ("new", 5e-3)):
        (tmp_path / name).mkdir()
        sides.append(folder(tmp_path / name, whole(planned_s=planned_s, source_sha=f"sha of {name}", started_at=name)))
    found = compare(*sides)
    assert [(pair.pair.base.kernel, pair.judged.word) for pair in found.pairs] == [(PLANNED, "SLOW")]
    assert is_rest(found.pairs[0].pair.base)
