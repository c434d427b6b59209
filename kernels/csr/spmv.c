// csr.c at n = 1: y[m] = W[m, k] @ x[k], W in compressed sparse rows. Products with more columns go to ../_product.c.
//
//   offsets  int32 [m + 1]           never falling; row i is values[offsets[i]] .. values[offsets[i + 1] - 1]
//   columns  uint16 or int32 [nnz]   by column_bytes; 0 <= columns < k
//   values   items [nnz]             row after row
//   x        items [k]
//   y        items [m]               every entry written
//   shares   int64 [threads + 1]  thread t has rows shares[t] .. shares[t + 1] - 1
//   room     float [k + m, both up to whole vectors]  where items have 16 bits, else unused
//
// Tiles:    four nonzeros a vector, two vectors in flight: with four, short rows spend their time in the rest loop.
// Moves:    6 bytes a nonzero (8 with int32 columns) and 4 a row of W.
// Ladder:   1 a row at a time (this)   2 short rows taken together
// Source:   own.

#include "four.h"
#include "threads.h"

typedef struct {
    const int32_t* offsets;
    const void* columns;
    int wide;  // whether columns are int32
    const item* values;
} Csr;

INLINE four products(Csr w, int64_t p, const float* x)
{
    if (w.wide) return four_items(w.values + p) * pick_four(x, (const int32_t*)w.columns + p);
    return four_items(w.values + p) * pick_four_near(x, (const uint16_t*)w.columns + p);
}

INLINE int64_t column(Csr w, int64_t p)
{
    return w.wide ? ((const int32_t*)w.columns)[p] : ((const uint16_t*)w.columns)[p];
}

INLINE void times_rows(Csr w, int64_t first, int64_t beyond, const float* x, float* y)
{
    for (int64_t i = first; i < beyond; ++i) {
        int64_t p = w.offsets[i], end = w.offsets[i + 1];
        four even = {0}, odd = {0};
        for (; p + 8 <= end; p += 8) {
            prefetch(w.values + p + STREAM_AHEAD);
            prefetch((const char*)w.columns + (p + STREAM_AHEAD) * (w.wide ? 4 : 2));
            even += products(w, p, x);
            odd += products(w, p + 4, x);
        }
        if (p + 4 <= end) {
            even += products(w, p, x);
            p += 4;
        }
        float sum = sum_of_four(even + odd);
        for (; p < end; ++p) sum += widen(w.values[p]) * pick(x, column(w, p));
        y[i] = sum;
    }
}

void csr_vector(int64_t m, int64_t k, int64_t column_bytes, const int32_t* offsets, const void* columns,
                const item* values, const int64_t* shares, int64_t threads, const item* x, item* y, float* room)
{
    const float* xs = widened(x, k, room);
    float* sums = sums_of(y, room, k);
    Csr near = {offsets, columns, 0, values}, wide = {offsets, columns, 1, values};
    EACH_THREAD(threads, t)
    {
        if (column_bytes == 2) times_rows(near, shares[t], shares[t + 1], xs, sums);
        else times_rows(wide, shares[t], shares[t + 1], xs, sums);
    }
    narrowed(sums, m, y);
}
