// bsr.c: Y[m, n] = W[m, k] @ X[k, n], W in dense blocks of bh x bw with one column index each.
//
//   offsets  int32 [m / bh + 1]      never falling; block row i owns blocks offsets[i] .. offsets[i + 1] - 1
//   columns  int32 [blocks]          0 <= columns < k / bw; block j starts at column columns[j] * bw
//   values   float [blocks, bh, bw]  row-major
//   x        float [k, n]            row-major
//   y        float [m, n]            row-major, every entry written
//
// Tiles:    up to 4 rows of a block row x VECTORS_FOR(4) vectors of columns, summed in registers over the whole row.
//           Tiles of columns are the outer loop, so that the part of X in use (k x 64 with AVX-512) can stay in L2.
// Demands:  bh divides m, bw divides k; n >= 1.
// Moves:    4 * bh * bw + 4 bytes a block and 4 * m * n of Y; 4 * bw * n of X from the caches a block and 4 rows.
// Ladder:   1 register tiles (this)   2 X packed in slabs of one tile, for n > 64   3 taller tiles for bh >= 8
// Source:   own.

#include "block_dots.h"
#include "block_rows.h"

INLINE void tile(Blocks w, int64_t bh, int64_t bw, int64_t row, int rows, int vectors, int last, int64_t n,
                 const float* x, float* y)
{
    Sums sums;
    clear(sums, rows, vectors);
    add_rows(sums, w, bh, bw, row, rows, vectors, last, n, x);
    store_rows(sums, rows, vectors, last, n, y + row * n);
}

// All rows of one tile of columns. A block row is cut into fours, and what is left into a two and a one.
INLINE void all_rows(Blocks w, int64_t m, int64_t bh, int64_t bw, int vectors, int last, int64_t n, const float* x, float* y)
{
    for (int64_t row = 0, end = bh; row < m; end += bh) {
        for (; row + 4 <= end; row += 4) tile(w, bh, bw, row, 4, vectors, last, n, x, y);
        for (; row + 2 <= end; row += 2) tile(w, bh, bw, row, 2, vectors, last, n, x, y);
        for (; row < end; ++row) tile(w, bh, bw, row, 1, vectors, last, n, x, y);
    }
}

INLINE void dots(Blocks w, int64_t bh, int64_t bw, int64_t row, int rows, const float* x, float* y)
{
    float sums[4] = {0};
    add_dots(sums, w, bh, bw, row, rows, x);
    UNROLL for (int r = 0; r < rows; ++r) y[row + r] = sums[r];
}

static void times_vector(Blocks w, int64_t m, int64_t bh, int64_t bw, const float* x, float* y)
{
    for (int64_t row = 0, end = bh; row < m; end += bh) {
        for (; row + 4 <= end; row += 4) dots(w, bh, bw, row, 4, x, y);
        for (; row < end; ++row) dots(w, bh, bw, row, 1, x, y);
    }
}

void bsr_f32(int64_t m, int64_t bh, int64_t bw, const int32_t* offsets, const int32_t* columns, const float* values,
             int64_t n, const float* x, float* y)
{
    Blocks w = {values, columns, offsets};
    if (n == 1) { times_vector(w, m, bh, bw, x, y); return; }
#define TILE(vectors, last, n0) all_rows(w, m, bh, bw, vectors, last, n, x + (n0), y + (n0))
    FOR_COLUMNS(VECTORS_FOR(4), n, TILE);
}
