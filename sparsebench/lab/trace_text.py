"""A trace as a network's YAML, as sentences, and as JSON data.

The YAML is as people write it: a layer a line, and behind each that stays dense the reason. A comment on top keeps what
one sample was and what is not in the layers, so that the file explains itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from sparsebench.errors import SparsebenchError
from sparsebench.lab.trace import Trace
from sparsebench.lab.trace_layers import Outside
from sparsebench.network import Layer, Network
from sparsebench.units import rate

MOST_NAMED = 4


def network_text(trace: Trace, name: str) -> str:
    """The YAML of a network called `name`, read back and compared before it is returned."""
    lines = [f"# {line}" for line in told(trace)]
    lines += [f"name: {_scalar(name)}", f"source: {_scalar(_source(trace))}", "layers:"]
    lines += [f"  - {{{_keys(layer)}}}{_reason(trace, layer)}" for layer in trace.layers]
    text = "\n".join(lines) + "\n"
    _read_back(text, trace)
    return text


def _read_back(text: str, trace: Trace) -> None:
    """SparsebenchError where the text is not the network that was traced: a fault of ours, and not the user's."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.yaml"
        path.write_text(text)
        if Network.load(path).layers != trace.layers:
            raise SparsebenchError(
                f"{trace.target}: the file would not be the network that was traced; please report it"
            )


def _source(trace: Trace) -> str:
    asked = " ".join(f"--input {each.text}" for each in trace.inputs)
    return f"sparsebench trace {trace.target} {asked} (torch {torch.__version__})"


def _keys(layer: Layer) -> str:
    """A layer's keys as YAML has them; those with their default value are left out."""
    found: dict[str, Any] = {"name": _scalar(layer.name), "kind": layer.kind}
    if conv := layer.conv:
        found |= {"in": conv.c, "out": layer.m, "kernel": _side(conv.kh, conv.kw), "size": _side(conv.h, conv.w)}
        found |= _unless(1, stride=conv.stride) | _unless(0, padding=conv.padding) | _unless(1, groups=conv.groups)
    else:
        found |= {"m": layer.m, "k": layer.k, "n": layer.n}
    found |= _unless(1, calls=layer.calls) | ({} if layer.prunable else {"prunable": "false"})
    return ", ".join(f"{key}: {value}" for key, value in found.items())


def _unless(default: int, **keys: int) -> dict[str, int]:
    return {key: value for key, value in keys.items() if value != default}


def _side(rows: int, columns: int) -> str:
    return str(rows) if rows == columns else f"[{rows}, {columns}]"


def _scalar(text: str) -> str:
    """`text` as YAML, in quotes where it would be read as something else."""
    try:
        plain = yaml.safe_load(f"{{name: {text}}}") == {"name": text}
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text)


def _reason(trace: Trace, layer: Layer) -> str:
    why = trace.products.why_dense.get(layer.name)
    return f"  # {why}" if why else ""


def told(trace: Trace) -> list[str]:
    """What was found, and what is not in the layers, a sentence a line."""
    found = trace.products
    dense = sum(not layer.prunable for layer in found.layers)
    macs = sum(layer.macs for layer in found.layers)
    return [
        f"Traced on the {'CPU' if trace.not_on_meta else 'meta device'}. "
        f"One sample is {', '.join(map(str, trace.inputs))}{_batch_told(trace)}",
        *([f"The meta device would not do: {trace.not_on_meta}"] if trace.not_on_meta else []),
        f"{_many(len(found.layers), 'layer')} of {found.weights:,} weights, {_macs(macs)} a sample; {dense} kept dense",
        *_weightless_told(trace),
        *map(_outside_told, found.outside),
        *_unused_told(trace),
    ]


def _batch_told(trace: Trace) -> str:
    """A doubt where all inputs begin with the same size above 1: it may be a batch."""
    first, *others = {each.shape[0] for each in trace.inputs}
    if others or first == 1:
        return ""
    return f"; n counts all {first}, so if that is a batch, trace a batch of 1"


def _weightless_told(trace: Trace) -> list[str]:
    count, macs = trace.products.weightless
    told = f"Outside the layers: {_many(count, 'product')} without a weight, such as attention's, {_macs(macs)}"
    return [told] if count else []


def _outside_told(left: Outside) -> str:
    macs = "multiply-adds unknown" if left.macs is None else _macs(left.macs)
    return f"Left out: {left.name} ({_many(left.calls, 'product')}, {macs}): {left.why}"


def _unused_told(trace: Trace) -> list[str]:
    if not trace.unused:
        return []
    named = ", ".join(f"{name} ({entries:,})" for name, entries in list(trace.unused.items())[:MOST_NAMED])
    more = f" and {len(trace.unused) - MOST_NAMED} more" if len(trace.unused) > MOST_NAMED else ""
    return [f"In no product: {_many(sum(trace.unused.values()), 'weight')}, in {named}{more}"]


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _macs(macs: int) -> str:
    return f"{rate(macs, '').strip() if macs >= 1000 else macs} multiply-adds"


def data(trace: Trace) -> dict[str, Any]:
    """The same as JSON data."""
    count, macs = trace.products.weightless
    return {
        "device": "cpu" if trace.not_on_meta else "meta",
        "not_on_meta": trace.not_on_meta,
        "inputs": [asdict(each) for each in trace.inputs],
        "layers": [asdict(layer) for layer in trace.layers],
        "why_dense": trace.products.why_dense,
        "weights": trace.products.weights,
        "macs": sum(layer.macs for layer in trace.layers),
        "weightless": {"products": count, "macs": macs},
        "left_out": [asdict(each) for each in trace.products.outside],
        "in_no_product": dict(trace.unused),
    }
