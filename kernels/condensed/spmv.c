// condensed.c at n = 1: y[m] = W[m, k] @ x[k], W with the same f nonzeros in each live row and none in the others.
// Products with more columns go to ../_product.c.
//
//   rows     int32 [active]                  rising; the live rows of W
//   columns  uint16 or int32 [active, f4]    by column_bytes; 0 <= columns < k; f4 is f padded to a multiple of 4
//   values   items [active, f4]              row-major; 0 in the padding, whose column is one the row owns
//   x        items [k]
//   y        items [m]                       every entry written: rows that are not live get zeros each time
//   shares   int64 [threads + 1]  thread t has live rows shares[t] .. shares[t + 1] - 1
//   room     float [k + m, both up to whole vectors]  where items have 16 bits, else unused
//
// Tiles:    four nonzeros a vector, four vectors in flight.
// Demands:  f4 % 4 == 0.
// Moves:    6 bytes an entry (8 with int32 columns).
// Source:   own; the format is the condensed form of SRigL (arXiv 2305.02299, algorithm 1).

#include "four.h"
#include "threads.h"

typedef struct {
    int64_t f4;
    const int32_t* rows;
    const void* columns;
    int wide;  // whether columns are int32
    const item* values;
} Condensed;

// Four stored entries of a row, each times its x.
INLINE four products(Condensed w, int64_t at, const float* x)
{
    if (w.wide) return four_items(w.values + at) * pick_four(x, (const int32_t*)w.columns + at);
    return four_items(w.values + at) * pick_four_near(x, (const uint16_t*)w.columns + at);
}

INLINE void times_rows(Condensed w, int64_t first, int64_t beyond, const float* x, float* y)
{
    for (int64_t i = first; i < beyond; ++i) {
        int64_t p = i * w.f4, end = p + w.f4;
        four partial[4] = {0};
        for (; p + 16 <= end; p += 16) {
            prefetch(w.values + p + STREAM_AHEAD);
            prefetch((const char*)w.columns + (p + STREAM_AHEAD) * (w.wide ? 4 : 2));
            UNROLL for (int j = 0; j < 4; ++j) partial[j] += products(w, p + 4 * j, x);
        }
        for (; p < end; p += 4) partial[0] += products(w, p, x);
        y[w.rows[i]] = sum_of_four((partial[0] + partial[1]) + (partial[2] + partial[3]));
    }
}

void condensed_vector(int64_t m, int64_t k, int64_t f4, int64_t column_bytes, const int32_t* rows,
                      const void* columns, const item* values, const int64_t* shares, int64_t threads, const item* x,
                      item* y, float* room)
{
    const float* xs = widened(x, k, room);
    float* sums = sums_of(y, room, k);
    Condensed near = {f4, rows, columns, 0, values}, wide = {f4, rows, columns, 1, values};
    memset(sums, 0, sizeof(float) * (size_t)m);
    EACH_THREAD(threads, t)
    {
        if (column_bytes == 2) times_rows(near, shares[t], shares[t + 1], xs, sums);
        else times_rows(wide, shares[t], shares[t + 1], xs, sums);
    }
    narrowed(sums, m, y);
}
