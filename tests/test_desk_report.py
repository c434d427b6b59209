"""The report: opens with the answer, holds everything inside itself, survives hostile names, and is always the same."""

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from replay import MACHINE, broken, file_records, usual_arms, usual_world, write_results

from sparsebench.case import Case, Source
from sparsebench.desk import report
from sparsebench.desk.canvas import plain, png, style
from sparsebench.desk.fit import fit
from sparsebench.desk.frame import frame
from sparsebench.desk.pages import reached
from sparsebench.desk.plots import PLOTS, draw_all
from sparsebench.desk.report import write_report
from sparsebench.errors import StoreError

SHAPES = [(256, 512), (768, 3072)]
NEED = "needs a C compiler (cc, gcc or clang), none was found: apt install gcc"
FACTS = {
    "id": MACHINE, "device": "cpu", "name": "Replay CPU", "memory_gib": 24, "cores": 2, "isa": ["avx2"],
    "cache_bytes": 2**25,
}  # fmt: skip


def sweep(**changed):
    return usual_world(**changed).sweep(SHAPES, [1, 64], usual_arms((0.8, 0.9)))


def lost(outcome, reason, seed):
    case = Case(m=64, k=64, n=8, pattern="unstructured", sparsity=0.5, seed=seed)
    return broken(usual_world().record(case, "csr.c"), outcome, reason)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    other = usual_world(machine="other-gpu-ffffff").sweep(SHAPES[:1], [64], usual_arms((0.5,))[::4])
    bad = [lost("skipped", NEED, 1), lost("wrong", "integer gate: entry [3, 4]", 2), lost("timeout", "120 s", 3)]
    write_results(root, [*sweep(), *other, *bad])
    (root / MACHINE / "machine.json").write_text(json.dumps(FACTS))
    peaks = {"stream_bytes_per_s": 3.8e10, "fma_flops_per_s": {"float32": 2.72e11}, "started_at": "2026-11-21"}
    (root / MACHINE / "peaks.jsonl").write_text(json.dumps(peaks) + "\n{torn")
    return root


