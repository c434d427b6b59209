// bsr.c at n = 1: y[m] = W[m, k] @ x[k], W in dense blocks of bh x bw with one column index each. Products with more
// columns go to ../_product.c.
//
//   offsets  int32 [m / bh + 1]      never falling; block row i owns blocks offsets[i] .. offsets[i + 1] - 1
//   columns  int32 [blocks]          0 <= columns < k / bw; block j starts at column columns[j] * bw
//   values   items [blocks, bh, bw]  row-major
//   x        items [k]
//   y        items [m]               every entry written
//   shares   int64 [threads + 1]  thread t has block rows shares[t] .. shares[t + 1] - 1
//   room     float [k + m, both up to whole vectors]  where items have 16 bits, else unused
//
// Tiles:    4 rows of a block row, or 1.
// Demands:  bh divides m, bw divides k.
// Moves:    4 * bh * bw + 4 bytes a block.
// Source:   own.

#include "block_dots.h"
#include "threads.h"

INLINE void dots(Blocks w, int64_t i, int64_t r, int rows, const float* x, float* y)
{
    float sums[4] = {0};
    add_dots(sums, w, i, r, rows, x);
    UNROLL for (int j = 0; j < rows; ++j) y[i * w.bh + r + j] = sums[j];
}

static void times_rows(Blocks w, int64_t first, int64_t beyond, const float* x, float* y)
{
    for (int64_t i = first; i < beyond; ++i) {
        int64_t r = 0;
        for (; r + 4 <= w.bh; r += 4) dots(w, i, r, 4, x, y);
        for (; r < w.bh; ++r) dots(w, i, r, 1, x, y);
    }
}

void bsr_vector(int64_t m, int64_t k, int64_t bh, int64_t bw, const int32_t* offsets, const int32_t* columns,
                const item* values, const int64_t* shares, int64_t threads, const item* x, item* y, float* room)
{
    const float* xs = widened(x, k, room);
    float* sums = sums_of(y, room, k);
    Blocks w = {bh, bw, offsets, columns, values};
    EACH_THREAD(threads, t) times_rows(w, shares[t], shares[t + 1], xs, sums);
    narrowed(sums, m, y);
}
