"""Weights from torch files (.pth, .pt): the functions of sources.py, with two more suffixes.

Only tensors in plain containers are read (`weights_only=True`): a pickle that would call anything else is refused,
never run. Dictionaries inside dictionaries ({"state_dict": {...}}) give names with dots.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

# torch: the only reader of its own files that refuses to run code in them.
import torch

from sparsebench import sources
from sparsebench.case import FileData
from sparsebench.errors import MatrixError
from sparsebench.sources import Kind, Matrices, Reader, Stored, TensorInfo


def inspect(path: Path, tensors: str = "*") -> list[TensorInfo]:
    """As sources.inspect, torch files included."""
    return sources.inspect(path, tensors, READERS)


def matrices(path: Path, tensors: str = "*") -> Matrices:
    """As sources.matrices, torch files included."""
    return sources.matrices(path, tensors, READERS)


def load(path: Path, tensor: str | None = None) -> FileData:
    """As sources.load, torch files included."""
    return sources.load(path, tensor, READERS)


def _pth(path: Path) -> Mapping[str | None, Stored]:
    """Tensors of a torch file by name, mapped from the file rather than read where its kind allows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols torch may not know: what it cannot read it refuses
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "its pickle is broken"
        raise MatrixError(
            f"{path} holds more than tensors, or is no torch file, and was not run: {reason}; "
            f"save model.state_dict() with torch.save, or a .safetensors"
        ) from None
    return {name: _stored(tensor) for name, tensor in _tensors(content, None)}


def _tensors(content: Any, prefix: str | None) -> Iterator[tuple[str | None, torch.Tensor]]:
    """Every tensor in `content` with its name, inner names after a dot."""
    if isinstance(content, torch.Tensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _tensors(value, str(name) if prefix is None else f"{prefix}.{name}")


def _stored(tensor: torch.Tensor) -> Stored:
    kind: Kind | None = "mask" if tensor.dtype == torch.bool else "weights" if tensor.is_floating_point() else None
    return Stored(tuple(tensor.shape), kind, partial(_values, tensor))


def _values(tensor: torch.Tensor) -> np.ndarray:
    """bool or float32; float64 stays, so that a number too large for float32 is seen."""
    full = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    wide = full if full.dtype in (torch.bool, torch.float64) else full.to(torch.float32)
    return np.array(wide.numpy())  # a copy: the tensor may be mapped from a file that changes


READERS: Mapping[str, Reader] = {**sources.READERS, ".pth": _pth, ".pt": _pth}
