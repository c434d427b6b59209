"""YAML with marks: what is a mistake, where it stands, and that nothing but SuiteError ever comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebench.errors import SuiteError
from sparsebench.yaml_marks import MOST_BYTES, Document, near, read
from planning import mistakes


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

WRONG = {
    "empty": ("# nothing\n", "1:1: the file is empty; it must hold keys, such as `name: ...`"),
    "syntax": ("a: [1, 2\nb: 3\n", "2:2: this is not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'; mend it here or just before"),  # noqa: E501
    "tab": ("a:\n\t- 1\n", "2:1: this is not YAML: while scanning for the next token, found character '\\t' that cannot start any token; mend it here or just before"),  # noqa: E501
    "two documents": ("a: 1\n---\nb: 2\n", "2:1: this is not YAML: expected a single document in the stream, but found another document; mend it here or just before"),  # noqa: E501
    "control character": ("a: 1\nb: \x07\n", "2:4: this is not text: special characters are not allowed; remove it"),
    "escape": ('a: "\\UFFFFFFFF"\n', "1:1: this is not YAML: "),
    "surrogate": ('a: "\\ud800"\n', "1:4: a plain value was asked for, found '\\ud800' as str; write it without tags"),
    "not utf-8": (b"a: 1\nb: \xff\n", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
    "twice": ("n: 1\nm: 2\nn: 3\n", "3:1: a key may stand once, found 'n' again, first on line 1; remove one of the two"),
    "null": ("a: 1\nn:\n", "2:3: a value was asked for, found nothing; give one, or remove the key"),
    "tilde": ("n: ~\n", "1:4: a value was asked for, found ~; give one, or remove the key"),
    "octal": ("n: 010\n", "1:4: a plain number was asked for, found 010, to YAML 8; write 8, or put it in quotes"),
    "base 60": ("n: [5, 1:30]\n", "1:8: a plain number was asked for, found 1:30, to YAML 90; write 90, or put it"),
    "norway": ("on: 1\n", "1:1: a key must be a word, found 'on' (to YAML: bool); put it in quotes or rename it"),
    "number as key": ("{5: 1}\n", "1:2: a key must be a word, found '5' (to YAML: int); put it in quotes or rename it"),
    "list as key": ("? [a]\n: 1\n", "1:3: a key must be a word, found 'a list or mapping' (to YAML: seq); put it in"),
    "python tag": ("n: !!python/object:os.system {}\n", "1:4: plain values, lists and mappings were asked for, found the tag tag:yaml.org,2002:python/object:os.system; remove it"),  # noqa: E501
    "set": ("n: !!set {a}\n", "1:4: plain values, lists and mappings were asked for, found the tag tag:yaml.org,2002:set"),
    "binary": ("n: !!binary aGk=\n", "1:4: a plain value was asked for, found 'aGk=' as binary; write it without tags"),
    "tagged": ("n: !!int x\n", "1:4: a plain value was asked for, found 'x' as int; write it without tags and escapes"),
    "endless int": (f"n: {'9' * 5000}\n", "1:4: a plain value was asked for, found '9999"),
    "merge": ("n: {<<: 3}\n", "1:9: `<<` merges mappings, found something else; write `<<: *name`"),
    "merge itself": ("n: &n {<<: *n}\n", "1:1: a mapping merges itself (<<); remove that alias"),
    "holds itself": ("n: &n [*n]\n", "1:4: at most 100000 values and 40 levels are allowed, this file has more once"),
    "billion": (BILLION, "1:11: at most 100000 values and 40 levels are allowed, this file has more once its aliases"),
    "deep": ("[" * 5000, "1:1: lists or mappings nest too deeply; 40 levels are allowed"),
    "deepish": ("[" * 50 + "]" * 50, "1:42: at most 100000 values and 40 levels are allowed"),
    "large": ("#" * (MOST_BYTES + 1), f" at most {MOST_BYTES} bytes of YAML are read, found {MOST_BYTES + 1}; split"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_each_mistake_and_its_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    found = mistakes(whole, tmp_path / "a.yaml", text)
    assert len(found) == 1
    assert found[0].startswith(message)


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
    try:
        whole(path)
    except SuiteError as error:
        assert str(path) in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_a_suite_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "raw.yaml"
    path.write_bytes(raw)
    try:
        whole(path)
    except SuiteError as error:
        assert str(path) in str(error)
