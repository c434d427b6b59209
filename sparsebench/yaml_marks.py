"""YAML as plain data in which every value still knows its line and column, and mistakes are collected, not thrown.

The composer's node tree is walked by hand, since that is where marks, duplicate keys and quotes are still to be seen.
What YAML 1.1 reads otherwise than a person does is a mistake here, never a surprise in a record: 010 (octal), 1:30
(base 60), an empty value (null), a key `on` (true), a repeated key. Aliases and `<<` work; what they multiply to, and
how deep anything nests, is bounded, so that no file hangs the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

# PyYAML: the composer gives nodes with marks; ruamel.yaml does too and is a second, larger dependency tree.
import yaml
from yaml.constructor import SafeConstructor

from sparsebench.errors import SuiteError

Loc = tuple[str | int, ...]
T = TypeVar("T")

MOST_BYTES = 4 * 2**20
MOST_VALUES = 100_000
MOST_DEPTH = 40

_CORE = "tag:yaml.org,2002:"
_OCTAL_OR_BASE_60 = re.compile(r"[-+]?0[0-7_]+|[^:]+:.*")
_PLAIN = SafeConstructor()


def near(word: str, names: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the name it most likely meant, or all names there are.

    >>> near("sparcity", ["sparsity", "seeds"]), near("q", ["m", "k"])
    ("; did you mean 'sparsity'?", '; there are k, m')
    """
    names = sorted(names)
    match = closest(word, names)
    return f"; did you mean {match!r}?" if match else f"; there are {', '.join(names)}"


