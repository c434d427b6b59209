// hbs.c: Y[m, n] = W[m, k] @ X[k, n], W the sum of levels of dense blocks, all of them in one pass over Y.
//
//   levels   one struct a level, coarse to fine:
//     bh, bw   int64                     rows and columns of its blocks; they divide those of the level before
//     offsets  int32 [m / bh + 1]        never falling; block row i owns blocks offsets[i] .. offsets[i + 1] - 1
//     columns  int32 [blocks]            0 <= columns < k / bw
//     values   float [blocks, bh, bw]    row-major
//   x        float [k, n]              row-major
//   y        float [m, n]              row-major, every entry written
//
// Tiles:    4, 2 or 1 rows of a coarsest block row x VECTORS_FOR(rows) vectors of columns. Every level adds to the same
//           sums in registers, so Y is written once and never read: a level of higher blocks to all rows of the tile at
//           once, a level of lower blocks row by row or pair by pair.
// Demands:  at least one level; blocks of the first divide m x k; n >= 1.
// Moves:    per level what bsr.c moves for it, but 4 * m * n of Y only once.
// Ladder:   1 all levels into one tile (this)   2 X packed strip by strip for n > 64
// Source:   own; the pattern is that of HBsNN (arXiv 1808.03420, section 2.3).

#include "block_dots.h"
#include "block_rows.h"

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

INLINE void add_level(Rows sums, Blocks w, int64_t row, int rows, Strip strip)
{
    if (w.bh % rows == 0) add_rows(sums, w, row / w.bh, row % w.bh, rows, strip);
    else if (rows == 4 && w.bh == 2)
        UNROLL for (int j = 0; j < 4; j += 2) add_rows(sums + j, w, (row + j) / 2, 0, 2, strip);
    else UNROLL for (int j = 0; j < rows; ++j) add_rows(sums + j, w, row + j, 0, 1, strip);
}

INLINE void times_strip(Levels levels, int64_t m, int rows, Strip strip)
{
    for (int64_t row = 0; row < m; row += rows) {
        Sums sums;
        clear(sums, rows, strip);
        for (const Blocks* w = levels.first; w < levels.first + levels.count; ++w) {
            Blocks narrow = *w;
            narrow.bw = 1;  // as a literal: one loop less for the commonest levels, 4x1 and 1x1
            if (rows == 4 && w->bw == 1) add_level(sums, narrow, row, rows, strip);
            else add_level(sums, *w, row, rows, strip);
        }
        UNROLL for (int j = 0; j < rows; ++j) store_row(sums[j], strip.y + (row + j) * strip.n, strip);
    }
}

static void times_vector(Levels levels, int64_t m, int rows, const float* x, float* y)
{
    for (int64_t row = 0; row < m; row += rows) {
        float sums[4] = {0};
        for (const Blocks* w = levels.first; w < levels.first + levels.count; ++w) {
            if (rows == 4 && w->bh % 4 == 0) add_dots(sums, *w, row / w->bh, row % w->bh, 4, x);
            else for (int j = 0; j < rows; ++j) add_dots(sums + j, *w, (row + j) / w->bh, (row + j) % w->bh, 1, x);
        }
        for (int j = 0; j < rows; ++j) y[row + j] = sums[j];
    }
}

#define TILE_OF(rows, vectors, last, n0) times_strip(levels, m, rows, (Strip){x + (n0), y + (n0), n, vectors, last})
#define TILE_4(vectors, last, n0) TILE_OF(4, vectors, last, n0)
#define TILE_2(vectors, last, n0) TILE_OF(2, vectors, last, n0)
#define TILE_1(vectors, last, n0) TILE_OF(1, vectors, last, n0)

void hbs_f32(int64_t m, int64_t count, const Blocks* first, int64_t n, const float* x, float* y)
{
    Levels levels = {first, count};
    int rows = rows_together(levels);
    if (n == 1) times_vector(levels, m, rows, x, y);
    else if (rows == 4) FOR_COLUMNS(VECTORS_FOR(4), n, TILE_4);
    else if (rows == 2) FOR_COLUMNS(VECTORS_FOR(2), n, TILE_2);
    else FOR_COLUMNS(VECTORS_FOR(1), n, TILE_1);
}
