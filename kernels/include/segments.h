// Rows that share nothing times a strip of X: W is cut along k into blocks whose part of the strip stays in the
// first-level cache, and a row's nonzeros in one block are a segment.
//
// A nonzero of a lone row wants a whole row of the strip for one multiply-add each: from the second-level cache that is
// 35 GFLOP/s, whatever else a body does. With blocks each line of X comes from there once a block and strip, against a
// load and a store of a row's sums a segment: 58 GFLOP/s at 768x3072, 75 at 512x2048 and sparsity 0.7 (measured, Cascade
// Lake). Segments of a block are in the order of their length, so that the end of each is foreseen.
#ifndef SPARSEBENCH_SEGMENTS_H
#define SPARSEBENCH_SEGMENTS_H

#include "strips.h"

// Segments of `count` rows, all `length` nonzeros long.
typedef struct {
    int32_t length, count;
} Class;

// Where a block's classes, segments and nonzeros start.
typedef struct {
    int64_t classes, segments, nonzeros;
} Start;

typedef struct {
    int64_t blocks, block_rows;  // block_rows <= 65536
    const Start* starts;         // [blocks + 1]
    const Class* classes;
    const int32_t* rows;     // [segments]  of Y, class by class; in block 0 all rows, those without a nonzero too
    const uint16_t* columns; // [nnz]       within the block, segment by segment
    const item* values;      // [nnz]
} Segments;

INLINE void add_nonzero(vec* sums, const float* x, float value, int vectors)
{
    UNROLL for (int v = 0; v < vectors; ++v) sums[v] += value * load(x + v * LANES);
}

// `sets` sets of sums += nonzeros with these columns and values, set by set.
INLINE void add_run(vec sums[][WIDEST], int sets, const float* x, const uint16_t* columns, const float* values,
                    int64_t length, int vectors, int64_t x_step)
{
    int64_t i = 0;
    for (; i + sets <= length; i += sets)
        UNROLL for (int s = 0; s < sets; ++s)
            add_nonzero(sums[s], x + columns[i + s] * x_step, values[i + s], vectors);
    for (; i < length; ++i) add_nonzero(sums[0], x + columns[i] * x_step, values[i], vectors);
}

// One row of the strip of Y = or, with `add`, += a segment. Two sets of sums, four where a set is one vector.
INLINE void times_segment(float* y, const float* x, const Segments* w, int64_t p, int length, int add, int vectors,
                          Strip strip)
{
    const int sets = vectors == 1 ? 4 : 2;
    vec sums[4][WIDEST] = {{{0}}};
    if (add) UNROLL for (int v = 0; v < vectors; ++v) sums[0][v] = load(y + v * LANES);
    for (int64_t end = p + length, next; p < end; p = next) {
        float room[ROOM];
        next = RUN(p, end, 1);
        add_run(sums, sets, x, w->columns + p, widened(w->values + p, next - p, room), next - p, vectors, strip.x_step);
    }
    UNROLL for (int s = 1; s < sets; ++s)
        UNROLL for (int v = 0; v < vectors; ++v) sums[0][v] += sums[s][v];
    store_row(sums[0], y, vectors, strip.last);
}

// `beside` strips take turns at each row; a literal 1 spares the loop, which costs 5 % (measured).
INLINE void times_blocks(const Segments* w, int64_t first, int64_t end, int vectors, int64_t beside, Strip strip)
{
    for (int64_t b = first; b < end; ++b, strip.x += w->block_rows * strip.x_step) {
        const int32_t* row = w->rows + w->starts[b].segments;
        int64_t p = w->starts[b].nonzeros;
        for (const Class* c = w->classes + w->starts[b].classes; c < w->classes + w->starts[b + 1].classes; ++c)
            for (int i = 0; i < c->count; ++i, ++row, p += c->length)
                for (int64_t at = 0; at < beside * vectors * LANES; at += vectors * LANES)
                    times_segment(strip.y + *row * strip.y_step + at, strip.x + at, w, p, c->length,
                                  strip.adds || b, vectors, strip);
    }
}

// Blocks [first, end) of W times the strip, whose x is the first block's. Block 0 writes Y, or adds to it; the others
// add, so where there are several, y is a slab or n a multiple of LANES.
static void times_segments(const Segments* w, int64_t first, int64_t end, Strip strip)
{
#define TIMES(V, BESIDE)                                                                                               \
    if (strip.vectors == (V)) times_blocks(w, first, end, V, BESIDE, strip);
#if defined(ONE_VECTOR)
#define TIMES_ALL(BESIDE) TIMES(1, BESIDE)
#else
#define TIMES_ALL(BESIDE) TIMES(1, BESIDE) else TIMES(2, BESIDE) else TIMES(3, BESIDE) else TIMES(4, BESIDE)
#endif
    if (strip.beside == 1) {
        TIMES_ALL(1)
    } else {
        TIMES_ALL(strip.beside)
    }
#undef TIMES_ALL
#undef TIMES
}

#endif