def closest(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` was most likely meant to be, or None."""
    return next(iter(get_close_matches(word, list(names), n=1)), None)


@dataclass
class Document:
    """One YAML file: its data, where each value and key stands, and what is wrong with it so far."""

    path: Path
    data: Any = None
    values: dict[Loc, yaml.Mark] = field(default_factory=dict)
    keys: dict[Loc, yaml.Mark] = field(default_factory=dict)
    mistakes: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)

    def known(self, loc: Loc) -> Loc:
        """`loc` without the parts that do not stand in the file, such as the index of a list made of a single value."""
        found: Loc = ()
        for part in loc:
            found = (*found, part) if (*found, part) in self.values else found
        return found

    def place(self, loc: Loc, *, key: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of the value at `loc` or of its key; of what holds it where it is missing."""
        mark = self.keys.get(loc) if key else None
        return _from_1(mark or self.values.get(self.known(loc)))

    def where(self, loc: Loc = ()) -> str:
        """file:line:column of the value at `loc`."""
        return ":".join(map(str, (self.path, *self.place(loc))))

    def at(self, loc: Loc) -> Any:
        """The data at `loc`."""
        found = self.data
        for part in loc:
            found = found[part]
        return found

    def mistake(self, loc: Loc, text: str, *, key: bool = False) -> None:
        """Note what is wrong at `loc`; only the first complaint about a place is told, others follow from it."""
        self.mistakes.setdefault(self.place(loc, key=key), []).append(text)

    def note(self, mark: yaml.Mark, text: str) -> None:
        """Note what is wrong at a mark of the file."""
        self.mistakes.setdefault(_from_1(mark), []).append(text)

    def finished(self, value: T | None) -> T:
        """`value`, if the file is free of mistakes; otherwise SuiteError lists all of them in the order of lines."""
        lines = [f"{self.path}:{line}:{column}: {texts[0]}" for (line, column), texts in sorted(self.mistakes.items())]
        if lines or self.elsewhere or value is None:
            raise SuiteError("\n".join(dict.fromkeys([*lines, *self.elsewhere])))
        return value


def read(path: Path) -> Document:
    """The document in `path`, mistakes of its values noted in it; SuiteError where it is no YAML at all."""
    text = _text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        what = ", ".join(filter(None, (error.context, error.problem)))
        line, column = _from_1(error.problem_mark or error.context_mark)
        raise SuiteError(f"{path}:{line}:{column}: this is not YAML: {what}; mend it here or just before") from None
    except yaml.reader.ReaderError as error:
        raise SuiteError(
            f"{_spot(path, text[: error.position])}: this is not text: {error.reason}; remove it"
        ) from None
    except RecursionError:
        raise SuiteError(f"{path}:1:1: lists or mappings nest too deeply; {MOST_DEPTH} levels are allowed") from None
    except (ValueError, OverflowError) as error:  # PyYAML lets "\UFFFFFFFF" reach chr()
        raise SuiteError(f"{path}:1:1: this is not YAML: {error}; look for an escape such as \\U") from None
    if node is None:
        raise SuiteError(f"{path}:1:1: the file is empty; it must hold keys, such as `name: ...`")
    document = Document(path)
    try:
        document.data = _Walk(document).value(node, ())
    except RecursionError:  # only `&a {<<: *a}` comes here, all else meets MOST_DEPTH first
        raise SuiteError(f"{path}:1:1: a mapping merges itself (<<); remove that alias") from None
    return document


def _from_1(mark: yaml.Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SuiteError(f"{path}: cannot be read ({reason}); give the path of a YAML file") from None
    if len(raw) > MOST_BYTES:
        raise SuiteError(f"{path}: at most {MOST_BYTES} bytes of YAML are read, found {len(raw)}; split the file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        raise SuiteError(
            f"{_spot(path, before)}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _spot(path: Path, before: str) -> str:
    lines = before.split("\n")
    return f"{path}:{len(lines)}:{len(lines[-1]) + 1}"


class _Walk:
    """Turns the nodes of one document into data, noting marks and mistakes in it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        """The data of `node`, which stands at `loc`."""
        self.count += 1
        self.document.values[loc] = node.start_mark
        if self.count > MOST_VALUES or len(loc) > MOST_DEPTH:
            raise SuiteError(
                f"{self.document.where(loc)}: at most {MOST_VALUES} values and {MOST_DEPTH} levels are allowed, "
                f"this file has more once its aliases (*name) are followed; write less, or use several files"
            )
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE}map":
            return self.mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE}seq":
            return [self.value(child, (*loc, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, loc)
        self.document.mistake(
            loc, f"plain values, lists and mappings were asked for, found the tag {node.tag}; remove it"
        )
        return None

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        """The mapping as a dict of text keys; its own keys replace those that `<<` brings in."""
        found = self.merged([child for key, child in node.value if key.tag == f"{_CORE}merge"], loc)
        own: set[str] = set()
        for key_node, child in node.value:
            if key_node.tag == f"{_CORE}merge" or not (key := self.key(key_node)):
                continue
            if key in own:
                self.twice(key_node, (*loc, key))
                continue
            own.add(key)
            self.document.keys[*loc, key] = key_node.start_mark
            found[key] = self.value(child, (*loc, key))
        return found

    def merged(self, children: list[yaml.Node], loc: Loc) -> dict[str, Any]:
        """What the values of `<<` bring to the mapping at `loc`: mappings, or lists of them."""
        found: dict[str, Any] = {}
        for child in reversed([part for node in children for part in _parts(node)]):
            if isinstance(child, yaml.MappingNode):
                found |= self.mapping(child, loc)
            else:
                self.document.note(child.start_mark, "`<<` merges mappings, found something else; write `<<: *name`")
        return found

    def key(self, node: yaml.Node) -> str:
        """The text of a key; a mistake and "" where it is no text."""
        if isinstance(node, yaml.ScalarNode) and node.tag == f"{_CORE}str" and node.value and _encodes(node.value):
            return str(node.value)
        shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        kind = node.tag.removeprefix(_CORE)
        self.document.note(
            node.start_mark, f"a key must be a word, found {shown!r} (to YAML: {kind}); put it in quotes or rename it"
        )
        return ""

    def twice(self, node: yaml.Node, loc: Loc) -> None:
        """Note a key that already stands in the same mapping; the first one keeps its value."""
        first = self.document.place(loc, key=True)[0]
        text = f"a key may stand once, found {loc[-1]!r} again, first on line {first}; remove one of the two"
        self.document.note(node.start_mark, text)

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        """A number, truth value or text; dates stay text. None, with a mistake noted, for anything else."""
        kind, text = node.tag.removeprefix(_CORE), node.value
        made: Any = None
        if kind in ("str", "timestamp", "value") and _encodes(text):
            return text
        if kind in ("bool", "int", "float"):
            made = _plain(kind, node)
        if trouble := self.trouble(kind, text, made, quoted=bool(node.style)):
            self.document.mistake(loc, trouble)
            return None
        return made

    @staticmethod
    def trouble(kind: str, text: str, made: Any, *, quoted: bool) -> str | None:
        """What is wrong with a scalar whose text YAML has made into `made`, as a sentence, or None."""
        if kind == "null":
            return f"a value was asked for, found {text or 'nothing'}; give one, or remove the key"
        if made is None:
            return f"a plain value was asked for, found {text[:40]!r} as {kind}; write it without tags and escapes"
        if kind != "bool" and not quoted and _OCTAL_OR_BASE_60.fullmatch(text):
            return f"a plain number was asked for, found {text}, to YAML {made}; write {made}, or put it in quotes"
        return None


def _parts(node: yaml.Node) -> list[yaml.Node]:
    return node.value if isinstance(node, yaml.SequenceNode) else [node]


def _plain(kind: str, node: yaml.ScalarNode) -> Any:
    """The value of a scalar by YAML 1.1's rules; None where a tag does not fit the text, or it is too long."""
    make = {"bool": _PLAIN.construct_yaml_bool, "int": _PLAIN.construct_yaml_int, "float": _PLAIN.construct_yaml_float}
    try:
        return make[kind](node)
    except (KeyError, ValueError, IndexError, OverflowError):
        return None


def _encodes(text: str) -> bool:
    """Whether `text` can be written as UTF-8: YAML escapes can make half a character."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
