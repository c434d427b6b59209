// Groups of rows times a strip of X: rows that share a list of columns are summed in registers together.
//
// One load of X serves `height` rows, and that decides the speed: the second-level cache gives about half a line a
// cycle, so 4 rows reach two thirds of a core's peak and 8 rows nine tenths (measured, Cascade Lake: 101 and 121 of 151
// GFLOP/s, 768x3072 at sparsity 0.9). Lists jump about in X, which no hardware prefetcher foresees: AHEAD columns are
// asked for in advance (82 to 101 GFLOP/s), where X is far (_strips.py).
#ifndef SPARSEBENCH_GROUPS_H
#define SPARSEBENCH_GROUPS_H

#include "strips.h"

#define AHEAD 8      // columns of a list
#define IN_FLIGHT 8  // sums that hide the latency of an FMA: two start a cycle, each takes four
#ifndef INDEX
#define INDEX uint16_t
#endif

// Lists of one height. List t of block b is entries offsets[b * lists + t] .. offsets[b * lists + t + 1] - 1 and belongs
// to rows t * height .. of the groups.
typedef struct {
    int64_t height, lists;
    int64_t ahead;           // whether columns are asked for in advance
    const int64_t* offsets;  // [blocks * lists + 1]
    const INDEX* columns;    // [entries + AHEAD]  rows of X from the block's first on; or, x_step = 1, of elements
    const item* values;      // [entries, height]
} Level;

// Row r of group g is row rows[g * height + r] of Y, -1 for none; groups are 4 or 8 rows high, levels
// 1, 2, 4 or 8.
typedef struct {
    int64_t height, levels;
    const int32_t* rows;
    const Level* level;
} Groups;

// sums += one entry of a list of `height` rows, times the strip.
INLINE void add_entry(Tile sums, const INDEX* column, const float* values, int height, int vectors, int ahead,
                      Strip strip)
{
    const float *x = strip.x + *column * strip.x_step, *soon = strip.x + column[AHEAD] * strip.x_step;
    vec xs[WIDEST];
    if (ahead) UNROLL for (int v = 0; v < vectors; ++v) prefetch(soon + v * LANES);
    UNROLL for (int v = 0; v < vectors; ++v) xs[v] = load(x + v * LANES);
    UNROLL for (int r = 0; r < height; ++r)
        UNROLL for (int v = 0; v < vectors; ++v) sums[r][v] += values[r] * xs[v];
}

// sums += some entries of a list. A tile of few sums has others beside it, which take turns.
INLINE void add_entries(Tile sums, const INDEX* column, const INDEX* end, const float* values, int height, int vectors,
                        int ahead, Strip strip)
{
    const int sets = height * vectors >= IN_FLIGHT ? 1 : height * vectors >= IN_FLIGHT / 2 ? 2 : 4;
    Sums more[3];
    UNROLL for (int s = 1; s < sets; ++s) clear(more[s - 1], height, vectors);
    for (; sets > 1 && column + sets <= end; column += sets, values += sets * height)
        UNROLL for (int s = 0; s < sets; ++s)
            add_entry(s ? more[s - 1] : sums, column + s, values + s * height, height, vectors, ahead, strip);
    for (; column < end; ++column, values += height) add_entry(sums, column, values, height, vectors, ahead, strip);
    UNROLL for (int s = 1; s < sets; ++s)
        UNROLL for (int r = 0; r < height; ++r)
            UNROLL for (int v = 0; v < vectors; ++v) sums[r][v] += more[s - 1][r][v];
}

// sums += a whole list.
INLINE void add_list(Tile sums, const Level* w, int64_t list, int height, int vectors, Strip strip)
{
    int64_t entry = w->offsets[list], end = w->offsets[list + 1];
    for (int64_t next; entry < end; entry = next) {
        float room[ROOM];
        next = RUN(entry, end, height);
        const float* values = widened(w->values + entry * height, (next - entry) * height, room);
        const INDEX *first = w->columns + entry, *beyond = w->columns + next;
        if (w->ahead) add_entries(sums, first, beyond, values, height, vectors, 1, strip);
        else add_entries(sums, first, beyond, values, height, vectors, 0, strip);
    }
}

// sums += all lists of group g in one level. Groups of 8 rows have lists of 8 alone, which spares half the code.
INLINE void add_level(Tile sums, const Level* w, int64_t block, int64_t g, int rows, int vectors, Strip strip)
{
    int64_t first = block * w->lists + g * (rows / w->height);
    if (rows == 8 || w->height == rows) add_list(sums, w, first, rows, vectors, strip);
    else if (rows == 4 && w->height == 2)
        UNROLL for (int j = 0; j < 2; ++j) add_list(sums + 2 * j, w, first + j, 2, vectors, strip);
    else UNROLL for (int j = 0; j < rows; ++j) add_list(sums + j, w, first + j, 1, vectors, strip);
}

// Writes Y, or adds to it.
INLINE void times_strip(const Groups* w, int64_t block, int64_t first, int64_t end, int rows, int vectors, Strip strip)
{
    for (int64_t g = first; g < end; ++g) {
        Sums sums;
        clear(sums, rows, vectors);
        for (int64_t l = 0; l < w->levels; ++l) add_level(sums, w->level + l, block, g, rows, vectors, strip);
        UNROLL for (int r = 0; r < rows; ++r) {
            int64_t row = w->rows[g * rows + r];
            if (row < 0) continue;
            if (strip.pieces) {
                item* out = strip.out + row * strip.y_step;
                if (strip.adds) add_pieces(sums[r], out, strip.pieces, strip.beyond);
                store_pieces(sums[r], out, strip.pieces, strip.beyond);
                continue;
            }
            float* y = strip.y + row * strip.y_step;
            if (strip.adds) add_row(sums[r], y, vectors, strip.last);
            store_row(sums[r], y, vectors, strip.last);
        }
    }
}

// Groups [first, end) of a block of W times the strip: heights and vectors become literals here, so that sums live in registers.
static void times_groups(const Groups* w, int64_t block, int64_t first, int64_t end, Strip strip)
{
#define TIMES(R, V)                                                                                                    \
    if (w->height == (R) && strip.vectors == (V) && (V) <= VECTORS_FOR(R))                                             \
        times_strip(w, block, first, end, R, (V) <= VECTORS_FOR(R) ? (V) : 1, strip);
#if defined(ONE_VECTOR)
#define TIMES_ALL(R) TIMES(R, 1)
#else
#define TIMES_ALL(R) TIMES(R, 1) else TIMES(R, 2) else TIMES(R, 3) else TIMES(R, 4)
#endif
    TIMES_ALL(4) else TIMES_ALL(8)
#undef TIMES_ALL
#undef TIMES
}

#endif
