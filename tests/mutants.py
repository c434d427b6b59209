"""Small faults put into CUDA C++ sources, one at a time: what mutation.py plants and the laws must find.

barrier   __syncthreads(), __syncwarp(), wait_copies<N>() or commit_copies() deleted
bound     < becomes <=, <= becomes <, > becomes >=, >= becomes >
mask      a condition that guards a tail no longer does: `if (c) return` never returns, another `if (c)` and `c ? a : b`
          always hold
constant  two of the macros that say tile sizes swapped on a line, but for factors of one product or terms of a sum
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

BARRIER = re.compile(r"\b(?:__syncthreads\(\)|__syncwarp\(\)|wait_copies<[^;]*?>\(\)|commit_copies\(\));")
RELATION = re.compile(r" (<=|>=|<|>) ")
OTHER = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
LEAVES = re.compile(r"^\s*(?:return|continue|break)\b")
CONSTANT = re.compile(r"\b[A-Z][A-Z_]{2,}\b")
# Runs of one operator on their own, whose operands may change places.
RUNS = {
    " * ": re.compile(r"(?<![/%] )\b\w+(?: \* \w+)+\b(?! [/%])"),
    " + ": re.compile(r"(?<![-*/%] )\b\w+(?: \+ \w+)+\b(?! [*/%])"),
    " || ": re.compile(r"(?<!&& )\b\w+(?: \|\| \w+)+\b(?! (?:&&|[<>=!]))"),
}
DECLARED = re.compile(r"^\s*(?:#|\"|static_assert|template|using|//|extern|struct)|__launch_bounds__")


@dataclass(frozen=True)
class Mutant:
    """One changed line of one file below kernels/; `before` and `after` are the whole line."""

    file: str
    line: int
    kind: str
    before: str
    after: str

    @property
    def id(self) -> str:
        return f"{self.file}:{self.line} {self.kind} {self.after.strip()}"

    @property
    def change(self) -> str:
        """What the file of explanations knows it by, whatever its line number."""
        return f"{self.file} {self.kind}: {self.before.strip()} => {self.after.strip()}"

    def applied(self, text: str) -> str:
        """`text` of the file with the fault."""
        lines = text.split("\n")
        assert lines[self.line - 1] == self.before
        lines[self.line - 1] = self.after
        return "\n".join(lines)


def mutants_of(root: Path, file: Path) -> list[Mutant]:
    """All faults of one file, in the order of its lines, none twice."""
    found: dict[str, Mutant] = {}
    for number, line in enumerate(file.read_text().split("\n"), start=1):
        code, comment = split_comment(line)
        for kind, after in _changed(code):
            mutant = Mutant(str(file.relative_to(root)), number, kind, line, after + comment)
            found.setdefault(mutant.id, mutant)
    return list(found.values())


def split_comment(line: str) -> tuple[str, str]:
    """The code of a line, and its comment with the blanks before it."""
    at = line.find("//")
    code = line if at < 0 else line[:at].rstrip()
    return code, line[len(code) :]


def _changed(code: str) -> Iterator[tuple[str, str]]:
    if DECLARED.search(code):
        return
    for found in BARRIER.finditer(code):
        yield "barrier", code[: found.start()] + ";" + code[found.end() :]
    for found in RELATION.finditer(code):
        yield "bound", code[: found.start(1)] + OTHER[found[1]] + code[found.end(1) :]
    yield from _masks(code)
    yield from _swaps(code)


def _masks(code: str) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r"\bif \(", code):
        end = closing(code, found.end() - 1)
        if end is None:
            continue
        condition, rest = code[found.end() : end], code[end + 1 :]
        held = f"false && ({condition})" if LEAVES.match(rest) else f"true || ({condition})"
        yield "mask", code[: found.end()] + held + code[end:]
    for found in re.finditer(r" \? ", code):
        start = start_of_condition(code, found.start())
        yield "mask", code[:start] + f"(true || ({code[start : found.start()]}))" + code[found.start() :]


def _swaps(code: str) -> Iterator[tuple[str, str]]:
    names = list(dict.fromkeys(CONSTANT.findall(code)))
    for one, other in pairwise(names):
        swapped = CONSTANT.sub(lambda name, a=one, b=other: {a: b, b: a}.get(name[0], name[0]), code)
        if in_order(swapped) != in_order(code):
            yield "constant", swapped


def in_order(code: str) -> str:
    """`code` with the factors of each product sorted, and so on: equal where only these changed places."""
    for operator, run in RUNS.items():
        code = run.sub(lambda found, by=operator: by.join(sorted(found[0].split(by))), code)
    return code


def closing(code: str, opening: int) -> int | None:
    """Index of the parenthesis that closes the one at `opening`, or None on another line."""
    depth = 0
    for at in range(opening, len(code)):
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if depth == 0:
            return at
    return None


def start_of_condition(code: str, end: int) -> int:
    """Where the condition that ends before `end` begins: after the nearest (, [, {, comma, ?, :, = or return."""
    depth, at = 0, end
    while at > 0:
        before = code[at - 1]
        if before in ")]":
            depth += 1
        elif before in "([" and depth:
            depth -= 1
        elif depth == 0 and (before in "([{,;?" or _assigns(code, at - 1) or code[:at].endswith(("return ", " : "))):
            break
        at -= 1
    return at + len(code[at:end]) - len(code[at:end].lstrip())


def _assigns(code: str, at: int) -> bool:
    return code[at] == "=" and code[at - 1] not in "=!<>" and code[at + 1 : at + 2] != "="
