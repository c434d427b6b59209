"""dense.cudnn, dense.cudnn_nhwc, dense.im2col: the convolutions a user of torch has on a GPU without sparsity.

cuDNN is let search all its algorithms for the shape (benchmark). Its winner may be a Winograd transform whose fractions
are no powers of two: fast, and not an exact product even of small integers, which the integer gate would refuse. So
the winner is tried on small integers first; where it fails, cuDNN's own first choice runs and the record says so.

dense.im2col is what a sparse product through unfold stands against: the matrix of all windows is made anew in every
call, and that is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sparsebench.case import ITEM_BYTES, Case, Conv
from sparsebench.formats import Dense
from sparsebench.kernel import CudaToolchain, Kernel, Launch, Limit, least_moved_bytes

from .._device import shape_of_y
from .._product import ONE_GROUP, is_plain, moved_bytes
from .._switches import (
    DTYPES,
    FLOAT32_MATH,
    MATHS,
    SOURCES,
    Asked,
    Switch,
    attribute,
    facts_of,
    launch_of,
    math_of,
    matmul_switches,
    under,
)

MOST_WINDOW_BYTES = 2**33
SEARCHED, FIRST_CHOICE = "the fastest of its search", "its first choice: the fastest is not exact on small integers"


def conv_switches(case: Case, search: bool) -> list[Switch]:
    """For torch's convolutions: the case's math, and whether cuDNN searches all its algorithms for a new shape."""
    import torch

    cudnn: Any = torch.backends.cudnn
    new = attribute(cudnn, "conv.fp32_precision", math_of(case))
    old = attribute(cudnn, "allow_tf32", math_of(case) == "tf32") if not new else []
    return [*new, *old, *attribute(cudnn, "benchmark", search), *attribute(cudnn, "benchmark_limit", 0)]


def filters_of(case: Case, packed: Dense) -> Any:
    """W as the filters of this convolution, [m, c / groups, kh, kw]; the memory is the same."""
    assert case.conv is not None
    return packed.values.reshape(case.m, -1, case.conv.kh, case.conv.kw)


def geometry(conv: Conv) -> tuple[Any, ...]:
    """What torch.conv2d takes after x, the filters and no bias."""
    return conv.stride, conv.padding, 1, conv.groups


def is_exact(case: Case, x: Any, w: Any, switches: Sequence[Switch]) -> bool:
    """Whether the convolution under these switches multiplies small integers exactly; x and w give the shapes."""
    import torch

    assert case.conv is not None
    drawn = torch.Generator(x.device).manual_seed(0)
    operands = [torch.empty_like(like).random_(-4, 5, generator=drawn) for like in (x, w)]  # in their memory formats
    found = under(switches, partial(torch.conv2d, *operands, None, *geometry(case.conv)))()
    exact = torch.conv2d(*(operand.double() for operand in operands), None, *geometry(case.conv)).round()
    return bool(torch.equal(found, exact.float().to(found.dtype)))


def searched(case: Case, x: Any, w: Any, device: str) -> tuple[list[Switch], str]:
    """The switches of the fastest exact convolution, and which one that is; off a GPU there is nothing to search."""
    search = conv_switches(case, search=True)
    if device != "cuda":
        return search, ""
    return (search, SEARCHED) if is_exact(case, x, w, search) else (conv_switches(case, search=False), FIRST_CHOICE)


def prepare_nchw(case: Case, packed: Dense, x: Any, toolchain: CudaToolchain) -> Launch:
    """F.conv2d of x [batch, c, h, w] as it is; torch allocates Y itself."""
    import torch

    assert case.conv is not None
    w = toolchain.tensor(filters_of(case, packed))
    switches, ran = searched(case, x, w, toolchain.device)
    after_w = (None, *geometry(case.conv))
    asked = Asked(lambda w: partial(torch.conv2d, x, w, *after_w), switches, facts_of(case), ran)
    return launch_of(asked, [w], None, toolchain.device)


def prepare_nhwc(case: Case, packed: Dense, x: Any, toolchain: CudaToolchain) -> Launch:
    """F.conv2d in cuDNN's own layout: channels last. X is brought into it and Y out of it in every call."""
    import torch

    last = torch.channels_last
    w = toolchain.tensor(filters_of(case, packed)).contiguous(memory_format=last)
    y = toolchain.output(shape_of_y(case), case.dtype)
    switches, ran = searched(case, x.contiguous(memory_format=last), w, toolchain.device)

    def bind(w: Any) -> Callable[[], Any]:
        def run() -> Any:
            assert case.conv is not None
            return y.copy_(torch.conv2d(x.contiguous(memory_format=last), w, None, *geometry(case.conv)))

        return run

    return launch_of(Asked(bind, switches, facts_of(case), ran), [w], y, toolchain.device)


