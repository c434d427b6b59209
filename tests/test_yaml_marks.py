"""YAML with marks: what is a mistake, where it stands, and that nothing but SuiteError ever comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import mistakes, spots, survived, told

from sparsebench.errors import SuiteError
from sparsebench.yaml_marks import MOST_BYTES, Document, near, read


def whole(path: Path) -> object:
    """The data of a file that must be free of mistakes."""
    document = read(path)
    return document.finished(document.data)


def parsed(tmp_path: Path, text: str) -> object:
    """The data of `text`."""
    (tmp_path / "a.yaml").write_text(text)
    return whole(tmp_path / "a.yaml")


def test_data_is_plain_and_values_know_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: x\nlist:\n  - {n: [1, 2.5], day: 2026-01-02, on_: yes}\n")
    document = read(tmp_path / "a.yaml")
    assert document.data == {"name": "x", "list": [{"n": [1, 2.5], "day": "2026-01-02", "on_": True}]}
    assert document.place(("list", 0, "n", 1)) == (3, 13)
    assert document.place(("list", 0, "n"), key=True) == (3, 6)
    assert document.place(("list", 0, "gone")) == (3, 5)
    assert document.where(()) == f"{tmp_path / 'a.yaml'}:1:1"


def test_anchors_aliases_and_merges(tmp_path: Path) -> None:
    text = "base: &b {n: 1, m: 2}\nmore: &c {<<: *b, k: 3}\nx: {<<: [*c, {m: 9, q: 8}], n: 5}\ny: *b\n"
    assert parsed(tmp_path, text) == {
        "base": {"n": 1, "m": 2},
        "more": {"n": 1, "m": 2, "k": 3},
        "x": {"n": 5, "m": 2, "k": 3, "q": 8},
        "y": {"n": 1, "m": 2},
    }


BILLION = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(("marked", "message"), told("yaml"))
def test_each_mistake_and_its_place(tmp_path: Path, marked: str, message: str) -> None:
    text, (place,) = spots(marked)
    (found,) = mistakes(whole, tmp_path / "a.yaml", text)
    assert found.startswith(f"{place}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "1:1: the file is empty; it must hold keys, such as `name: ...`"),
        ("a:\n\t- 1\n", "2:1: this is not YAML: while scanning for the next token, found character '\\t' that cannot"),
        ("a: 1\nb: \x07\n", "2:4: this is not text: special characters are not allowed; remove it"),
        ('a: "\\UFFFFFFFF"\n', "1:1: this is not YAML: "),
        (b"a: 1\nb: \xff\n", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        (f"n: {'9' * 5000}\n", "1:4: a plain value was asked for, found '9999"),
        (BILLION, "1:11: at most 100000 values and 40 levels are allowed, this file has more once its aliases"),
        ("[" * 5000, "1:1: lists or mappings nest too deeply; 40 levels are allowed"),
        (
            "#" * (MOST_BYTES + 1),
            f" at most {MOST_BYTES} bytes of YAML are read, found {MOST_BYTES + 1}; split the file",
        ),
    ],
    ids=["empty", "tab", "control", "escape", "latin-1", "endless", "billion laughs", "deep", "large"],
)
def test_files_that_are_no_yaml_and_those_that_blow_up(tmp_path: Path, text: str | bytes, message: str) -> None:
    (found,) = mistakes(whole, tmp_path / "a.yaml", text)
    assert found.startswith(message)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(
        SuiteError, match=r"gone\.yaml: cannot be read \(No such file or directory\); give the path of a"
    ):
        read(tmp_path / "gone.yaml")
    with pytest.raises(SuiteError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfn: 1\n")
    assert whole(tmp_path / "a.yaml") == {"n": 1}


def test_all_mistakes_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    found = mistakes(whole, tmp_path / "a.yaml", "b: {k: ~, k: 1}\non: 1\nc: [010]\n")
    assert [line.split(": ")[0] for line in found] == ["1:8", "1:11", "2:1", "3:5"]


def test_one_place_one_mistake_the_first(tmp_path: Path) -> None:
    document = Document(tmp_path / "a.yaml")
    document.mistake((), "first")
    document.mistake((), "what follows from it")
    with pytest.raises(SuiteError, match=r"a\.yaml:1:1: first$"):
        document.finished(1)


def test_a_missing_value_without_a_mistake_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SuiteError):
        Document(tmp_path / "a.yaml").finished(None)


def test_near_names_the_meant_one_or_all() -> None:
    assert near("sparcity", ["sparsity", "seeds"]) == "; did you mean 'sparsity'?"
    assert near("zzz", ["b", "a"]) == "; there are a, b"


@given(st.text() | st.text("{}[]:,-&*a<!|>'\"\n 01~%@`?#").filter(bool))
def test_any_text_is_data_or_a_suite_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    survived(lambda: whole(path), path)


@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_a_suite_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "raw.yaml"
    path.write_bytes(raw)
    survived(lambda: whole(path), path)
