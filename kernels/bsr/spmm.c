// bsr.c: Y[m, n] = W[m, k] @ X[k, n], W in dense blocks of bh x bw with one column index each.
//
//   offsets  int32 [m / bh + 1]      never falling; block row i owns blocks offsets[i] .. offsets[i + 1] - 1
//   columns  int32 [blocks]          0 <= columns < k / bw; block j starts at column columns[j] * bw
//   values   float [blocks, bh, bw]  row-major
//   x        float [k, n]            row-major
//   y        float [m, n]            row-major, every entry written
//
// Tiles:    up to 4 rows of a block row x VECTORS_FOR(4) vectors of columns, summed in registers over the whole row.
//           Strips of columns are the outer loop, so that the part of X in use (k x 64 with AVX-512) can stay in L2.
// Demands:  bh divides m, bw divides k; n >= 1.
// Moves:    4 * bh * bw + 4 bytes a block and 4 * m * n of Y; a block and 4 rows take 4 * bw * n of X from the caches.
// Ladder:   1 register tiles (this)   2 X packed strip by strip for n > 64   3 tiles of 8 rows where bh >= 8
// Source:   own.

#include "block_dots.h"
#include "block_rows.h"

INLINE void tile(Blocks w, int64_t i, int64_t r, int rows, Strip strip)
{
    Sums sums;
    clear(sums, rows, strip);
    add_rows(sums, w, i, r, rows, strip);
    UNROLL for (int j = 0; j < rows; ++j) store_row(sums[j], strip.y + (i * w.bh + r + j) * strip.n, strip);
}

// A block row is cut into fours, and what is left into a two and a one.
INLINE void times_strip(Blocks w, int64_t m, Strip strip)
{
    for (int64_t i = 0; i * w.bh < m; ++i) {
        int64_t r = 0;
        for (; r + 4 <= w.bh; r += 4) tile(w, i, r, 4, strip);
        for (; r + 2 <= w.bh; r += 2) tile(w, i, r, 2, strip);
        for (; r < w.bh; ++r) tile(w, i, r, 1, strip);
    }
}

INLINE void dots(Blocks w, int64_t i, int64_t r, int rows, const float* x, float* y)
{
    float sums[4] = {0};
    add_dots(sums, w, i, r, rows, x);
    UNROLL for (int j = 0; j < rows; ++j) y[i * w.bh + r + j] = sums[j];
}

static void times_vector(Blocks w, int64_t m, const float* x, float* y)
{
    for (int64_t i = 0; i * w.bh < m; ++i) {
        int64_t r = 0;
        for (; r + 4 <= w.bh; r += 4) dots(w, i, r, 4, x, y);
        for (; r < w.bh; ++r) dots(w, i, r, 1, x, y);
    }
}

#define TILE(vectors, last, n0) times_strip(w, m, (Strip){x + (n0), y + (n0), n, vectors, last})

void bsr_f32(int64_t m, int64_t bh, int64_t bw, const int32_t* offsets, const int32_t* columns, const float* values,
             int64_t n, const float* x, float* y)
{
    Blocks w = {bh, bw, offsets, columns, values};
    if (n == 1) times_vector(w, m, x, y);
    else if (bw == 1) {
        w.bw = 1;  // as a literal: one loop less, 20 % less time at 4x1 (measured)
        FOR_COLUMNS(VECTORS_FOR(4), n, TILE);
    } else FOR_COLUMNS(VECTORS_FOR(4), n, TILE);
}
