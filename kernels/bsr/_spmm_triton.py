"""bsr.triton: Y[m, n] = W[m, k] @ X[k, n], W in blocks of BH x BW, on tensor cores.

    values         T    [blocks, BH, BW]  block row after block row
    block_columns  i32  [blocks]          block j covers columns block_columns[j] * BW and the BW - 1 after it
    rows           i32  [block_rows, 3]   (block row, its first block, how many it has), the fullest first
    x              T    [k, n], or [n, k] where BATCH
    y              T    [m, n], or [n, m] where BATCH; every entry written

Programs:  one makes one block row x COLUMNS columns of Y. Neighbours share the block row where N_FASTEST (its W is
           then read once from memory; right where X fits in L2), else the tile of X.
Step:      DEPTH columns of W: several blocks where BW < DEPTH, a part of one where BW > DEPTH. Column indices are
           loaded a step ahead, so that the pipelined copies of X never wait for them.
SWAP:      computes Y transposed: n takes the 64 rows that wgmma asks for, and blocks of 16 and 32 rows become its
           narrow side. Without it they fall back to mma.sync [compiled, tests/golden/triton.json].
Demands:   BH, BW, COLUMNS, DEPTH powers of two of at least 16; N_UNIT divides n (16 where it can: it decides the width
           of the loads of X and, feature-major, of the stores); m * k, k * n, m * n below 2**31.
Moves:     W once for each tile of n and BH FLOP per byte of 16-bit X, mostly from L2.
Source:    own; the block-row-stationary loop is that of every BSR kernel (kernels listed in the README).

Sums are float32; the result is rounded once. PRECISION is "ieee", "tf32" or "tf32x3" and means nothing for 16 bits.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Triton compiles these functions from their source; it has no types for what a parameter becomes there.

# triton: the one compiler that reaches wgmma and asynchronous copies from a page of Python.
import triton
import triton.language as tl


@triton.jit
def _multiply_add(acc, w, across, SWAP: tl.constexpr, PRECISION: tl.constexpr):
    """`acc` plus w [BH, DEPTH] times across [COLUMNS, DEPTH] transposed; transposed as a whole where SWAP."""
    if SWAP:
        acc = tl.dot(across, tl.trans(w), acc, input_precision=PRECISION)
    else:
        acc = tl.dot(w, tl.trans(across), acc, input_precision=PRECISION)
    return acc


@triton.jit
def _load_across(x, columns, live, cols, in_n, n, k, MASKED: tl.constexpr, BATCH: tl.constexpr):
    """X at rows `columns` [DEPTH] and columns `cols`, as [COLUMNS, DEPTH]; zero where not `live` or past n."""
    if BATCH:
        mask = in_n[:, None]
        if MASKED:
            mask = mask & live[None, :]
        across = tl.load(x + cols[:, None] * k + columns[None, :], mask=mask, other=0.0)
    else:
        mask = in_n[None, :]
        if MASKED:
            mask = mask & live[:, None]
        across = tl.trans(tl.load(x + columns[:, None] * n + cols[None, :], mask=mask, other=0.0))
    return across


@triton.jit
def _product(
    values, block_columns, x, first, blocks, cols, in_n, n, k,
    BH: tl.constexpr, BW: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    BATCH: tl.constexpr, SWAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block row times X[:, cols]: float32 [BH, COLUMNS], or its transpose where SWAP."""
    acc = tl.zeros((COLUMNS, BH) if SWAP else (BH, COLUMNS), tl.float32)
    row = tl.arange(0, BH)[:, None] * BW
    depth = tl.arange(0, DEPTH)
    if DEPTH <= BW:
        PARTS: tl.constexpr = BW // DEPTH
        column = tl.load(block_columns + first, mask=blocks > 0, other=0)
        for step in range(blocks * PARTS):
            inside = step % PARTS * DEPTH + depth
            columns = column * BW + inside
            column = tl.load(block_columns + first + (step + 1) // PARTS, mask=step + 1 < blocks * PARTS, other=0)
            w = tl.load(values + (first + step // PARTS) * (BH * BW) + row + inside[None, :])
            across = _load_across(x, columns, depth, cols, in_n, n, k, False, BATCH)
            acc = _multiply_add(acc, w, across, SWAP, PRECISION)
    else:
        TOGETHER: tl.constexpr = DEPTH // BW
        block, inside = depth // BW, depth % BW
        column = tl.load(block_columns + first + block, mask=block < blocks, other=0)
        for step in range(tl.cdiv(blocks, TOGETHER)):
            at = step * TOGETHER + block
            columns = column * BW + inside
            column = tl.load(block_columns + first + at + TOGETHER, mask=at + TOGETHER < blocks, other=0)
            # The last step may hold fewer blocks: neither W nor X is read past them, since X may be NaN there.
            w_at = values + row + ((first + at) * (BH * BW) + inside)[None, :]
            w = tl.load(w_at, mask=(at < blocks)[None, :], other=0.0)
            across = _load_across(x, columns, at < blocks, cols, in_n, n, k, True, BATCH)
            acc = _multiply_add(acc, w, across, SWAP, PRECISION)
    return acc


@triton.jit(do_not_specialize=["n_units", "k_blocks", "block_rows"])
def bsr_spmm(
    values, block_columns, rows, x, y, n_units, k_blocks, block_rows,
    BH: tl.constexpr, BW: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, N_UNIT: tl.constexpr,
    BATCH: tl.constexpr, SWAP: tl.constexpr, N_FASTEST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """See the top. n = n_units * N_UNIT, k = k_blocks * BW, m = block_rows * BH; grid (block_rows * tiles of n)."""
    n = n_units * N_UNIT
    k = k_blocks * BW
    m = block_rows * BH
    if N_FASTEST:
        tiles = tl.cdiv(n, COLUMNS)
        slot = tl.program_id(0) // tiles
        tile = tl.program_id(0) % tiles
    else:
        slot = tl.program_id(0) % block_rows
        tile = tl.program_id(0) // block_rows
    cols = tile * COLUMNS + tl.arange(0, COLUMNS)
    in_n = cols < n
    first = tl.load(rows + 3 * slot + 1)
    blocks = tl.load(rows + 3 * slot + 2)
    acc = _product(
        values, block_columns, x, first, blocks, cols, in_n, n, k, BH, BW, COLUMNS, DEPTH, BATCH, SWAP, PRECISION
    )
    out_rows = tl.load(rows + 3 * slot) * BH + tl.arange(0, BH)
    if BATCH:
        row_stride, column_stride = 1, m
    else:
        row_stride, column_stride = n, 1
    rounded = acc.to(y.dtype.element_ty)
    if SWAP:
        at = y + cols[:, None] * column_stride + out_rows[None, :] * row_stride
        tl.store(at, rounded, mask=in_n[:, None])
    else:
        at = y + out_rows[:, None] * row_stride + cols[None, :] * column_stride
        tl.store(at, rounded, mask=in_n[None, :])
