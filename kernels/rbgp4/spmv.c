// rbgp4.c at n = 1: y[m] = W[m, k] @ x[k], W the product of two small graphs, so that rows share lists of columns.
// Products with more columns go to ../_product.c.
//
//   columns  uint16 or int32 [lists, run]  by column_bytes; 0 <= columns < k
//   rows     int32 [lists, parts, height]  the rows of y that own a list, in parts of `height`
//   values   items [lists, parts, run, height]  in the order they are read
//   x        items [k]
//   y        items [m]           every entry written
//   shares   int64 [threads + 1]  thread t has lists shares[t] .. shares[t + 1] - 1
//   room     float [k + m, both up to whole vectors]  where items have 16 bits, else unused
//
// Tiles:    1, 2 or 4 rows that share a list, sixteen nonzeros in flight.
// Demands:  height is 1, 2 or 4.
// Moves:    4 bytes a nonzero, and 2 (or 4) for those of all rows that share it.
// Source:   own; the structure is RBGP4's (arXiv 2006.13486).

#include "four.h"
#include "threads.h"

typedef struct {
    int64_t parts, run;
    const void* columns;
    const int32_t* rows;
    const item* values;
} Shared;

// Where the entry at `at` of all lists is in x.
INLINE int64_t column(Shared w, int wide, int64_t at)
{
    return wide ? ((const int32_t*)w.columns)[at] : ((const uint16_t*)w.columns)[at];
}

// x for a vector of values: 4 / height entries of a list from `at` on, each in the lanes of `height` rows.
INLINE four spread(Shared w, int wide, const float* x, int64_t at, int height)
{
    if (height == 1 && wide) return pick_four(x, (const int32_t*)w.columns + at);
    if (height == 1) return pick_four_near(x, (const uint16_t*)w.columns + at);
    float even = x[column(w, wide, at)], odd = height == 2 ? x[column(w, wide, at + 1)] : even;
    return (four){even, even, odd, odd};
}

// The `height` rows of a part += its list times x.
INLINE void add_part(Shared w, int wide, int64_t list, const item* values, int height, const float* x, float* sums)
{
    const int abreast = 4 / height;  // entries of a vector
    int64_t at = list * w.run, end = at + w.run;
    four partial[4] = {0};
    for (; at + 4 * abreast <= end; at += 4 * abreast, values += 16) {
        prefetch(values + STREAM_AHEAD);
        if (height == 1) prefetch((const char*)w.columns + (at + STREAM_AHEAD) * (wide ? 4 : 2));
        UNROLL for (int j = 0; j < 4; ++j)
            partial[j] += four_items(values + 4 * j) * spread(w, wide, x, at + j * abreast, height);
    }
    for (; at + abreast <= end; at += abreast, values += 4)
        partial[0] += four_items(values) * spread(w, wide, x, at, height);
    four sum = (partial[0] + partial[1]) + (partial[2] + partial[3]);
    UNROLL for (int lane = 0; lane < 4; ++lane) sums[lane % height] += sum[lane];
    for (; at < end; ++at, values += height)
        UNROLL for (int j = 0; j < height; ++j) sums[j] += widen(values[j]) * x[column(w, wide, at)];
}

INLINE void times_lists(Shared w, int wide, int64_t first, int64_t beyond, int height, const float* x, float* y)
{
    for (int64_t part = first * w.parts; part < beyond * w.parts; ++part) {
        float sums[4] = {0};
        add_part(w, wide, part / w.parts, w.values + part * w.run * height, height, x, sums);
        UNROLL for (int j = 0; j < height; ++j) y[w.rows[part * height + j]] = sums[j];
    }
}

void rbgp4_vector(int64_t m, int64_t k, int64_t height, int64_t parts, int64_t run, int64_t column_bytes,
                  const void* columns, const int32_t* rows, const item* values, const int64_t* shares, int64_t threads,
                  const item* x, item* y, float* room)
{
    Shared w = {parts, run, columns, rows, values};
    float* sums = sums_of(y, room, k);
    const float* xs = widened(x, k, room);
#define TIMES(H, WIDE)                                                                                                 \
    if (height == (H) && (column_bytes == 4) == (WIDE)) times_lists(w, WIDE, shares[t], shares[t + 1], H, xs, sums);
    EACH_THREAD(threads, t) { TIMES(1, 0) TIMES(2, 0) TIMES(4, 0) TIMES(1, 1) TIMES(2, 1) TIMES(4, 1) }
#undef TIMES
    narrowed(sums, m, y);
}
