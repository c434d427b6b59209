"""The gates' float64 on a GPU: a reference of 11008x4096x2048 takes numpy seconds and a GPU milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

# torch: float64 products on the device, where answers already are.
import torch

from sparsebench.case import Conv
from sparsebench.lab.check import WALK, Worst

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchArithmetic:
    """Float64 by torch on one device; what check.NumpyArithmetic does, entry for entry."""

    def __init__(self, device: str) -> None:
        self.device = device

    def product(self, w: np.ndarray, x: np.ndarray, conv: Conv | None) -> torch.Tensor:
        """W @ X, [m, n]."""
        return self._product(self._float64(w), self._float64(x), conv)

    def integers(self, w: np.ndarray, x: np.ndarray, conv: Conv | None) -> torch.Tensor:
        """W @ X of small integers."""
        return self.product(w, x, conv)

    def rounded(self, y: torch.Tensor, dtype: str) -> torch.Tensor:
        """`y` rounded once to `dtype`, in float64."""
        return y.float().to(_DTYPES[dtype]).double()

    def allowance(
        self, w: np.ndarray, x: np.ndarray, y: torch.Tensor, u: float, u_out: float, conv: Conv | None
    ) -> torch.Tensor:
        """Largest |error| allowed in each entry of y."""
        factor, columns = self._float64(w), self._float64(x)
        terms = torch.count_nonzero(factor, dim=1)[:, None].double()
        squares = self._product(factor.square_(), columns.square_(), conv)
        return (squares * terms).sqrt_().mul_(WALK * u).add_(y.abs(), alpha=u_out)

    def answer(self, answer: Any) -> torch.Tensor:
        """A kernel's output in float64, on the device."""
        return torch.as_tensor(answer).to(self.device, torch.float64)

    def worst(self, found: torch.Tensor, y: torch.Tensor, allowed: torch.Tensor) -> Worst:
        """The worst entry of `found`."""
        error = (found - y).abs_()
        ratios = torch.where(error == 0, 0.0, error / allowed)
        ratios = torch.where(torch.isfinite(found), ratios, torch.inf)
        row, column = divmod(int(ratios.argmax()), ratios.shape[1])
        at = row, column
        numbers = (float(found[at]), float(y[at]), float(allowed[at]), float(ratios[at]))
        return Worst(*at, *numbers, int((ratios > 1).sum()))

    def by_columns(self, y: torch.Tensor, signs: np.ndarray) -> torch.Tensor:
        """`y` with its columns times `signs`."""
        return y * torch.from_numpy(signs).to(y)

    def _float64(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device).double()

    def _product(self, w: torch.Tensor, x: torch.Tensor, conv: Conv | None) -> torch.Tensor:
        if conv is None:
            return w @ x
        filters = w.reshape(len(w), -1, conv.kh, conv.kw)
        y = torch.nn.functional.conv2d(x, filters, None, conv.stride, conv.padding, 1, conv.groups)
        return y.transpose(0, 1).reshape(len(w), -1)
