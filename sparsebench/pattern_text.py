"""A pattern in one word of a command line, such as `block:16x16` or `hierarchical:4x1@0.63+1x1@0.97`."""

from __future__ import annotations

import re
from typing import Any

from sparsebench.errors import BadInput
from sparsebench.patterns import PATTERNS

EXAMPLES = (
    "unstructured, constant_fan_in, block:16x16, nm:2:4, hierarchical:4x1@0.63+1x1@0.97, rbgp4:128x32,r4,1x1,o0.5"
)
_LEVEL = re.compile(r"(\d+)x(\d+)@([\d.]+)")
_RBGP4 = re.compile(r"(\d+)x(\d+),r(\d+),(\d+)x(\d+),o([\d.]+)")


def parse_pattern(text: str) -> tuple[str, dict[str, Any]]:
    """The name and params that `text` stands for; BadInput with examples for anything else.

    A block is rows x columns; nm is N:M; a level is block@sparsity; rbgp4 is tile,rROW_REPEAT,block,oOUTER_SPARSITY.

    >>> parse_pattern("block:4x1")
    ('block', {'block': [4, 1]})
    """
    name, _, about = text.partition(":")
    if name not in PATTERNS or name in ("dense", "file"):
        raise BadInput(f"--pattern {text!r} names no pattern that can be drawn; write one such as {EXAMPLES}")
    if name == "block" and (found := re.fullmatch(r"(\d+)x(\d+)", about)):
        return name, {"block": [int(found[1]), int(found[2])]}
    if name == "nm" and (found := re.fullmatch(r"(\d+):(\d+)", about)):
        return name, {"nm": [int(found[1]), int(found[2])]}
    if name == "hierarchical" and all(levels := [_LEVEL.fullmatch(part) for part in about.split("+")]):
        return name, {"levels": [{"block": [int(f[1]), int(f[2])], "sparsity": float(f[3])} for f in levels if f]}
    if name == "rbgp4" and (found := _RBGP4.fullmatch(about)):
        tile_m, tile_k, row_repeat, bh, bw = (int(found[i]) for i in range(1, 6))
        outer = {"row_repeat": row_repeat, "block": [bh, bw], "outer_sparsity": float(found[6])}
        return name, {"tile": [tile_m, tile_k], **outer}
    if name in ("unstructured", "constant_fan_in") and not about:
        return name, {}
    raise BadInput(f"--pattern {text!r} does not say what {name} needs; write one such as {EXAMPLES}")
