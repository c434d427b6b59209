// condensed.c: Y[m, n] = W[m, k] @ X[k, n], W with the same f nonzeros in each live row and none in the others.
//
//   rows     int32 [active]                  rising; the live rows of W
//   columns  uint16 or int32 [active, f4]    by column_bytes; 0 <= columns < k; f4 is f padded to a multiple of 4
//   values   float [active, f4]              row-major; 0 in the padding, whose column is one the row owns
//   x        float [k, n]                    row-major
//   y        float [m, n]                    row-major, every entry written: rows that are not live get zeros each time
//
// Tiles:    1 row x 4 vectors of columns in registers, twice: even and odd nonzeros have sums of their own, since four
//           FMAs cannot hide their own latency. n = 1: four nonzeros a vector, four vectors in flight.
// Demands:  f4 % 4 == 0, n >= 1.
// Moves:    6 bytes an entry (8 with int32 columns) and 4 * m * n of Y; an entry takes 4 * n of X from the caches.
// Ladder:   1 register tiles (this)   2 X packed strip by strip for n > 64   3 rows ordered for reuse of X
// Source:   own; the format is the condensed form of SRigL (arXiv 2305.02299, algorithm 1).

#include <string.h>

#include "four.h"
#include "tile.h"

typedef struct {
    int64_t m, active, f4;
    const int32_t* rows;
    const void* columns;
    int wide;  // whether columns are int32
    const float* values;
} Condensed;

INLINE int64_t column(Condensed w, int64_t at)
{
    return w.wide ? ((const int32_t*)w.columns)[at] : ((const uint16_t*)w.columns)[at];
}

// Four stored entries of a row, each times its x.
INLINE four products(Condensed w, int64_t at, const float* x)
{
    four xs;
    UNROLL for (int lane = 0; lane < 4; ++lane) xs[lane] = pick(x, column(w, at + lane));
    return load_four(w.values + at) * xs;
}

// Zeros in all rows of Y that no live row fills.
static void clear_dead_rows(Condensed w, int64_t n, float* y)
{
    for (int64_t i = 0, row = 0; i <= w.active; ++i) {
        int64_t live = i < w.active ? w.rows[i] : w.m;
        if (row < live) memset(y + row * n, 0, sizeof(float) * (size_t)((live - row) * n));
        row = live + 1;
    }
}

INLINE void times_strip(Condensed w, Strip strip)
{
    for (int64_t i = 0; i < w.active; ++i) {
        Sums sums;
        clear(sums, 2, strip);
        for (int64_t p = i * w.f4; p < (i + 1) * w.f4; p += 2)
            UNROLL for (int odd = 0; odd < 2; ++odd) {
                vec xs[4];
                load_strip(xs, strip.x + column(w, p + odd) * strip.n, strip);
                UNROLL for (int v = 0; v < strip.vectors; ++v) sums[odd][v] += w.values[p + odd] * xs[v];
            }
        UNROLL for (int v = 0; v < strip.vectors; ++v) sums[0][v] += sums[1][v];
        store_row(sums[0], strip.y + w.rows[i] * strip.n, strip);
    }
}

INLINE void times_vector(Condensed w, const float* x, float* y)
{
    for (int64_t i = 0; i < w.active; ++i) {
        int64_t p = i * w.f4, end = p + w.f4;
        four partial[4] = {0};
        for (; p + 16 <= end; p += 16)
            UNROLL for (int j = 0; j < 4; ++j) partial[j] += products(w, p + 4 * j, x);
        for (; p < end; p += 4) partial[0] += products(w, p, x);
        y[w.rows[i]] = sum_of_four((partial[0] + partial[1]) + (partial[2] + partial[3]));
    }
}

INLINE void times(Condensed w, int64_t n, const float* x, float* y)
{
    clear_dead_rows(w, n, y);
#define TILE(vectors, last, n0) times_strip(w, (Strip){x + (n0), y + (n0), n, vectors, last})
    if (n == 1) times_vector(w, x, y);
    else FOR_COLUMNS(VECTORS_FOR(2), n, TILE);
}

void condensed_f32(int64_t m, int64_t active, int64_t f4, int64_t column_bytes, const int32_t* rows,
                   const void* columns, const float* values, int64_t n, const float* x, float* y)
{
    if (column_bytes == 2) times((Condensed){m, active, f4, rows, columns, 0, values}, n, x, y);
    else times((Condensed){m, active, f4, rows, columns, 1, values}, n, x, y);
}
