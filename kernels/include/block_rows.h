// Rows of blocks times a strip of X (n > 1): what bsr and hbs share.
//
// One load of X serves `rows` rows of W: that, not the arithmetic, decides how fast blocks of each height can be.
#ifndef SPARSEBENCH_BLOCK_ROWS_H
#define SPARSEBENCH_BLOCK_ROWS_H

#include "tile.h"

// One bsr matrix W[m, k], or one level of an hbs matrix.
typedef struct {
    int64_t bh, bw;
    const int32_t* offsets;  // [m / bh + 1]
    const int32_t* columns;  // [blocks]
    const float* values;     // [blocks, bh, bw]
} Blocks;

// sums += rows [r, r + rows) of block row i of W, times the strip.
INLINE void add_rows(Rows sums, Blocks w, int64_t i, int64_t r, int rows, Strip strip)
{
    for (int64_t p = w.offsets[i]; p < w.offsets[i + 1]; ++p) {
        const float* entry = w.values + (p * w.bh + r) * w.bw;
        const float* from = strip.x + w.columns[p] * w.bw * strip.n;
        for (int64_t c = 0; c < w.bw; ++c, ++entry, from += strip.n) {
            vec xs[4];
            load_strip(xs, from, strip);
            UNROLL for (int j = 0; j < rows; ++j)
                UNROLL for (int v = 0; v < strip.vectors; ++v) sums[j][v] += entry[j * w.bw] * xs[v];
        }
    }
}

#endif
