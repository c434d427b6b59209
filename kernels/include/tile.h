// A tile of Y held in registers: up to 4 rows by the columns of a strip.
//
//   Strip      columns of X and Y that a tile covers: (vectors - 1) * LANES + last of them, from FOR_COLUMNS
//   Sums       the tile; only [rows][strip.vectors] of it is used, and that part lives in registers, because both are
//              literals after inlining and all loops over them unroll
//   load_strip, store_rows   a row of X, rows of Y
#ifndef SPARSEBENCH_TILE_H
#define SPARSEBENCH_TILE_H

#include "vector.h"

typedef struct {
    const float* x;  // its first column in row 0 of X [k, n]
    float* y;        // its first column in row 0 of Y [m, n]
    int64_t n;
    int vectors, last;
} Strip;

typedef vec Sums[4][4];
typedef vec (*Rows)[4];  // Sums, or the later rows of it

INLINE void clear(Rows sums, int rows, Strip strip)
{
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < strip.vectors; ++v) sums[r][v] = (vec){0};
}

INLINE void load_strip(vec* xs, const float* from, Strip strip)
{
    UNROLL for (int v = 0; v < strip.vectors; ++v)
        xs[v] = load_some(from + v * LANES, lanes_of(v, strip.vectors, strip.last));
}

INLINE void store_row(const vec* sums, float* to, Strip strip)
{
    UNROLL for (int v = 0; v < strip.vectors; ++v)
        store_some(to + v * LANES, sums[v], lanes_of(v, strip.vectors, strip.last));
}

#endif