@pytest.fixture(scope="module")
def out(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    assert write_report(results, out) == out / "report.html"
    return out


def test_each_kernel_stands_beside_the_measured_peaks():
    record = usual_world().record(Case(m=64, k=64, n=8, pattern="unstructured", sparsity=0.5), "csr.c")
    time_s = record.median_s()
    rates = {"fma_flops_per_s": {"float32": 4 * record.useful_flops / time_s}, "stream_bytes_per_s": 1e12}
    table = reached(frame([record]), rates)
    assert [row[:5] for row in table.rows] == [("csr.c", "float32", "8", "1", "25 %")]
    assert [row[6] for row in reached(frame([record]), {**rates, "stream_bytes_per_s": None}).rows] == ["-"]
    assert reached(frame([record]), {}).rows == ()


class Page(HTMLParser):
    """Tags that are open, attributes that fetch something, and the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.fetched, self.tags, self.words = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "style")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_html_is_self_contained_and_well_formed(out):
    page = Page((out / "report.html").read_text())
    assert page.open == []
    assert page.fetched
    assert all(value.startswith("data:image/png;base64,") for value in page.fetched)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import", (out / "report.html").read_text())
    assert "prefers-color-scheme: dark" in (out / "report.html").read_text()


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_it_opens_with_the_answer_of_each_machine_and_what_was_skipped(out, name):
    text = " ".join(Page((out / name).read_text()).words) if name.endswith("html") else (out / name).read_text()
    order = [
        text.index("Nothing here beats dense"),
        text.index("bsr.c on block 16x16 90 % runs"),
        text.index("1 kernel was skipped (csr.c): needs a C compiler"),
        text.index("The fastest sparse kernel of each problem"),
        text.index("How wrong the models are"),
        text.index("What became of every trial"),
        text.index("The machine"),
        text.index("How to read it"),
    ]
    assert order == sorted(order)


def test_counts_reasons_facts_and_versions_are_there(out):
    text = (out / "report.md").read_text()
    assert "| suite | trials | ok | skipped | wrong | failed | crashed | oom | timeout |" in text
    ok = len(sweep())
    assert f"| replay | {ok + 3} | {ok} | 1 | 1 | 0 | 0 | 0 | 1 |" in text
    assert r"| wrong | 1 | csr.c | integer gate: entry \[3, 4\] |" in text
    assert "| fma\\_flops\\_per\\_s float32 | 272 GFLOP/s |" in text
    assert "| stream\\_bytes\\_per\\_s | 38.0 GB/s |" in text
    assert "| torch | 2.13.0 |" in text
    assert re.search(r"\d\.\d\dx \\\[\d\.\d\d, \d\.\d\d\\\]", text)


def test_machines_are_never_mixed(out):
    text = (out / "report.md").read_text()
    halves = text.split("\n## ")
    assert [half.split("\n")[0] for half in halves[1:]] == ["other-gpu-ffffff", MACHINE, "How to read it"]
    alone = next(half for half in halves if half.startswith("other-gpu-ffffff"))
    assert "bsr.c" not in alone
    assert "Replay CPU" not in alone


def test_one_machine_can_be_asked_for(results, tmp_path):
    write_report(results, tmp_path, "other-gpu-ffffff")
    assert MACHINE not in (tmp_path / "report.md").read_text()


def test_plots_lie_beside_the_markdown(out):
    named = re.findall(r"\]\(([^)]+\.png)\)", (out / "report.md").read_text())
    assert sorted(named) == sorted(path.name for path in out.glob("*.png"))
    assert f"{MACHINE}-speedup.png" in named
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in named)


def test_the_same_records_make_the_same_bytes(results, out, tmp_path):
    write_report(results, tmp_path)
    again = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert again == {path.name: path.read_bytes() for path in out.iterdir()}


HOSTILE = "<script>alert('$x_1$')</script>|`a`\n## b \x07\u202e"


def test_hostile_names_are_escaped(tmp_path):
    world = usual_world()
    case = Case(m=256, k=512, n=64, pattern="file", source=Source(HOSTILE, None, "0" * 64))
    named = replace(world.record(case, "csr.c", nnz=9000), kernel=HOSTILE, suite="s", versions={HOSTILE: HOSTILE})
    samples = {"weights_cold": {HOSTILE: [1e-5] * 9, "dense.torch": [2e-5] * 9}}
    records = [
        replace(named, samples=samples, baselines={"dense.torch": "sha"}, layout_s={}),
        replace(broken(named, "failed", HOSTILE), key="k", case=replace(case, n=1)),
    ]
    write_results(tmp_path / "in", [replace(record, machine="m") for record in records])
    write_report(tmp_path / "in", tmp_path / "out")
    html, text = (tmp_path / "out/report.html").read_text(), (tmp_path / "out/report.md").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "script" not in Page(html).tags
    assert "<script" not in text.replace("\\<script", "")
    assert "\n## b" not in text


def test_without_records_it_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match=r"results folder .* was not found; `sparsebench run SUITE"):
        write_report(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"no records were found in .*; make some with `sparsebench run SUITE`"):
        write_report(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused(results, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"the report cannot be written to .*; choose another folder with --out"):
        write_report(results, tmp_path / "file")


def test_long_tables_are_cut_in_markdown_only(tmp_path):
    write_results(tmp_path / "in", file_records(usual_world(), 32))
    write_report(tmp_path / "in", tmp_path / "out")
    assert re.search(r"\d+ more rows are in report.html", (tmp_path / "out/report.md").read_text())
    assert (tmp_path / "out/report.html").read_text().count("layer_31.smtx") == 2


def test_only_broken_trials_make_a_report_too(tmp_path):
    write_results(tmp_path / "in", [lost("skipped", NEED, seed) for seed in range(3)])
    write_report(tmp_path / "in", tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    assert "No sparse kernel was timed: 3 skipped" in text
    assert not list((tmp_path / "out").glob("*.png"))


# --- plots ------------------------------------------------------------------------------------------------------------


def test_every_plot_is_drawn_or_says_it_cannot_be():
    records = usual_world().sweep(SHAPES, [1, 64], usual_arms((0.5, 0.8, 0.9)))
    assert [plot.name for plot, _ in draw_all(frame(records), fit(records))] == [plot.name for plot in PLOTS]
    assert not list(draw_all(frame(records[:2]), fit([])))


def test_a_plot_asks_a_question_and_names_its_axes():
    records = sweep()
    for plot, figure in draw_all(frame(records), fit(records)):
        assert "?" in figure.get_suptitle(), plot.name
        assert all(axis.get_xlabel() for axis in figure.axes if axis.axison), plot.name
        assert plot.caption


def test_many_problems_are_pooled_by_n():
    records = usual_world().sweep([(64 * i, 128) for i in range(1, 9)], [1, 64], usual_arms((0.9,)))
    figure = next(figure for plot, figure in draw_all(frame(records), fit([])) if plot.name == "speedup")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["n=1, 8 matrices", "n=64, 8 matrices"]


def test_text_for_plots_is_disarmed():
    assert plain("a$b\n\u202e") == r"a\$b??"


def test_pngs_are_the_same_every_time():
    def drawn():
        return [png(figure) for _, figure in draw_all(frame(sweep()[:7]), fit([]))]

    assert drawn() == drawn()


@pytest.mark.slow
def test_two_thousand_records_take_seconds(tmp_path):
    shapes = [(256 * i, 512) for i in range(1, 11)]
    records = usual_world().sweep(shapes, [1, 4, 16, 64, 256], usual_arms((0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)))
    assert len(records) > 1700
    write_results(tmp_path / "in", records)
    start_s = time.process_time()
    write_report(tmp_path / "in", tmp_path / "out")
    assert time.process_time() - start_s < 30  # about 8 on a quiet machine


def test_twenty_lines_look_different():
    assert len({(style(number)["color"], style(number)["marker"]) for number in range(20)}) == 20


def test_laws_are_fitted_to_all_runs_and_tables_show_the_newest(tmp_path, monkeypatch):
    """As `predict` fits them: a trial that was run again counts with both runs."""
    once = sweep()
    again = [replace(record, started_at="2027-01-01T00:00:00+00:00") for record in once]
    write_results(tmp_path / "in", [*once, *again])
    seen, real = [], report.fit

    def counted(records, **known):
        seen.extend(records)
        return real(seen, **known)

    monkeypatch.setattr(report, "fit", counted)
    write_report(tmp_path / "in", tmp_path / "out")
    assert len(seen) == 2 * len(once)
    told = (tmp_path / "out" / "report.md").read_text()
    assert f"{len(once)} trials" in told or f"{len(once)} records" in told
