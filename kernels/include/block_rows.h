// Rows of blocks times a tile of X, summed in registers: what bsr and hbs share.
//
//   Blocks    one bsr matrix W[m, k], or one level of an hbs matrix
//   Sums      a tile of Y: only [rows][vectors] of it is used, and that part lives in registers, because `rows` and
//             `vectors` are literals after inlining and all loops over them unroll
//   add_rows  Sums += W times X, for up to four neighbouring rows of one block row
//
// One load of X serves `rows` rows of W: that, not the arithmetic, decides how fast blocks of each height can be.
#ifndef SPARSEBENCH_BLOCK_ROWS_H
#define SPARSEBENCH_BLOCK_ROWS_H

#include "vector.h"

typedef struct {
    const float* values;     // [blocks, bh, bw]
    const int32_t* columns;  // [blocks]
    const int32_t* offsets;  // [m / bh + 1]
} Blocks;

typedef vec Sums[4][4];

INLINE void clear(vec (*sums)[4], int rows, int vectors)
{
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < vectors; ++v) sums[r][v] = (vec){0};
}

// sums += rows [r, r + rows) of block row i of W, times the columns of X that start at x.
INLINE void add_rows(vec (*sums)[4], Blocks w, int64_t bh, int64_t bw, int64_t i, int64_t r, int rows,
                     int vectors, int last, int64_t n, const float* x)
{
    for (int64_t p = w.offsets[i]; p < w.offsets[i + 1]; ++p) {
        const float* entry = w.values + (p * bh + r) * bw;
        const float* from = x + w.columns[p] * bw * n;
        for (int64_t c = 0; c < bw; ++c, ++entry, from += n) {
            vec xs[4];
            UNROLL for (int v = 0; v < vectors; ++v) xs[v] = load_some(from + v * LANES, lanes_of(v, vectors, last));
            UNROLL for (int j = 0; j < rows; ++j)
                UNROLL for (int v = 0; v < vectors; ++v) sums[j][v] += entry[j * bw] * xs[v];
        }
    }
}

// Rows [0, rows) of a tile of Y, n columns apart.
INLINE void store_rows(vec (*sums)[4], int rows, int vectors, int last, int64_t n, float* y)
{
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < vectors; ++v)
            store_some(y + r * n + v * LANES, sums[r][v], lanes_of(v, vectors, last));
}

#endif
