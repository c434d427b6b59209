// hbs.c at n = 1: y[m] = W[m, k] @ x[k], W the sum of levels of dense blocks, all of them in one pass over y. Products
// with more columns go to ../_product.c.
//
//   levels   one struct a level, coarse to fine:
//     bh, bw   int64                     rows and columns of its blocks; they divide those of the level before
//     offsets  int32 [m / bh + 1]        never falling; block row i owns blocks offsets[i] .. offsets[i + 1] - 1
//     columns  int32 [blocks]            0 <= columns < k / bw
//     values   items [blocks, bh, bw]    row-major
//   x        items [k]
//   y        items [m]                 every entry written
//   adds     int64                     whether y is added to, not written
//   shares   int64 [threads + 1]  thread t has block rows of the first level shares[t] .. shares[t + 1] - 1
//   room     float [k + m, both up to whole vectors]  where items have 16 bits, else unused
//
// Tiles:    4, 2 or 1 rows of a coarsest block row; every level adds to the same sums.
// Demands:  at least one level; blocks of the first divide m x k; items of 32 bits where y is added to.
// Moves:    per level what bsr.c moves for it.
// Source:   own; the pattern is that of HBsNN (arXiv 1808.03420, section 2.3).

#include "block_dots.h"
#include "threads.h"

typedef struct {
    const Blocks* first;
    int64_t count;
} Levels;

// Rows that a tile can hold: it lies in one block row of the coarsest level, and block rows of each other level either
// cover it or cut it into equal parts.
static int rows_together(Levels levels)
{
    for (int rows = 4; rows > 1; rows /= 2) {
        int64_t fits = levels.first[0].bh % rows == 0;
        for (int64_t l = 1; l < levels.count; ++l) {
            int64_t bh = levels.first[l].bh;
            fits &= bh % rows == 0 || rows % bh == 0;
        }
        if (fits) return rows;
    }
    return 1;
}

static void times_rows(Levels levels, int64_t first, int64_t beyond, int rows, int adds, const float* x, float* y)
{
    for (int64_t row = first; row < beyond; row += rows) {
        float sums[4] = {0};
        for (int j = 0; adds && j < rows; ++j) sums[j] = y[row + j];
        for (const Blocks* w = levels.first; w < levels.first + levels.count; ++w) {
            if (rows == 4 && w->bh % 4 == 0) add_dots(sums, *w, row / w->bh, row % w->bh, 4, x);
            else for (int j = 0; j < rows; ++j) add_dots(sums + j, *w, (row + j) / w->bh, (row + j) % w->bh, 1, x);
        }
        for (int j = 0; j < rows; ++j) y[row + j] = sums[j];
    }
}

void hbs_vector(int64_t m, int64_t k, int64_t count, const Blocks* first, int64_t adds, const int64_t* shares,
                int64_t threads, const item* x, item* y, float* room)
{
    Levels levels = {first, count};
    const float* xs = widened(x, k, room);
    float* sums = sums_of(y, room, k);
    int rows = rows_together(levels);
    EACH_THREAD(threads, t)
    times_rows(levels, shares[t] * first->bh, shares[t + 1] * first->bh, rows, (int)adds, xs, sums);
    narrowed(sums, m, y);
}
