"""One question: what is multiplied with what. Nothing here says who answers.

Y[m, n] = W[m, k] @ X[k, n]: W sparse weights (m outputs, k inputs), n activation columns (batch x tokens or pixels).
For op `conv2d` X is the activation tensor, m = out channels, k = in channels x kh x kw (flattened in that order),
n = batch x oh x ow; weights are the same [m, k] matrix.

The mask depends on (seed, pattern, params, sparsity, m, k, source) alone, so every kernel, dtype and n of a problem
meets the same one. Weights and activations follow the same rule with their own streams of random numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

# ml_dtypes: numpy's bfloat16, so that a packed matrix has the bytes that it claims.
import ml_dtypes
import numpy as np

from sparsebench.errors import BadInput, PatternError
from sparsebench.patterns import Draw, Pattern, imbalanced, pattern_from

Op = Literal["gemm", "conv2d"]
DType = Literal["float32", "float16", "bfloat16"]
Math = Literal["ieee", "tf32", "tf32x3"]
Layout = Literal["feature", "batch"]
Data = Literal["normal", "integers"]
Kind = Literal["layer", "rest"]  # a product, or what a network spends outside its products
Origin = Literal["magnitude", "imbalanced", "random"]  # what a mask is chosen from

ITEM_BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def canonical(value: Any) -> str:
    """`value` as the one JSON text that keys are hashed from: sorted names, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a mask or weights came from: file name below the data folder (never a local path), tensor, content."""

    file: str
    tensor: str | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Conv:
    """What a conv2d case adds to m, k, n. Square stride and padding, no dilation."""

    c: int
    h: int
    w: int
    kh: int
    kw: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    batch: int = 1

    @property
    def oh(self) -> int:
        """Rows of the output plane."""
        return (self.h + 2 * self.padding - self.kh) // self.stride + 1

    @property
    def ow(self) -> int:
        """Columns of the output plane."""
        return (self.w + 2 * self.padding - self.kw) // self.stride + 1


@dataclass(frozen=True, slots=True)
class FileData:
    """What a source file brought: a mask alone (.smtx), or weights, [m, k] each."""

    mask: np.ndarray | None = None
    weights: np.ndarray | None = None


_KNOWN = {
    "kind": get_args(Kind),
    "op": get_args(Op),
    "dtype": get_args(DType),
    "math": get_args(Math),
    "layout": get_args(Layout),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question, as plain data. `sparsity` is the request, None where the pattern fixes it (a file, levels).

    Of kind `rest` it asks for no product, but for what a network takes as a whole (rest.py makes such cases).
    """

    m: int
    k: int
    n: int
    op: Op = "gemm"
    dtype: DType = "float32"
    math: Math = "ieee"
    layout: Layout = "feature"
    pattern: str = "dense"
    params: Mapping[str, Any] = field(default_factory=dict)
    sparsity: float | None = None
    seed: int = 0
    source: Source | None = None
    conv: Conv | None = None
    kind: Kind = "layer"

    def __post_init__(self) -> None:
        if min(self.m, self.k, self.n) < 1:
            raise BadInput(f"m, k and n must be at least 1, found m={self.m}, k={self.k}, n={self.n}")
        for what, known in _KNOWN.items():
            if (value := getattr(self, what)) not in known:
                raise BadInput(f"{what} must be one of {', '.join(known)}, found {value!r}")
        if (self.op == "conv2d") != (self.conv is not None):
            raise BadInput(f"op {self.op} {'needs' if self.op == 'conv2d' else 'takes no'} convolution fields")

    def to_json(self) -> dict[str, Any]:
        """This case as JSON data, in the form records keep."""
        return json.loads(canonical(case_data(asdict(self))))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Case:
        """The case that `to_json` wrote; TypeError or BadInput on anything else."""
        source, conv = data.get("source"), data.get("conv")
        nested = {"source": Source(**source) if source else None, "conv": Conv(**conv) if conv else None}
        return cls(**{**data, **nested})

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON: equal cases and only equal cases share it."""
        return digest(self.to_json())

    @property
    def identity(self) -> tuple[Any, ...]:
        """What this case is equal by, hashable: as good as `key` within one process, for a tenth of its cost."""
        params = canonical(dict(self.params)) if self.params else ""
        about = (self.op, self.m, self.k, self.n, self.dtype, self.math, self.layout, self.conv)
        return (*about, self.pattern, params, self.sparsity, self.seed, self.source, self.kind)

    @property
    def problem(self) -> Case:
        """The dense question under this one: what the baselines answer, and what all patterns are measured against."""
        return replace(self, pattern="dense", params={}, sparsity=None, seed=0, source=None)

    def flops(self) -> int:
        """Operations of the dense product, 2 for a multiply-add; k of a grouped convolution is that of one group."""
        return 2 * self.m * self.k * self.n

    def useful_flops(self, nnz: int) -> int:
        """Operations on stored nonzeros alone."""
        return 2 * nnz * self.n

    @property
    def pattern_object(self) -> Pattern:
        """The pattern of this case; PatternError if its params do not describe one."""
        return pattern_from(self.pattern, {name: value for name, value in self.params.items() if name != "from"})

    @property
    def origin(self) -> str:
        """How the mask is chosen: `random`, or by `magnitude` of the weights, or of `imbalanced` ones."""
        return str(self.params.get("from", "random"))

    @property
    def pruned_by_magnitude(self) -> bool:
        """Whether the mask keeps the largest of the case's own weights."""
        return self.origin == "magnitude"

    def describe(self) -> str:
        """One line for people, such as `768x3072 n=64 block 4x1 90 %`."""
        if self.kind == "rest":
            network = self.source.file if self.source else "a network"
            return f"{network} as a whole, batch {self.n}, {len(self.params.get('plan', ()))} layers planned"
        parts = [f"{self.m}x{self.k} n={self.n}", self.pattern]
        if self.pattern in ("block", "hierarchical"):
            parts.append("+".join(f"{bh}x{bw}" for _, bh, bw in self.pattern_object.blocks()))
        if self.pattern == "nm":
            parts.append(":".join(map(str, self.params.get("nm", ()))))
        if self.sparsity is not None:
            parts.append(f"{100 * self.sparsity:.4g} %")
        if self.source is not None:
            parts.append(self.source.file)
        return " ".join(parts)

    def _rng(self, stream: str) -> np.random.Generator:
        """Random numbers that depend on the seed and on what the stream is for, not on dtype, layout or kernel."""
        about: dict[str, Any] = {
            "stream": stream,
            "m": self.m,
            "k": self.k,
            "source": asdict(self.source) if self.source else None,
        }
        if stream == "mask":
            about |= {"pattern": self.pattern, "params": dict(self.params), "sparsity": self.sparsity}
        if stream.startswith("activations"):
            about |= {"n": self.n}
        return np.random.default_rng([self.seed, int(digest(about)[:16], 16)])

    def draw(self, file: FileData | None = None) -> Draw:
        """The mask of this case and its structure; PatternError where the pattern does not fit the shape."""
        pattern = self.pattern_object
        if self.pattern == "file":
            if file is None or file.mask is None:
                raise PatternError(f"pattern file needs a problem with matrices or weights, {self.describe()} has none")
            return Draw(file.mask)
        if self.pruned_by_magnitude:
            return pattern.draw_from(self.values("normal", file), self.sparsity, self._rng("mask"))
        if self.origin == "imbalanced":
            # The scales choose places alone: no time depends on values, and all patterns of a shape share those.
            weights = imbalanced(self.values("normal"), self._rng("scales"))
            return pattern.draw_from(weights, self.sparsity, self._rng("mask"))
        return pattern.draw(self.m, self.k, self.sparsity, self._rng("mask"))

    def values(self, data: Data = "normal", file: FileData | None = None) -> np.ndarray:
        """W before it is pruned, float32 [m, k]: the file's values or zero-mean normal ones, or +-1..+-4.

        Cases of one seed, shape and source share them, whatever their pattern.
        """
        if data == "normal" and file is not None and file.weights is not None:
            return np.asarray(file.weights, np.float32)
        return _random(self._rng(f"weights {data}"), (self.m, self.k), data)

    def weights(self, draw: Draw, data: Data = "normal", file: FileData | None = None) -> np.ndarray:
        """W, float32 [m, k]: its values, zero outside the mask."""
        return kept_of(self.values(data, file), draw)

    def activations(self, data: Data = "normal", fresh: int = 0) -> np.ndarray:
        """X, float32: [k, n] for gemm, [batch, c, h, w] for conv2d; `fresh` numbers independent draws."""
        shape = (self.k, self.n) if self.conv is None else (self.conv.batch, self.conv.c, self.conv.h, self.conv.w)
        return _random(self._rng(f"activations {data} {fresh}"), shape, data)


def case_data(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a case as records keep them: without `kind` where it is `layer`, as before schema 2."""
    if data.get("kind") == "layer":
        del data["kind"]
    return data


def kept_of(values: np.ndarray, draw: Draw) -> np.ndarray:
    """`values` [m, k] inside the mask, 0 outside."""
    return np.where(draw.mask, values, np.float32(0))


def _random(rng: np.random.Generator, shape: tuple[int, ...], data: Data) -> np.ndarray:
    """Zero-mean normal numbers, or +-1..+-4 with no zero among them; float32."""
    if data == "normal":
        return rng.standard_normal(shape, dtype=np.float32)
    signs = rng.integers(0, 2, shape, dtype=np.int8) * 2 - 1
    return (signs * rng.integers(1, 5, shape, dtype=np.int8)).astype(np.float32)
