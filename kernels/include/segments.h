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
    const float* values;     // [nnz]
} Segments;

INLINE void add_nonzero(vec* sums, const float* x, float value, int vectors)
{
    UNROLL for (int v = 0; v < vectors; ++v) sums[v] += value * load(x + v * LANES);
}

// One row of the strip of Y = or, with `add`, += a segment. Two sets of sums, four where a set is one vector.
INLINE void times_segment(float* y, const float* x, const Segments* w, int64_t p, int length, int add, int vectors,
                          Strip strip)
{
    const int sets = vectors == 1 ? 4 : 2;
    vec sums[4][WIDEST] = {{{0}}};
    if (add) UNROLL for (int v = 0; v < vectors; ++v) sums[0][v] = load(y + v * LANES);
    int i = 0;
    for (; i + sets <= length; i += sets)
        UNROLL for (int s = 0; s < sets; ++s)
            add_nonzero(sums[s], x + w->columns[p + i + s] * strip.x_step, w->values[p + i + s], vectors);
    for (; i < length; ++i) add_nonzero(sums[0], x + w->columns[p + i] * strip.x_step, w->values[p + i], vectors);
    UNROLL for (int s = 1; s < sets; ++s)
        UNROLL for (int v = 0; v < vectors; ++v) sums[0][v] += sums[s][v];
    store_row(sums[0], y, vectors, strip.last);
}

INLINE void times_blocks(const Segments* w, int64_t first, int64_t end, int add, int vectors, Strip strip)
{
    for (int64_t b = first; b < end; ++b, strip.x += w->block_rows * strip.x_step) {
        const int32_t* row = w->rows + w->starts[b].segments;
        int64_t p = w->starts[b].nonzeros;
        for (const Class* c = w->classes + w->starts[b].classes; c < w->classes + w->starts[b + 1].classes; ++c)
            for (int i = 0; i < c->count; ++i, ++row, p += c->length)
                times_segment(strip.y + *row * strip.y_step, strip.x, w, p, c->length, add || b, vectors, strip);
    }
}

// Blocks [first, end) of W times the strip, whose x is the first block's. Block 0 writes Y, unless `add` says that
// something is there; the others add to it, so where there are several, y is a slab or n a multiple of LANES.
static void times_segments(const Segments* w, int64_t first, int64_t end, int add, Strip strip)
{
    if (strip.vectors == 1) times_blocks(w, first, end, add, 1, strip);
    else if (strip.vectors == 2) times_blocks(w, first, end, add, 2, strip);
    else if (strip.vectors == 3) times_blocks(w, first, end, add, 3, strip);
    else times_blocks(w, first, end, add, 4, strip);
}

#endif
