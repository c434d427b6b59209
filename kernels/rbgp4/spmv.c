// rbgp4.c at n = 1: y[m] = W[m, k] @ x[k], W the product of two small graphs: no nonzero has an index of its own.
// Products with more columns go to ../_product.c.
//
//   outer    int32 [u_o, d_o]         0 <= outer < k / tk, tile columns next to each tile row
//   inner    int32 [u_i, f]           0 <= inner < tk, columns of a tile that each inner row keeps: the inner graph,
//                                     its blocks spelled out; f = d_i * bw
//   values   items [u_o, d_o, tm, f]  tm = row_repeat * u_i * bh; outer edge, row of the tile, its columns
//   x        items [k]
//   y        items [u_o * tm]         every entry written
//   shares   int64 [threads + 1]  thread t has tile rows shares[t] .. shares[t + 1] - 1
//   room     float [k + u_o * tm, both up to whole vectors]  where items have 16 bits, else unused
//
// Row (q * u_i + i) * bh + b of a tile keeps the columns inner[i], so row_repeat * bh rows share one list.
//
// Tiles:    up to 4 rows that share a list, 8 outer edges at a time.
// Moves:    4 bytes a nonzero.
// Source:   own; the structure is RBGP4's (arXiv 2006.13486).

#include "four.h"
#include "threads.h"

// Outer edges taken together at n = 1. Runs of a row lie a tile apart, often 4 KiB, so those of all edges fall into the
// same few sets of the first-level cache, and the next list finds its half of each line gone: 806 us with all edges at
// once, 347 with 8 (measured on a Cascade Lake core, 768x3072, sparsity 0.875, cold W).
#define EDGES 8

typedef struct {
    int64_t u_o, d_o, u_i, f, row_repeat, bh, tk;
    const int32_t *outer, *inner;
    const item* values;
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

// The rows of a group += edges [first, end) of the outer graph times x. Lanes are neighbours in a list.
INLINE void add_dots(Graphs w, Group group, int rows, int64_t first, int64_t end, const float* x, float* y)
{
    const int32_t* list = w.inner + group.i * w.f;
    four partial[4] = {0};
    float rest[4] = {0};
    for (int64_t e = first; e < end; ++e) {
        const item* values = w.values + e * tile_rows(w) * w.f;
        const float* from = x + w.outer[e] * w.tk;
        int64_t c = 0;
        for (; c + 4 <= w.f; c += 4) {
            four xs = pick_four(from, list + c);
            UNROLL for (int j = 0; j < rows; ++j) partial[j] += four_items(values + group.at[j] * w.f + c) * xs;
        }
        for (; c < w.f; ++c)
            UNROLL for (int j = 0; j < rows; ++j) rest[j] += widen(values[group.at[j] * w.f + c]) * from[list[c]];
    }
    UNROLL for (int j = 0; j < rows; ++j)
        y[group.o * tile_rows(w) + group.at[j]] += sum_of_four(partial[j]) + rest[j];
}

// DO(group, rows) for the rows of tile row o: those that share a list in fours, what is left in a two and a one.
#define FOR_GROUPS(w, o, DO)                                                                                           \
    for (int64_t i = 0; i < (w).u_i; ++i) {                                                                            \
        int64_t at = 0, sharing = (w).row_repeat * (w).bh;                                                             \
        for (; at + 4 <= sharing; at += 4) DO(group_of(w, o, i, at, 4), 4);                                            \
        for (; at + 2 <= sharing; at += 2) DO(group_of(w, o, i, at, 2), 2);                                            \
        for (; at < sharing; ++at) DO(group_of(w, o, i, at, 1), 1);                                                    \
    }

static void times_rows(Graphs w, int64_t first_row, int64_t beyond, const float* x, float* y)
{
#define DO(group, rows) add_dots(w, group, rows, first, end, x, y)
    memset(y + first_row * tile_rows(w), 0, sizeof(float) * (size_t)((beyond - first_row) * tile_rows(w)));
    for (int64_t o = first_row; o < beyond; ++o)
        for (int64_t first = o * w.d_o, end; first < (o + 1) * w.d_o; first = end) {
            end = first + EDGES < (o + 1) * w.d_o ? first + EDGES : (o + 1) * w.d_o;
            FOR_GROUPS(w, o, DO)
        }
#undef DO
}

void rbgp4_vector(int64_t u_o, int64_t d_o, int64_t u_i, int64_t f, int64_t row_repeat, int64_t bh, int64_t tk,
                  int64_t k, const int32_t* outer, const int32_t* inner, const item* values, const int64_t* shares,
                  int64_t threads, const item* x, item* y, float* room)
{
    Graphs w = {u_o, d_o, u_i, f, row_repeat, bh, tk, outer, inner, values};
    float* sums = sums_of(y, room, k);
    const float* xs = widened(x, k, room);
    EACH_THREAD(threads, t) times_rows(w, shares[t], shares[t + 1], xs, sums);
    narrowed(sums, u_o * tile_rows(w), y);
}
