// slice_out.cuh: sums of slices on their way to Y, rounded once.
//
// Y with n contiguous (feature-major): a row's lanes store STORE columns at a time where they stand.
// Y with m contiguous (batch-major, and n = 1): a block makes a band of neighbouring rows of Y. Its sums meet in shared
// memory, [COLUMNS][band_rows], and leave as STORE rows at a time: 16 bytes where m is a multiple of that.
// Rows that W leaves empty become zero: by a list of them, or because the band starts as zeros.

#pragma once

#include "slices.cuh"

struct Output {
    ELEMENT* y;
    int m, n, first;  // columns first .. first + COLUMNS - 1 are this block's

    // Needs n to be a multiple of STORE.
    __device__ __forceinline__ void store_row(const float (&sums)[VECTOR], int row) const
    {
#pragma unroll
        for (int v = 0; v < VECTOR; v += STORE) {
            int column = first + first_column() + v;
            float part[STORE];
#pragma unroll
            for (int i = 0; i < STORE; ++i) part[i] = sums[v + i];
            if (column < n)
                store_rounded<ELEMENT, STORE>(y + row * n + column, part);
        }
    }

    // Zeros in the rows `dead`, shared out over warps of all blocks of this column slab.
    __device__ __forceinline__ void clear_rows(const int* dead, int rows) const
    {
        const float zeros[STORE] = {};
        for (int i = (int)blockIdx.x * WARPS + warp_of(); i < rows; i += (int)gridDim.x * WARPS)
            for (int column = lane_of() * STORE; column < COLUMNS; column += 32 * STORE)
                if (first + column < n)
                    store_rounded<ELEMENT, STORE>(y + dead[i] * n + first + column, zeros);
    }
};

struct Band {
    ELEMENT* sums;  // [COLUMNS][rows], shared
    int rows;

    __device__ __forceinline__ void clear() const
    {
        for (int i = (int)threadIdx.x; i < COLUMNS * rows; i += 32 * WARPS) from_float(sums[i], 0.0f);
    }

    __device__ __forceinline__ void keep(const float (&row_sums)[VECTOR], int row) const
    {
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) from_float(sums[(first_column() + v) * rows + row], row_sums[v]);
    }

    // Rows first_row .. of Y [n, m]. Needs m and `rows` to be multiples of STORE.
    __device__ __forceinline__ void leave(const Output& out, int first_row) const
    {
        int count = min(rows, out.m - first_row);
        for (int column = warp_of(); column < min(COLUMNS, out.n - out.first); column += WARPS)
            for (int row = lane_of() * STORE; row < count; row += 32 * STORE)
                store<ELEMENT, STORE>(out.y + (out.first + column) * out.m + first_row + row,
                                      load<ELEMENT, STORE>(sums + column * rows + row));
    }
};
