// row_group_x.cuh: X as one lane of a row group's warp reads it, from global memory or from a slab in shared memory.
//
// Macros:  ELEMENT, BATCH (1: x is [n, k], 0: [k, n]), SLAB, THREADS
//          LANES          lanes of a warp that lie side by side along n; the other 32 / LANES split the lists of a group
//          VECTOR, PIECES each lane holds PIECES times VECTOR neighbouring columns, LANES * VECTOR columns apart
//          FILL           elements that are copied together into the slab, along n of x [k, n] and along k of x [n, k];
//                         more than a tile's columns only where those are all of x [k, n]
//
// A tile of columns that hangs over the edge of X repeats X's last ones: nothing is read past the end, and what comes
// of them is never stored. Without a slab VECTOR divides n, and is 1 for x [n, k].

#pragma once

#include "elements.cuh"

constexpr int LANE_COLUMNS = VECTOR * PIECES;
constexpr int TILE_COLUMNS = LANES * LANE_COLUMNS;

static_assert(LANES >= 1 && LANES <= 32 && (LANES & (LANES - 1)) == 0, "LANES must be a power of two up to 32");
static_assert(SLAB || !BATCH || VECTOR == 1, "neighbouring columns of x [n, k] do not lie together");
static_assert(BATCH || TILE_COLUMNS % FILL == 0 || FILL % TILE_COLUMNS == 0, "copies are parts of a row, or rows");

__device__ __forceinline__ int least(int a, int b) { return a < b ? a : b; }

// FILL elements into shared memory; 2 bytes are less than cp.async can copy.
__device__ __forceinline__ void copy_elements(ELEMENT* to, const ELEMENT* from)
{
    if constexpr (FILL * sizeof(ELEMENT) >= 4)
        copy_async<FILL * (int)sizeof(ELEMENT)>(to, from);
    else
        *to = *from;
}

// The columns of one lane: column c of X's row `row` is at from[piece][row * pitch].
struct LaneColumns {
    const ELEMENT* from[PIECES];
    int pitch;

    __device__ __forceinline__ void load_row(float (&to)[LANE_COLUMNS], int row) const
    {
#pragma unroll
        for (int p = 0; p < PIECES; ++p) {
            const Vector<ELEMENT, VECTOR> piece = load<ELEMENT, VECTOR>(from[p] + row * (SLAB ? TILE_COLUMNS : pitch));
#pragma unroll
            for (int i = 0; i < VECTOR; ++i)
                to[p * VECTOR + i] = to_float(piece.at[i]);
        }
    }
};

// First column of a lane's piece, counted from the tile's first.
__device__ __forceinline__ int piece_column(int piece, int lane) { return (piece * LANES + lane % LANES) * VECTOR; }

__device__ __forceinline__ LaneColumns columns_in_slab(const ELEMENT* slab, int lane)
{
    LaneColumns columns;
    columns.pitch = TILE_COLUMNS;
#pragma unroll
    for (int p = 0; p < PIECES; ++p)
        columns.from[p] = slab + piece_column(p, lane);
    return columns;
}

__device__ __forceinline__ LaneColumns columns_in_x(const ELEMENT* x, int first, int lane, int k, int n)
{
    LaneColumns columns;
    columns.pitch = BATCH ? 1 : n;
#pragma unroll
    for (int p = 0; p < PIECES; ++p)
        columns.from[p] = x + least(first + piece_column(p, lane), n - VECTOR) * (BATCH ? k : 1);
    return columns;
}

// `count` elements that lie together on both sides, FILL at a time.
__device__ __forceinline__ void fill_straight(ELEMENT* slab, const ELEMENT* from, int count)
{
    for (int i = threadIdx.x * FILL; i < count; i += THREADS * FILL)
        copy_elements(slab + i, from + i);
    commit_copies();
    wait_copies<0>();
}

// The tile of x [n, k] turned: a thread takes FILL rows of PAIR columns, so that 16-bit elements are written as words.
__device__ __forceinline__ void fill_turned(ELEMENT* slab, const ELEMENT* x, int first, int k, int n)
{
    constexpr int PAIR = TILE_COLUMNS > 1 ? 4 / (int)sizeof(ELEMENT) : 1, ACROSS = TILE_COLUMNS / PAIR;
    for (int i = threadIdx.x; i < k / FILL * ACROSS; i += THREADS) {
        const int row = i / ACROSS * FILL, c = i % ACROSS * PAIR;
        Vector<ELEMENT, FILL> from[PAIR];
#pragma unroll
        for (int p = 0; p < PAIR; ++p)
            from[p] = load<ELEMENT, FILL>(x + least(first + c + p, n - 1) * k + row);
#pragma unroll
        for (int r = 0; r < FILL; ++r) {
            Vector<ELEMENT, PAIR> to;
#pragma unroll
            for (int p = 0; p < PAIR; ++p)
                to.at[p] = from[p].at[r];
            store<ELEMENT, PAIR>(slab + (row + r) * TILE_COLUMNS + c, to);
        }
    }
}

// Rows of the tile: slab[row][c] = x[row][first + c].
__device__ __forceinline__ void fill_from_rows(ELEMENT* slab, const ELEMENT* x, int first, int k, int n)
{
    constexpr int ACROSS = FILL < TILE_COLUMNS ? TILE_COLUMNS / FILL : 1;
    for (int i = threadIdx.x; i < k * ACROSS; i += THREADS)
        copy_elements(slab + i * FILL, x + (i / ACROSS) * n + least(first + i % ACROSS * FILL, n - FILL));
    commit_copies();
    wait_copies<0>();
}

__device__ __forceinline__ void fill_slab(ELEMENT* slab, const ELEMENT* x, int first, int k, int n)
{
    if constexpr (BATCH && TILE_COLUMNS == 1)
        fill_straight(slab, x + first * k, k);
    else if constexpr (BATCH)
        fill_turned(slab, x, first, k, n);
    else if constexpr (FILL > TILE_COLUMNS)
        fill_straight(slab, x, k * TILE_COLUMNS);
    else
        fill_from_rows(slab, x, first, k, n);
}
