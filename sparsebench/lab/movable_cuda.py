"""How a launch on a GPU follows X and Y: wherever its call holds a tensor that lies in one of them, today's is put.

Faces hold tensors in three places: among the arguments of a partial (torch, Triton), in the closure of a function, and
among the arguments of a CUDA launch, which the toolchain here hands out so that they can be changed. All that `run`
reaches is walked once; each call then sets what was found, as the same view of today's tensor, and lets go of it after.

What a walk cannot reach (a descriptor of cuSPARSE, a bound method) shows in the check: such a launch copies. Launches
and copies go to torch's current stream of that moment, as everywhere in the lab, so that a CUDA graph can hold them;
what a launch was pointed at when it was captured stays in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import CellType, FunctionType
from typing import Any, NamedTuple

# torch: its tensors are the operands of every kernel on a GPU.
import torch

from sparsebench.case import Case
from sparsebench.kernel import CudaFunction, CudaToolchain, Launch
from sparsebench.lab.movable import Following, by_copies
from sparsebench.lab.operands import in_layout, y_shape

ALIGNED_BYTES = 256  # as torch allocates
Put = Callable[[Any], None]


class MovableLaunch:
    """A bound CUDA launch whose tensors may be exchanged for others of their shape and dtype.

    A launch that shows its arguments as C objects (`values`, as lab/cuda_build.py's do) is given other addresses, any
    other is bound anew.
    """

    def __init__(
        self,
        function: CudaFunction,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: Sequence[Any],
        shared_bytes: int,
    ) -> None:
        self.arguments, self._bind = list(arguments), partial(function.bind, grid, block, shared_bytes=shared_bytes)
        self._launch = self._bind(arguments=self.arguments)
        self._values: Sequence[Any] | None = getattr(self._launch, "values", None)
        self._stale = False

    def __call__(self) -> None:
        if self._stale:
            self._launch, self._stale = self._bind(arguments=self.arguments), False
        self._launch()

    def put(self, place: int, tensor: torch.Tensor | None) -> None:
        """Take `tensor` for the argument at `place` from now on; None: it is gone until the next one comes."""
        if self._values is None:
            self.arguments[place], self._stale = tensor, True
        elif tensor is not None:
            self._values[place].value = tensor.data_ptr()


class _MovableFunction:
    """A CUDA function whose launches are movable."""

    def __init__(self, function: CudaFunction) -> None:
        self._function = function

    def bind(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_bytes: int = 0
    ) -> MovableLaunch:
        """As kernel.CudaFunction.bind."""
        return MovableLaunch(self._function, grid, block, arguments, shared_bytes)


class NetworkCudaToolchain:
    """The toolchain of all layers of a network on a GPU, over another one, whose outputs and scratch they share."""

    alignment_bytes = ALIGNED_BYTES

    def __init__(self, inner: CudaToolchain) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        """Whatever else the other one has: device, gpu, tensor, output, scratch, its clock for choosing tiles."""
        return getattr(self._inner, name)

    def cuda(self, body: Path, function: str, defines: Mapping[str, Any] | None = None) -> _MovableFunction:
        """As the other's; its launches can follow."""
        return _MovableFunction(self._inner.cuda(body, function, defines))

    def place(self, case: Case) -> torch.Tensor:
        """A tensor of activations on the device, in the layout of `case`."""
        tensor: torch.Tensor = self._inner.tensor(in_layout(case.activations(), case))
        return tensor

    def ways(self, case: Case, launch: Launch, x: torch.Tensor) -> Iterator[Following]:
        """With today's tensors in the places of its own, where there are some; else by copies on the device."""
        of_x, of_y = ([*_found(launch.run, home)] if home is not None else [] for home in (x, launch.y))
        if of_x and (of_y or launch.y is None):
            yield Following("arguments", _by_places(case, launch, of_x, of_y))
            for place in (*of_x, *of_y):
                place.put(place.home)
        yield by_copies(launch, x)


class _Place(NamedTuple):
    """Where a view of X or Y is held: `home`, as it was found; `view` makes the same one of another tensor."""

    home: torch.Tensor
    put: Put
    view: Callable[[torch.Tensor], torch.Tensor]


def _by_places(
    case: Case, launch: Launch, of_x: Sequence[_Place], of_y: Sequence[_Place]
) -> Callable[[torch.Tensor], torch.Tensor]:
    shape, run, like = y_shape(case), launch.run, launch.y

    def call(x: torch.Tensor) -> torch.Tensor:
        y = None if like is None else torch.empty(shape, dtype=like.dtype, device=like.device)
        for places, today in ((of_x, x), (of_y, y)):
            for place in places:
                place.put(place.view(today))
        found: torch.Tensor = run()
        for place in (*of_x, *of_y):
            place.put(None)  # memory that nothing holds is used again by the layers to come
        return found if y is None else y

    return call


def _found(run: Any, home: torch.Tensor) -> Iterator[_Place]:
    """Every place that `run` reaches and that holds a tensor in the memory of `home`."""
    start, end = home.data_ptr(), home.data_ptr() + home.numel() * home.element_size()
    for value, put in _held(run, set()):
        dense = isinstance(value, torch.Tensor) and value.layout == torch.strided  # a sparse one has no address
        if dense and value.device == home.device and start <= value.data_ptr() < end:
            yield _Place(value, put, _view_like(value, home))


def _view_like(value: torch.Tensor, home: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes of a contiguous tensor shaped as `home` the view of it that `value` is of `home`."""
    offset = (value.data_ptr() - home.data_ptr()) // home.element_size()
    shape, strides = tuple(value.shape), value.stride()
    if offset == 0 and (shape, strides) == (tuple(home.shape), home.stride()):
        return lambda today: today
    return lambda today: today.as_strided(shape, strides, today.storage_offset() + offset)


# What a call holds --------------------------------------------------------------------------------------------------


def _held(holder: Any, seen: set[int]) -> Iterator[tuple[Any, Put]]:
    """(value, what puts another in its place) of all that `holder` holds, however deep."""
    if id(holder) in seen:
        return
    seen.add(id(holder))
    if isinstance(holder, MovableLaunch):
        for place, value in enumerate(holder.arguments):
            yield value, partial(holder.put, place)
        return
    for value, put in _directly(holder):
        if put is not None:
            yield value, put
        yield from _held(value, seen)


def _directly(holder: Any) -> Iterator[tuple[Any, Put | None]]:
    """What `holder` holds itself; None for what cannot be exchanged there, and is only walked through."""
    if isinstance(holder, partial):
        yield holder.func, None
        yield from ((value, partial(_put_argument, holder, i)) for i, value in enumerate(holder.args))
        yield from ((value, partial(_put_argument, holder, name)) for name, value in holder.keywords.items())
    elif isinstance(holder, FunctionType) and not holder.__module__.startswith(("torch.", "triton.")):
        for cell in holder.__closure__ or ():
            if (value := _content(cell)) is not None:
                yield value, partial(setattr, cell, "cell_contents")
    elif isinstance(holder, list | tuple):
        yield from ((value, None) for value in holder)
    elif is_dataclass(holder) and not isinstance(holder, type | Case):
        yield from ((getattr(holder, field.name), None) for field in fields(holder))


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty: its variable was never set
        return None


def _put_argument(holder: Any, name: Any, value: Any) -> None:
    """Exchange one argument of a partial in place, by what pickle fills it with: others hold the partial itself."""
    args, keywords = list(holder.args), dict(holder.keywords)
    (args if isinstance(name, int) else keywords)[name] = value
    holder.__setstate__((holder.func, tuple(args), keywords, {}))
