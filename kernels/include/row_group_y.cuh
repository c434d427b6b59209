// row_group_y.cuh: from the sums of a warp's lanes to Y, rounded once.
//
// Where one lane holds whole sums of neighbouring columns and Y is [m, n], it stores them itself. Otherwise the warp
// folds the sums of its SPLIT lanes, lays BUNDLE groups of rows into a tile of its own in shared memory, and stores
// that STORE elements at a time, along n of y [m, n] and along m of y [n, m].
//
// Macros:  ELEMENT, BATCH, ROWS, those of row_group_x.cuh, and
//          BUNDLE    groups of ROWS neighbouring rows that are stored together
//          STORE     elements of one store from the tile
//          ADD       1: what is in `partial` is added to the sums
//          KEEP      1: sums go to `partial` unrounded, not to y
// `partial` is float, laid out as y.

#pragma once

#include "row_group_w.cuh"

constexpr bool TILED = BATCH || SPLIT > 1;
constexpr int BUNDLE_ROWS = BUNDLE * ROWS;
constexpr int TILE_PITCH = TILE_COLUMNS + 1;  // lanes along m meet different banks
constexpr int TILE_FLOATS = TILED ? BUNDLE_ROWS * TILE_PITCH : 0;

static_assert(TILED || BUNDLE == 1, "only a tile holds several groups");
static_assert((BATCH ? BUNDLE_ROWS : TILE_COLUMNS) % STORE == 0, "STORE must divide the tile");

struct Output {
    ELEMENT* y;
    float* partial;
    int m, n;

    // N finished sums to y[at] and after.
    template <int N>
    __device__ __forceinline__ void put(int at, float (&sums)[N]) const
    {
#if ADD
        const Vector<float, N> before = load<float, N>(partial + at);
#pragma unroll
        for (int i = 0; i < N; ++i)
            sums[i] += before.at[i];
#endif
#if KEEP
        store_rounded<float, N>(partial + at, sums);
#else
        store_rounded<ELEMENT, N>(y + at, sums);
#endif
    }
};

// Sums of lanes APART, APART / 2 .. LANES lanes from each other, added; each lane keeps half of COUNT where that is even.
// Afterwards a lane holds sums first, first + 1, ... if it is the owner.
template <int COUNT, int APART>
__device__ __forceinline__ void fold(float (&sums)[SUMS], int lane, int& first, bool& owner)
{
    if constexpr (APART >= LANES) {
        const bool upper = lane & APART;
        constexpr int HALF = COUNT % 2 ? 0 : COUNT / 2, KEPT = COUNT - HALF;
#pragma unroll
        for (int i = 0; i < KEPT; ++i) {
            const float kept = upper ? sums[HALF + i] : sums[i];
            const float given = upper ? sums[i] : sums[HALF + i];
            sums[i] = kept + __shfl_xor_sync(0xffffffffu, given, APART);
        }
        if (HALF == 0) owner = owner && !upper;
        first += upper ? HALF : 0;
        fold<KEPT, APART / 2>(sums, lane, first, owner);
    }
}

// How many sums a lane holds after fold<SUMS, 16>.
__host__ __device__ constexpr int sums_after_fold()
{
    int count = SUMS;
    for (int apart = 16; apart >= LANES; apart /= 2)
        count = count % 2 ? count : count / 2;
    return count;
}

constexpr int FOLDED = sums_after_fold();

__device__ __forceinline__ void lay_in_tile(float* tile, float (&sums)[SUMS], int group, int lane)
{
    int first = 0;
    bool owner = true;
    fold<SUMS, 16>(sums, lane, first, owner);
    if (!owner) return;
#pragma unroll
    for (int i = 0; i < FOLDED; ++i) {
        const int row = (first + i) / LANE_COLUMNS, c = (first + i) % LANE_COLUMNS;
        tile[(group * ROWS + row) * TILE_PITCH + piece_column(c / VECTOR, lane) + c % VECTOR] = sums[i];
    }
}

// The tile to Y, whose entry of the tile's corner is (row0, column0). STORE divides m or n, whichever it lies along.
__device__ __forceinline__ void store_tile(const Output& out, const float* tile, int row0, int column0, int lane)
{
    constexpr int ALONG = (BATCH ? BUNDLE_ROWS : TILE_COLUMNS) / STORE, ITEMS = BUNDLE_ROWS * TILE_COLUMNS / STORE;
    for (int item = lane; item < ITEMS; item += 32) {
        const int along = item % ALONG * STORE, across = item / ALONG;
        const int row = BATCH ? along : across, column = BATCH ? across : along;
        if (row0 + row >= out.m || column0 + column >= out.n) continue;
        float sums[STORE];
#pragma unroll
        for (int i = 0; i < STORE; ++i)
            sums[i] = tile[(row + (BATCH ? i : 0)) * TILE_PITCH + column + (BATCH ? 0 : i)];
        out.put<STORE>(BATCH ? (column0 + column) * out.m + row0 + row : (row0 + row) * out.n + column0 + column, sums);
    }
}

// Each lane its own sums, y [m, n]; VECTOR divides n.
__device__ __forceinline__ void store_lane(const Output& out, const float (&sums)[SUMS], int row0, int column0, int lane)
{
#pragma unroll
    for (int p = 0; p < PIECES; ++p) {
        const int column = column0 + piece_column(p, lane);
        if (column >= out.n) continue;
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            float piece[VECTOR];
#pragma unroll
            for (int i = 0; i < VECTOR; ++i)
                piece[i] = sums[row * LANE_COLUMNS + p * VECTOR + i];
            out.put<VECTOR>((row0 + row) * out.n + column, piece);
        }
    }
}
