// A product Y = W X is made strip by strip: up to 4 vectors of columns of X and Y, all rows of W.
//
//   Product   X and Y as a caller has them, and room for a slab of each
//   Strip     where the columns in hand are, as all bodies see them: rows x_step and y_step floats apart
//   pack      one strip of X as a slab: rows that follow each other, aligned, the last vector filled up with zeros, so
//             that bodies load whole vectors only. Rows of X [k, n] lie 4 n bytes apart: from n = 256 on, few sets of
//             the caches hold all of them (bsr 4x1, 768x3072: 57 against 41 GFLOP/s at n = 256, 37 against 19 at
//             n = 2048; measured, Cascade Lake)
//   Tile      sums of a few rows in registers
#ifndef SPARSEBENCH_STRIPS_H
#define SPARSEBENCH_STRIPS_H

#include "vector.h"

#define WIDEST 4  // vectors in a strip
#ifndef PACK_AHEAD
#define PACK_AHEAD 16  // rows of X: they lie in other pages, which no hardware prefetcher enters
#endif

typedef struct {
    int64_t m, k, n;
    int64_t widest;      // vectors of this product's strips, at most WIDEST
    int64_t block_rows;  // of X, taken at a time
    int64_t turned;      // whether x is [n, k] and y [n, m]; both slabs are then there
    const float* x;      // [k, n]
    float* y;            // [m, n]
    float* x_slab;       // [2, block_rows, widest * LANES], aligned to vectors; 0: x is read where it is, n % LANES = 0
    float* y_slab;       // [m, widest * LANES]; 0: y is written where it is
} Product;

// Lanes [first, first + count) of a vector of a strip, which go to y + offset + first.. in a row of Y.
typedef struct {
    int32_t vector, first, count, unused;
    int64_t offset;
} Piece;

typedef struct {
    const float* x;
    float* y;
    int64_t x_step, y_step;
    int vectors, last;             // the last vector has `last` columns of Y
    const Piece *pieces, *beyond;  // where the columns are not neighbours in Y; else 0
} Strip;

typedef vec Sums[8][WIDEST];
typedef vec (*Tile)[WIDEST];  // Sums, or later rows of it

// Vectors that a tile of `rows` rows may be wide beside `vectors` loads of X: 32 registers with AVX-512 and on 64-bit
// ARM, else 16.
#if defined(__AVX512F__) || defined(__aarch64__)
#define VECTORS_FOR(rows) ((rows) <= 6 ? 4 : 3)
#else
#define VECTORS_FOR(rows) ((rows) <= 2 ? 4 : (rows) == 3 ? 3 : (rows) <= 6 ? 2 : 1)
#endif

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t vectors_of(int64_t n) { return (n + LANES - 1) / LANES; }

INLINE int64_t strips_of(const Product* p) { return (vectors_of(p->n) + p->widest - 1) / p->widest; }

// Strip `s` of p: all are as wide as the widest or one vector less.
INLINE Strip strip_of(const Product* p, int64_t s)
{
    int64_t vectors = vectors_of(p->n), strips = strips_of(p), wide = vectors % strips;
    int64_t first = s * (vectors / strips) + least(s, wide), mine = vectors / strips + (s < wide);
    int64_t columns = least(mine * LANES, p->n - first * LANES);
    int64_t x_side = p->turned ? p->k : 1, y_side = p->turned ? p->m : 1;
    Strip strip = {p->x + first * LANES * x_side, p->y + first * LANES * y_side, p->turned ? p->k : p->n,
                   p->turned ? p->m : p->n, (int)mine, (int)(columns - (mine - 1) * LANES), 0, 0};
    return strip;
}

// Rows [first, end) of the strip's columns of X go into `slab`, row `first` to its start.
INLINE void pack(Strip strip, int64_t first, int64_t end, float* slab)
{
    for (int64_t j = first; j < end; ++j, slab += strip.vectors * LANES) {
        const float* from = strip.x + j * strip.x_step;
        for (int v = 0; v < strip.vectors; ++v) prefetch(from + PACK_AHEAD * strip.x_step + v * LANES);
        for (int v = 0; v < strip.vectors - 1; ++v) store(slab + v * LANES, load(from + v * LANES));
        int v = strip.vectors - 1;
        store(slab + v * LANES, load_some(from + v * LANES, strip.last));
    }
}

// The same from X [n, k]: columns of the strip are rows of X, turned LANES x LANES at a time.
INLINE void pack_turned(Strip strip, int64_t first, int64_t end, float* slab)
{
    int64_t step = strip.vectors * LANES;
    for (int v = 0; v < strip.vectors; ++v)
        for (int64_t j = first; j < end; j += LANES) {
            int columns = v == strip.vectors - 1 ? strip.last : LANES, rows = (int)least(LANES, end - j);
            vec square[LANES] = {{0}};
            for (int c = 0; c < columns; ++c) square[c] = load_some(strip.x + (v * LANES + c) * strip.x_step + j, rows);
            transpose(square);
            for (int r = 0; r < rows; ++r) store(slab + (j - first + r) * step + v * LANES, square[r]);
        }
}

// Rows [first, end) of a strip of Y, `from` its slab, go where they belong.
INLINE void unpack(Strip strip, int64_t first, int64_t end, const float* from)
{
    int64_t step = strip.vectors * LANES;
    for (int64_t i = first; i < end; ++i) {
        float* to = strip.y + i * strip.y_step;
        for (int v = 0; v < strip.vectors - 1; ++v) store(to + v * LANES, load(from + i * step + v * LANES));
        store_some(to + (strip.vectors - 1) * LANES, load(from + (i + 1) * step - LANES), strip.last);
    }
}

// The same to Y [n, m].
INLINE void unpack_turned(Strip strip, int64_t first, int64_t end, const float* from)
{
    int64_t step = strip.vectors * LANES;
    for (int v = 0; v < strip.vectors; ++v)
        for (int64_t i = first; i < end; i += LANES) {
            int columns = v == strip.vectors - 1 ? strip.last : LANES, rows = (int)least(LANES, end - i);
            vec square[LANES] = {{0}};
            for (int r = 0; r < rows; ++r) square[r] = load(from + (i + r) * step + v * LANES);
            transpose(square);
            for (int c = 0; c < columns; ++c) store_some(strip.y + (v * LANES + c) * strip.y_step + i, square[c], rows);
        }
}

INLINE void clear(Tile sums, int rows, int vectors)
{
    UNROLL for (int r = 0; r < rows; ++r)
        UNROLL for (int v = 0; v < vectors; ++v) sums[r][v] = (vec){0};
}

INLINE void add_row(vec* sums, const float* y, int vectors, int last)
{
    UNROLL for (int v = 0; v < vectors - 1; ++v) sums[v] += load(y + v * LANES);
    sums[vectors - 1] += load_some(y + (vectors - 1) * LANES, last);
}

INLINE void store_row(const vec* sums, float* to, int vectors, int last)
{
    UNROLL for (int v = 0; v < vectors - 1; ++v) store(to + v * LANES, sums[v]);
    store_some(to + (vectors - 1) * LANES, sums[vectors - 1], last);
}

static void store_pieces(const vec* sums, float* to, const Piece* piece, const Piece* beyond)
{
    for (; piece < beyond; ++piece) store_between(to + piece->offset, sums[piece->vector], piece->first, piece->count);
}

#endif