def prepare_im2col(case: Case, packed: Dense, x: Any, toolchain: CudaToolchain) -> Launch:
    """The matrix of all windows, image by image [k, oh * ow], then one batched product into y."""
    conv = case.conv
    assert conv is not None
    y = toolchain.output(shape_of_y(case), case.dtype)
    windows = x.view(conv.batch, case.k, -1) if is_plain(conv) else None
    if windows is None:
        windows = toolchain.scratch("windows", (conv.batch, case.k, conv.oh * conv.ow), case.dtype)
    asked = Asked(lambda w: bind_im2col(conv, w, x, windows, y), matmul_switches(case), facts_of(case))
    return launch_of(asked, [toolchain.tensor(packed.values)], y, toolchain.device)


def bind_im2col(conv: Conv, w: Any, x: Any, windows: Any, y: Any) -> Callable[[], Any]:
    """The call that fills `windows` [batch, k, oh * ow] from x and multiplies each with w [m, k]."""
    import torch

    unfold = partial(
        torch.ops.aten.im2col.out, x, [conv.kh, conv.kw], [1, 1], [conv.padding] * 2, [conv.stride] * 2, out=windows
    )
    one_w_for_all = w.expand(conv.batch, *w.shape)
    multiply = partial(torch.bmm, one_w_for_all, windows, out=y.view(conv.batch, len(w), -1))

    def run() -> Any:
        if not is_plain(conv):
            unfold()
        multiply()
        return y

    return run


def moved_bytes_nhwc(case: Case, packed: Dense) -> int:
    """Operands and answer once; X and Y, written in one layout and read in the other, once more each way."""
    return 3 * least_moved_bytes(case, packed) - 2 * packed.nbytes


def _kernel(name: str, prepare: Callable[..., Launch], about: str, source: str, **more: Any) -> Kernel:
    limits = (FLOAT32_MATH, *more.pop("limits", ()))
    return Kernel(
        name=name,
        format=Dense,
        prepare=prepare,
        about=about,
        source=f"{source} (NVIDIA, proprietary) through torch (BSD-3-Clause)",
        ops=("conv2d",),
        devices=("cuda",),
        dtypes=DTYPES,
        maths=MATHS,
        needs=("torch",),
        sources=(*SOURCES, "../_device.py", "../_product.py"),
        limits=limits,
        **more,
    )


KERNELS = [
    _kernel("dense.cudnn", prepare_nchw, "F.conv2d, the fastest exact one of cuDNN's search", "cuDNN"),
    _kernel(
        "dense.cudnn_nhwc",
        prepare_nhwc,
        "F.conv2d with channels last inside, X brought there and Y back",
        "cuDNN",
        moved_bytes=moved_bytes_nhwc,
    ),
    _kernel(
        "dense.im2col",
        prepare_im2col,
        "im2col in every call, then a batched product",
        "torch's im2col and cuBLAS",
        moved_bytes=moved_bytes,
        limits=(
            ONE_GROUP,
            Limit(
                lambda case: case.k * case.n * ITEM_BYTES[case.dtype] <= MOST_WINDOW_BYTES,
                "the matrix of all windows, k * n entries, must fit in 8 GiB; use dense.cudnn",
            ),
        ),
    ),
]
