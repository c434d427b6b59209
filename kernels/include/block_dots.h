// Rows of blocks times one vector x (n = 1): what bsr and hbs share. Lanes are entries of a block, by its shape.
#ifndef SPARSEBENCH_BLOCK_DOTS_H
#define SPARSEBENCH_BLOCK_DOTS_H

#include "block_rows.h"
#include "four.h"

// Blocks a multiple of four wide: lanes are columns.
INLINE void dots_of_wide(float* sums, Blocks w, int64_t bh, int64_t bw, int64_t row, int rows, const float* x)
{
    four partial[4] = {0};
    for (int64_t p = w.offsets[row / bh]; p < w.offsets[row / bh + 1]; ++p) {
        const float* entry = w.values + (p * bh + row % bh) * bw;
        const float* from = x + w.columns[p] * bw;
        for (int64_t c = 0; c < bw; c += 4)
            UNROLL for (int r = 0; r < rows; ++r) partial[r] += load_four(entry + r * bw + c) * load_four(from + c);
    }
    UNROLL for (int r = 0; r < rows; ++r) sums[r] += sum_of_four(partial[r]);
}

// Blocks one column wide: lanes are rows, of which there are four.
INLINE void dots_of_tall(float* sums, Blocks w, int64_t bh, int64_t row, const float* x)
{
    const float* values = w.values + row % bh;
    int64_t p = w.offsets[row / bh], end = w.offsets[row / bh + 1];
    four partial[4] = {0};
    for (; p + 4 <= end; p += 4)
        UNROLL for (int i = 0; i < 4; ++i) partial[i] += load_four(values + (p + i) * bh) * x[w.columns[p + i]];
    for (; p < end; ++p) partial[0] += load_four(values + p * bh) * x[w.columns[p]];
    four total = (partial[0] + partial[1]) + (partial[2] + partial[3]);
    UNROLL for (int r = 0; r < 4; ++r) sums[r] += total[r];
}

// Blocks 1x1: lanes are neighbouring nonzeros.
INLINE float dot_of_single(Blocks w, int64_t row, const float* x)
{
    int64_t p = w.offsets[row], end = w.offsets[row + 1];
    four partial[2] = {0};
    for (; p + 8 <= end; p += 8)
        UNROLL for (int i = 0; i < 2; ++i) partial[i] += load_four(w.values + p + 4 * i) * pick_four(x, w.columns + p + 4 * i);
    float sum = sum_of_four(partial[0] + partial[1]);
    for (; p < end; ++p) sum += w.values[p] * x[w.columns[p]];
    return sum;
}

// Any other block, entry by entry.
INLINE void dots_of_any(float* sums, Blocks w, int64_t bh, int64_t bw, int64_t row, int rows, const float* x)
{
    for (int64_t p = w.offsets[row / bh]; p < w.offsets[row / bh + 1]; ++p) {
        const float* entry = w.values + (p * bh + row % bh) * bw;
        const float* from = x + w.columns[p] * bw;
        for (int64_t c = 0; c < bw; ++c)
            UNROLL for (int r = 0; r < rows; ++r) sums[r] += entry[r * bw + c] * from[c];
    }
}

// sums[0 .. rows) += rows [row, row + rows) of W, which lie in one block row, times x.
INLINE void add_dots(float* sums, Blocks w, int64_t bh, int64_t bw, int64_t row, int rows, const float* x)
{
    if (bw % 4 == 0) dots_of_wide(sums, w, bh, bw, row, rows, x);
    else if (bw == 1 && rows == 4) dots_of_tall(sums, w, bh, row, x);
    else if (bw == 1 && bh == 1) sums[0] += dot_of_single(w, row, x);
    else dots_of_any(sums, w, bh, bw, row, rows, x);
}

#endif
