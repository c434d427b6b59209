// rbgp4.c: Y[m, n] = W[m, k] @ X[k, n], W the product of two small graphs: no nonzero has an index of its own.
//
//   outer    int32 [u_o, d_o]         0 <= outer < k / tk, tile columns next to each tile row
//   inner    int32 [u_i, f]           0 <= inner < tk, columns of a tile that each inner row keeps: the inner graph,
//                                     its blocks spelled out; f = d_i * bw
//   values   float [u_o, d_o, tm, f]  tm = row_repeat * u_i * bh; outer edge, row of the tile, its columns
//   scratch  float [4 * tm + u_i * f] for n = 1, whatever is in it
//   x        float [k, n]             row-major
//   y        float [u_o * tm, n]      row-major, every entry written
//
// Row (q * u_i + i) * bh + b of a tile keeps the columns inner[i], so row_repeat * bh rows share one list.
//
// Tiles:    up to 4 rows that share a list x VECTORS_FOR(4) vectors of columns in registers, summed over all edges of
//           the outer graph; each load of X serves all of them. n = 1: x is picked once an edge, for all rows of the
//           tile, and values are read as they are stored: row by row they lie a tile apart, which no prefetcher follows.
// Demands:  n >= 1.
// Moves:    4 bytes a nonzero and 4 * m * n of Y; 4 nonzeros of a column take 4 * n of X from the caches.
// Ladder:   1 register tiles (this)   2 X packed strip by strip for n > 64
// Source:   own; the structure is RBGP4's (arXiv 2006.13486).

#include <string.h>

#include "four.h"
#include "tile.h"

typedef struct {
    int64_t u_o, d_o, u_i, f, row_repeat, bh, tk;
    const int32_t *outer, *inner;
    const float* values;
} Graphs;

// Up to four rows of tile row `o` that share list `i`, as rows of the tile.
typedef struct {
    int64_t o, i, at[4];
} Group;

INLINE int64_t tile_rows(Graphs w) { return w.row_repeat * w.u_i * w.bh; }

// The group whose first row is the `first`-th of those that share list i.
INLINE Group group_of(Graphs w, int64_t o, int64_t i, int64_t first, int rows)
{
    Group group = {o, i, {0}};
    int64_t q = first / w.bh, b = first % w.bh;
    UNROLL for (int j = 0; j < rows; ++j) {
        group.at[j] = (q * w.u_i + i) * w.bh + b;
        if (++b == w.bh) b = 0, ++q;
    }
    return group;
}

INLINE void tile(Graphs w, Group group, int rows, Strip strip)
{
    const int32_t* list = w.inner + group.i * w.f;
    Sums sums;
    clear(sums, rows, strip);
    for (int64_t e = group.o * w.d_o; e < (group.o + 1) * w.d_o; ++e) {
        const float* values = w.values + e * tile_rows(w) * w.f;
        const float* x = strip.x + w.outer[e] * w.tk * strip.n;
        for (int64_t c = 0; c < w.f; ++c) {
            vec xs[4];
            load_strip(xs, x + list[c] * strip.n, strip);
            UNROLL for (int j = 0; j < rows; ++j)
                UNROLL for (int v = 0; v < strip.vectors; ++v) sums[j][v] += values[group.at[j] * w.f + c] * xs[v];
        }
    }
    UNROLL for (int j = 0; j < rows; ++j)
        store_row(sums[j], strip.y + (group.o * tile_rows(w) + group.at[j]) * strip.n, strip);
}

// All rows of W, those that share a list in fours, and what is left in a two and a one.
INLINE void times_strip(Graphs w, Strip strip)
{
    int64_t sharing = w.row_repeat * w.bh;
    for (int64_t o = 0; o < w.u_o; ++o)
        for (int64_t i = 0; i < w.u_i; ++i) {
            int64_t first = 0;
            for (; first + 4 <= sharing; first += 4) tile(w, group_of(w, o, i, first, 4), 4, strip);
            for (; first + 2 <= sharing; first += 2) tile(w, group_of(w, o, i, first, 2), 2, strip);
            for (; first < sharing; ++first) tile(w, group_of(w, o, i, first, 1), 1, strip);
        }
}

INLINE four add_products(four sum, const float* values, const float* x, int64_t count)
{
    const float* end = values + (count & ~3);
    for (; values < end; values += 4, x += 4) sum += load_four(values) * load_four(x);
    for (int rest = 0; rest < (count & 3); ++rest) sum[0] += values[rest] * x[rest];
    return sum;
}

// sums [tm] += edge e of the outer graph times x, its values taken in the order they are stored.
static void add_edge(Graphs w, int64_t e, const float* x, float* picked, four* sums)
{
    const float* values = w.values + e * tile_rows(w) * w.f;
    for (int64_t c = 0; c < w.u_i * w.f; ++c) picked[c] = pick(x + w.outer[e] * w.tk, w.inner[c]);
    for (int64_t q = 0; q < w.row_repeat; ++q)
        for (int64_t i = 0; i < w.u_i; ++i)
            for (int64_t b = 0; b < w.bh; ++b, values += w.f, ++sums)
                *sums = add_products(*sums, values, picked + i * w.f, w.f);
}

static void times_vector(Graphs w, float* scratch, const float* x, float* y)
{
    four* sums = (four*)scratch;
    float* picked = scratch + 4 * tile_rows(w);
    for (int64_t o = 0; o < w.u_o; ++o) {
        memset(sums, 0, sizeof(four) * (size_t)tile_rows(w));
        for (int64_t e = o * w.d_o; e < (o + 1) * w.d_o; ++e) add_edge(w, e, x, picked, sums);
        for (int64_t t = 0; t < tile_rows(w); ++t) *y++ = sum_of_four(sums[t]);
    }
}

void rbgp4_f32(int64_t u_o, int64_t d_o, int64_t u_i, int64_t f, int64_t row_repeat, int64_t bh, int64_t tk,
               const int32_t* outer, const int32_t* inner, const float* values, float* scratch,
               int64_t n, const float* x, float* y)
{
    Graphs w = {u_o, d_o, u_i, f, row_repeat, bh, tk, outer, inner, values};
#define TILE(vectors, last, n0) times_strip(w, (Strip){x + (n0), y + (n0), n, vectors, last})
    if (n == 1) times_vector(w, scratch, x, y);
    else FOR_COLUMNS(VECTORS_FOR(4), n, TILE);
}
