// Rows of blocks times one vector x (n = 1): what bsr and hbs share. The shape of a block decides what fills the lanes.
#ifndef SPARSEBENCH_BLOCK_DOTS_H
#define SPARSEBENCH_BLOCK_DOTS_H

#include "blocks.h"
#include "four.h"

// Blocks a multiple of four wide: lanes are columns.
INLINE void add_wide(four* partial, Blocks w, int64_t p, int64_t r, int rows, const float* x)
{
    const item* entry = w.values + (p * w.bh + r) * w.bw;
    const float* from = x + w.columns[p] * w.bw;
    for (int64_t c = 0; c < w.bw; c += 4)
        UNROLL for (int j = 0; j < rows; ++j) partial[j] += four_items(entry + j * w.bw + c) * load_four(from + c);
}

INLINE void dots_of_wide(float* sums, Blocks w, int64_t i, int64_t r, int rows, const float* x)
{
    const int abreast = 4 / rows;  // blocks in flight: always four sums
    four partial[4] = {0};
    int64_t p = w.offsets[i], end = w.offsets[i + 1];
    for (; p + abreast <= end; p += abreast)
        UNROLL for (int b = 0; b < abreast; ++b) add_wide(partial + b * rows, w, p + b, r, rows, x);
    for (; p < end; ++p) add_wide(partial, w, p, r, rows, x);
    UNROLL for (int j = 0; j < 4; ++j) sums[j % rows] += sum_of_four(partial[j]);
}

// Four rows of blocks one column wide: lanes are rows, and four blocks are in flight.
INLINE void dots_of_tall(float* sums, Blocks w, int64_t i, int64_t r, const float* x)
{
    const item* values = w.values + r;
    int64_t p = w.offsets[i], end = w.offsets[i + 1];
    four partial[4] = {0};
    for (; p + 4 <= end; p += 4)
        UNROLL for (int j = 0; j < 4; ++j) partial[j] += four_items(values + (p + j) * w.bh) * x[w.columns[p + j]];
    for (; p < end; ++p) partial[0] += four_items(values + p * w.bh) * x[w.columns[p]];
    four total = (partial[0] + partial[1]) + (partial[2] + partial[3]);
    UNROLL for (int j = 0; j < 4; ++j) sums[j] += total[j];
}

// One row of 1x1 blocks: lanes are neighbouring nonzeros, and eight are in flight.
INLINE float dot_of_single(Blocks w, int64_t i, const float* x)
{
    int64_t p = w.offsets[i], end = w.offsets[i + 1];
    four even = {0}, odd = {0};
    for (; p + 8 <= end; p += 8) {
        even += four_items(w.values + p) * pick_four(x, w.columns + p);
        odd += four_items(w.values + p + 4) * pick_four(x, w.columns + p + 4);
    }
    float sum = sum_of_four(even + odd);
    for (; p < end; ++p) sum += widen(w.values[p]) * x[w.columns[p]];
    return sum;
}

// Any other block, entry by entry.
INLINE void dots_of_any(float* sums, Blocks w, int64_t i, int64_t r, int rows, const float* x)
{
    for (int64_t p = w.offsets[i]; p < w.offsets[i + 1]; ++p) {
        const item* entry = w.values + (p * w.bh + r) * w.bw;
        const float* from = x + w.columns[p] * w.bw;
        for (int64_t c = 0; c < w.bw; ++c)
            UNROLL for (int j = 0; j < rows; ++j) sums[j] += widen(entry[j * w.bw + c]) * from[c];
    }
}

// sums[0 .. rows) += rows [r, r + rows) of block row i of W, times x.
INLINE void add_dots(float* sums, Blocks w, int64_t i, int64_t r, int rows, const float* x)
{
    if (w.bw % 4 == 0) dots_of_wide(sums, w, i, r, rows, x);
    else if (w.bw == 1 && rows == 4) dots_of_tall(sums, w, i, r, x);
    else if (w.bw == 1 && w.bh == 1) sums[0] += dot_of_single(w, i, x);
    else dots_of_any(sums, w, i, r, rows, x);
}

#endif
