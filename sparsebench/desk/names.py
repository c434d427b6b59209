"""Patterns in words: what a table calls an arm, what a legend calls its family, what a command line takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparsebench import units
from sparsebench.case import Case
from sparsebench.desk.observe import blocks_of
from sparsebench.errors import PatternError


def family_text(case: Case) -> str:
    """The pattern without its sparsity: `block 4x1`, `nm 2:4`, `hierarchical 4x1+1x1`, `rbgp4 128x32 r4 1x1`."""
    about, params = [case.pattern], case.params
    if case.pattern in ("block", "hierarchical"):
        about.append(_blocks(case))
    if case.pattern == "nm":
        about.append(":".join(map(str, params.get("nm", ()))))
    if case.pattern == "rbgp4":
        about += [_pair(params.get("tile")), f"r{params.get('row_repeat', 1)}", _pair(params.get("block", (1, 1)))]
    if params.get("ablated"):
        about.append(f"ablated {units.percent(params['ablated'])}")
    return " ".join(about) + _origin(case)


def arm_text(case: Case) -> str:
    """The pattern with its sparsity: `block 4x1 90 %`, `hierarchical 4x1 63 % + 1x1 97 %`."""
    if case.pattern == "hierarchical" and (levels := case.params.get("levels")):
        told = " + ".join(f"{_pair(level['block'])} {units.percent(level['sparsity'])}" for level in levels)
        return f"hierarchical {told}{_origin(case)}"
    outer = case.params.get("outer_sparsity")
    share = "" if case.sparsity is None else f" {units.percent(case.sparsity)}"
    return family_text(case) + share + (f" (outer {units.percent(outer)})" if outer else "")


def pattern_option(case: Case) -> str:
    """What `predict --pattern` takes for this case's pattern; unstructured for a file's mask."""
    params = case.params
    if case.pattern == "block":
        return f"block:{_pair(params['block'])}"
    if case.pattern == "nm":
        return f"nm:{params['nm'][0]}:{params['nm'][1]}"
    if case.pattern == "hierarchical":
        return "hierarchical:" + "+".join(
            f"{_pair(level['block'])}@{level['sparsity']:g}" for level in params["levels"]
        )
    if case.pattern == "rbgp4":
        block, outer = _pair(params.get("block", (1, 1))), params.get("outer_sparsity", 0.0)
        return f"rbgp4:{_pair(params['tile'])},r{params.get('row_repeat', 1)},{block},o{outer:g}"
    return "unstructured" if case.pattern == "file" else case.pattern


def _origin(case: Case) -> str:
    """What its mask was pruned from, where that is not chance."""
    return {"random": "", "magnitude": " by magnitude"}.get(case.origin, f" {case.origin}")


def _blocks(case: Case) -> str:
    try:
        return "+".join(f"{bh}x{bw}" for _, bh, bw in blocks_of(case))
    except PatternError:  # a record of another version may name what is unknown here
        return ""


def _pair(shape: Sequence[Any] | None) -> str:
    return "x".join(map(str, shape or ()))
