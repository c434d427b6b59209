// A product Y = W X is made strip by strip: up to 4 vectors of columns of X and Y, all rows of W.
//
//   Product   X and Y as a caller has them, and room for a slab of each
//   Columns   where the columns in hand are in X and Y
//   Strip     where bodies find them: rows x_step and y_step floats apart
//   pack      one strip of X as a slab: rows that follow each other, aligned, the last vector filled up with zeros, so
//             that bodies load whole vectors only. Rows of X [k, n] lie 4 n bytes apart: from n = 256 on, few sets of
//             the caches hold all of them (bsr 4x1, 768x3072: 57 against 41 GFLOP/s at n = 256, 37 against 19 at
//             n = 2048; measured, Cascade Lake)
//   Tile      sums of a few rows in registers
#ifndef SPARSEBENCH_STRIPS_H
#define SPARSEBENCH_STRIPS_H

#include "items.h"

#define WIDEST 4  // vectors in a strip
#ifndef PACK_AHEAD
#define PACK_AHEAD 16  // rows of X: they lie in other pages, which no hardware prefetcher enters
#endif

typedef struct {
    int64_t m, k, n;
    int64_t widest;      // vectors of this product's strips, at most WIDEST
    int64_t block_rows;  // of X, taken at a time
    int64_t turned;      // whether x is [n, k] and y [n, m]; both slabs are then there
    int64_t beside;      // whether a row is taken through all strips before the next; there are no slabs then
    int64_t adds;        // whether Y is added to, not written
    const item* x;       // [k, n]
    item* y;             // [m, n]
    float* x_slab;       // [2, block_rows, widest * LANES], aligned to vectors; 0: x is read where it is, n % LANES = 0
    float* y_slab;       // [m, widest * LANES]; 0: y is written where it is. Items of 16 bits have both slabs
} Product;

// A strip's columns where X and Y are: rows x_step and y_step items apart, or columns where they are turned.
typedef struct {
    const item* x;
    item* y;
    int64_t x_step, y_step;
    int vectors, last;  // the last vector has `last` columns of Y
} Columns;

// Lanes [first, first + count) of a vector of a strip, which go to y + offset + first.. in a row of Y.
typedef struct {
    int32_t vector, first, count, unused;
    int64_t offset;
} Piece;

// The columns as bodies see them, in a slab or where they are.
typedef struct {
    const float* x;
    float* y;
    int64_t x_step, y_step;
    int64_t beside;                // strips of this width, one next to the other, that are taken together
    int vectors, last;
    int adds;                      // whether Y is added to, not written
    item* out;                     // Y, where its columns are not neighbours there; else 0
    const Piece *pieces, *beyond;  // and where they are
} Strip;

typedef vec Sums[8][WIDEST];
typedef vec (*Tile)[WIDEST];  // Sums, or later rows of it

// Vectors that a tile of `rows` rows may be wide beside `vectors` loads of X: 32 registers with AVX-512 and on 64-bit
// ARM, else 16.
#if defined(ONE_VECTOR)
#define VECTORS_FOR(rows) ((rows) > 0)
#elif defined(__AVX512F__) || defined(__aarch64__)
#define VECTORS_FOR(rows) ((rows) <= 6 ? 4 : 3)
#else
#define VECTORS_FOR(rows) ((rows) <= 2 ? 4 : (rows) == 3 ? 3 : (rows) <= 6 ? 2 : 1)
#endif

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t vectors_of(int64_t n) { return (n + LANES - 1) / LANES; }

// How many strips p is made in. Strips 0 to wide_strips_of(p) - 1 have one vector more than the others.
INLINE int64_t strips_of(const Product* p) { return (vectors_of(p->n) + p->widest - 1) / p->widest; }

INLINE int64_t wide_strips_of(const Product* p) { return vectors_of(p->n) % strips_of(p); }

