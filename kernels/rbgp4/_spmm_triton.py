"""rbgp4.triton: Y[m, n] = W[m, k] @ X[k, n] as one GEMM for each list of columns, its rows of X gathered.

    values  T    [lists, V, f]  rows that share a list, packed together: V = row_repeat * bh
    lists   i32  [lists, f]     columns of W; list i * u_i + a belongs to tile row i and inner row a
    x       T    [k, x_stride]  x_stride = x_units * N_UNIT columns, of which n count
    y       T    [m, x_stride], or [n, m] where BATCH; every entry written

Row v of list (i, a) is row i * tm + (v // bh) * u_i * bh + a * bh + v % bh of W: runs of bh rows, u_i * bh apart.

Programs:  one makes ROWS of the V rows x COLUMNS columns of LISTS neighbouring lists, one list after the other. f is
           a multiple of DEPTH: padded by zeros on a column that the list has. Neighbours share the tile of X.
Step:      DEPTH entries of the list, loaded a step ahead, so that the pipelined copies of X never wait for them.
BATCH:     a column of Y is a row of [n, m] in memory, in which the runs of one list are u_i * bh apart: a program with
           one list and bh = 1 would store 2 bytes at a time. Four lists of 16-bit results wait in registers, two to a
           register, and leave as 8 bytes (16 where bh >= 2) [compiled, tests/golden/triton.json].
Demands:   V a multiple of ROWS, ROWS one of 64; LISTS 1, 2 or 4, a divisor of u_i; BH a power of two, at most 64, where
           LISTS > 1; DEPTH divides f; m * k and x_stride * max(m, k) below 2**31.
Moves:     W once for each tile of n, V FLOP per byte of 16-bit X, mostly from L2.
Source:    own; the structure is RBGP4's (arXiv 2006.13486).

`transpose` turns a batch-major X into x before, and is part of what is timed: lists name single columns, and gathering
2 of the 32 bytes of a sector would cost up to 16 times the traffic.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Triton compiles these functions from their source; it has no types for what a parameter becomes there.

# triton: the one compiler that reaches wgmma and asynchronous copies from a page of Python.
import triton
import triton.language as tl


@triton.jit
def _list_product(
    values, lists, x, number, v, cols, f, x_stride,
    V: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows `v` of list `number` times X[:, cols]: float32 [ROWS, COLUMNS]; columns past x_stride are zero."""
    depth = tl.arange(0, DEPTH)
    w_rows = values + (number * V + v)[:, None] * f
    in_x = (cols < x_stride)[None, :]
    acc = tl.zeros((v.shape[0], cols.shape[0]), tl.float32)
    columns = tl.load(lists + number * f + depth)
    for start in range(0, f, DEPTH):
        w = tl.load(w_rows + (start + depth)[None, :])
        gathered = tl.load(x + columns[:, None] * x_stride + cols[None, :], mask=in_x, other=0.0)
        columns = tl.load(lists + number * f + start + DEPTH + depth, mask=start + DEPTH < f, other=0)
        acc = tl.dot(w, gathered, acc, input_precision=PRECISION)
    return acc


@triton.jit(do_not_specialize=["f_units", "x_units", "n", "groups", "tile_rows"])
def rbgp4_spmm(
    values, lists, x, y, f_units, x_units, n, groups, tile_rows,
    V: tl.constexpr, BH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    LISTS: tl.constexpr, N_UNIT: tl.constexpr, BATCH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """See the top. f = f_units * DEPTH, u_i = groups * LISTS, m = tile_rows * u_i * V.

    Grid (V / ROWS * groups * tile_rows * tiles of n), the first fastest.
    """
    f = f_units * DEPTH
    x_stride = x_units * N_UNIT
    u_i = groups * LISTS
    m = tile_rows * u_i * V
    PARTS: tl.constexpr = V // ROWS
    part = tl.program_id(0) % PARTS
    group = tl.program_id(0) // PARTS % (groups * tile_rows)
    tile = tl.program_id(0) // PARTS // (groups * tile_rows)
    v = part * ROWS + tl.arange(0, ROWS)
    cols = tile * COLUMNS + tl.arange(0, COLUMNS)
    first = group * LISTS
    top = (group // groups) * (u_i * V) + (group % groups) * (LISTS * BH)
    a = _list_product(values, lists, x, first, v, cols, f, x_stride, V, DEPTH, PRECISION).to(y.dtype.element_ty)
    if LISTS == 1:
        rows = top + v // BH * (u_i * BH) + v % BH
        if BATCH:
            tl.store(y + cols[None, :] * m + rows[:, None], a, mask=(cols < n)[None, :])
        else:
            tl.store(y + rows[:, None] * x_stride + cols[None, :], a, mask=(cols < x_stride)[None, :])
    else:
        b = _list_product(values, lists, x, first + 1, v, cols, f, x_stride, V, DEPTH, PRECISION).to(a.dtype)
        if LISTS == 2:
            side_by_side = tl.join(a, b)
        else:
            c = _list_product(values, lists, x, first + 2, v, cols, f, x_stride, V, DEPTH, PRECISION).to(a.dtype)
            d = _list_product(values, lists, x, first + 3, v, cols, f, x_stride, V, DEPTH, PRECISION).to(a.dtype)
            side_by_side = tl.join(tl.join(a, c), tl.join(b, d))
        # [ROWS, COLUMNS, LISTS] to runs of LISTS * BH neighbouring rows of Y.
        RUNS: tl.constexpr = ROWS // BH
        by_run = tl.permute(tl.reshape(side_by_side, (RUNS, BH, COLUMNS, LISTS)), (0, 2, 3, 1))
        runs = part * RUNS + tl.arange(0, RUNS)
        rows = (top + runs * (u_i * BH))[:, None, None] + tl.arange(0, LISTS * BH)[None, None, :]
        out = tl.reshape(by_run, (RUNS, COLUMNS, LISTS * BH))
        tl.store(y + cols[None, :, None] * m + rows, out, mask=(cols < n)[None, :, None])


@triton.jit(do_not_specialize=["rows", "columns", "in_units", "out_units"])
def transpose(
    given, out, rows, columns, in_units, out_units,
    IN_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """out[c, r] = given[r, c] for r < rows, c < columns; zero for r >= rows up to the stride of out.

    Strides are in_units * IN_UNIT and out_units * OUT_UNIT; grid (columns / SIDE, stride of out / SIDE), rounded up.
    """
    in_stride = in_units * IN_UNIT
    out_stride = out_units * OUT_UNIT
    c = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    r = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    tile = tl.load(
        given + r[:, None] * in_stride + c[None, :], mask=(r < rows)[:, None] & (c < in_stride)[None, :], other=0.0
    )
    tl.store(out + c[None, :] * out_stride + r[:, None], tile, mask=(c < columns)[None, :] & (r < out_stride)[:, None])