// Strip `s` of p.
INLINE Columns columns_of(const Product* p, int64_t s)
{
    int64_t vectors = vectors_of(p->n), strips = strips_of(p), wide = wide_strips_of(p);
    int64_t first = s * (vectors / strips) + least(s, wide), mine = vectors / strips + (s < wide);
    int64_t columns = least(mine * LANES, p->n - first * LANES);
    int64_t x_side = p->turned ? p->k : 1, y_side = p->turned ? p->m : 1;
    return (Columns){.x = p->x + first * LANES * x_side,
                     .y = p->y + first * LANES * y_side,
                     .x_step = p->turned ? p->k : p->n,
                     .y_step = p->turned ? p->m : p->n,
                     .vectors = (int)mine,
                     .last = (int)(columns - (mine - 1) * LANES)};
}

// Rows [first, end) of X go into `slab`, row `first` to its start.
INLINE void pack(Columns of, int64_t first, int64_t end, float* slab)
{
    for (int64_t j = first; j < end; ++j, slab += of.vectors * LANES) {
        const item* from = of.x + j * of.x_step;
        for (int v = 0; v < of.vectors; ++v) prefetch(from + PACK_AHEAD * of.x_step + v * LANES);
        for (int v = 0; v < of.vectors - 1; ++v) store(slab + v * LANES, load_items(from + v * LANES));
        int v = of.vectors - 1;
        store(slab + v * LANES, load_items_some(from + v * LANES, of.last));
    }
}

// The same from X [n, k]: columns are rows of X, turned LANES x LANES at a time.
INLINE void pack_turned(Columns of, int64_t first, int64_t end, float* slab)
{
    int64_t step = of.vectors * LANES;
    for (int v = 0; v < of.vectors; ++v)
        for (int64_t j = first; j < end; j += LANES) {
            int columns = v == of.vectors - 1 ? of.last : LANES, rows = (int)least(LANES, end - j);
            vec square[LANES] = {{0}};
            for (int c = 0; c < columns; ++c)
                square[c] = load_items_some(of.x + (v * LANES + c) * of.x_step + j, rows);
            transpose(square);
            for (int r = 0; r < rows; ++r) store(slab + (j - first + r) * step + v * LANES, square[r]);
        }
}

// Writes `count` lanes to Y, or adds them.
INLINE void store_out(item* to, vec value, int count, int adds)
{
    if (adds) value += load_items_some(to, count);
    store_items_some(to, value, count);
}

// Rows [first, end) of Y, `from` their slab, go where they belong.
INLINE void unpack(Columns of, int64_t first, int64_t end, const float* from, int adds)
{
    int64_t step = of.vectors * LANES;
    for (int64_t i = first; i < end; ++i) {
        item* to = of.y + i * of.y_step;
        for (int v = 0; v < of.vectors; ++v)
            store_out(to + v * LANES, load(from + i * step + v * LANES), v < of.vectors - 1 ? LANES : of.last, adds);
    }
}

// The same to Y [n, m].
INLINE void unpack_turned(Columns of, int64_t first, int64_t end, const float* from, int adds)
{
    int64_t step = of.vectors * LANES;
    for (int v = 0; v < of.vectors; ++v)
        for (int64_t i = first; i < end; i += LANES) {
            int columns = v == of.vectors - 1 ? of.last : LANES, rows = (int)least(LANES, end - i);
            vec square[LANES] = {{0}};
            for (int r = 0; r < rows; ++r) square[r] = load(from + (i + r) * step + v * LANES);
            transpose(square);
            for (int c = 0; c < columns; ++c)
                store_out(of.y + (v * LANES + c) * of.y_step + i, square[c], rows, adds);
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

static void add_pieces(vec* sums, const item* from, const Piece* piece, const Piece* beyond)
{
    for (; piece < beyond; ++piece)
        sums[piece->vector] += load_items_between(from + piece->offset, piece->first, piece->count);
}

static void store_pieces(const vec* sums, item* to, const Piece* piece, const Piece* beyond)
{
    for (; piece < beyond; ++piece) store_items_between(to + piece->offset, sums[piece->vector], piece->first, piece->count);
}

#endif
