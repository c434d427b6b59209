// Y[m, n] = W[m, k] @ X[k, n] for n > 1, W of any format: groups of rows that share lists, rows that share nothing, or
// both added up. All own formats come here; what differs between them is how their faces cut W into lists.
//
//   product   X, Y and their slabs (strips.h)
//   groups    lists of rows taken together (groups.h), or 0
//   segments  [threads] lists of single rows (segments.h), each with its own rows of Y, or 0
//   shares    int64 [threads + 1]  thread t has groups shares[t] .. shares[t + 1] - 1
//   rows      int64 [threads + 1]  and these rows of Y, where there is a slab of Y
//
// Compiled: with LANES fewer than the machine's for few columns, with ITEM_BITS = 16 for bfloat16.
// Tiles:    1 to 8 rows x up to 4 vectors of columns in registers.
// Threads:  each has its own rows, of about as many nonzeros, and packs its part of each strip of X. Two slabs take
//           turns, so that one barrier a slab is enough.
// Demands:  n >= 1; x_slab where n % LANES != 0, y_slab where segments are added to something and n % LANES != 0; both
//           slabs where items have 16 bits.
// Moves:    W once a strip (64 columns with AVX-512); X is read once and, packed, written and read once more; Y once.
// Source:   own.

#include "groups.h"
#include "segments.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

// Waits until all threads of the product are here.
static void meet(void)
{
#if defined(_OPENMP)
#pragma omp barrier
#endif
}

// Rows first.. of X as bodies see them, packed by all threads where there is a slab.
static Strip with_x(const Product* p, Columns of, int64_t first, int64_t turn, int64_t t, int64_t threads)
{
    Strip strip = {.x_step = of.x_step,
                   .y_step = of.y_step,
                   .beside = 1,
                   .vectors = of.vectors,
                   .last = of.last,
                   .adds = (int)p->adds};
    if (!p->x_slab) {
        strip.x = floats_at(of.x + first * of.x_step);
        return strip;
    }
    int64_t rows = least(p->block_rows, p->k - first), step = of.vectors * LANES;
    float* slab = p->x_slab + (threads > 1 ? turn % 2 : 0) * p->block_rows * p->widest * LANES;
    int64_t mine = rows * t / threads;
    int64_t end = first + rows * (t + 1) / threads;
    if (p->turned) pack_turned(of, first + mine, end, slab + mine * step);
    else pack(of, first + mine, end, slab + mine * step);
    meet();
    strip.x = slab;
    strip.x_step = step;
    return strip;
}

// The strip with its rows of Y, in the slab where there is one.
static Strip with_y(const Product* p, Columns of, Strip strip)
{
    if (!p->y_slab) {
        strip.y = (float*)floats_at(of.y);
        return strip;
    }
    strip.y = p->y_slab;
    strip.y_step = strip.vectors * LANES;
    strip.last = LANES;
    strip.adds = 0;
    return strip;
}

// Y of lone rows, all strips of a row before the next row.
static void row_by_row(const Product* p, const Segments* segments)
{
    for (int64_t s = 0, wide = wide_strips_of(p); s < strips_of(p);) {
        Columns of = columns_of(p, s);
        Strip strip = with_y(p, of, with_x(p, of, 0, 0, 0, 1));
        strip.beside = s < wide ? wide : strips_of(p) - wide;
        times_segments(segments, 0, segments->blocks, strip);
        s += strip.beside;
    }
}

static void work(const Product* p, const Groups* groups, const Segments* segments, const int64_t* shares,
                 const int64_t* rows, int64_t t, int64_t threads)
{
    int64_t blocks = (p->k + p->block_rows - 1) / p->block_rows;
    for (int64_t turn = 0; turn < strips_of(p) * blocks; ++turn) {
        int64_t b = turn % blocks;
        Columns of = columns_of(p, turn / blocks);
        Strip strip = with_y(p, of, with_x(p, of, b * p->block_rows, turn, t, threads));
        strip.adds |= b > 0;
        if (groups) times_groups(groups, b, shares[t], shares[t + 1], strip);
        if (segments) {
            strip.adds |= groups != 0;
            int64_t per = p->block_rows / segments[t].block_rows;
            times_segments(segments + t, b * per, least((b + 1) * per, segments[t].blocks), strip);
        }
        if (!p->y_slab || b < blocks - 1) continue;
        if (groups) meet();  // their rows need not be neighbours
        if (p->turned) unpack_turned(of, rows[t], rows[t + 1], p->y_slab, (int)p->adds);
        else unpack(of, rows[t], rows[t + 1], p->y_slab, (int)p->adds);
        if (groups) meet();
    }
}

void product(const Product* p, const Groups* groups, const Segments* segments, const int64_t* shares,
             const int64_t* rows, int64_t threads)
{
#if defined(_OPENMP)
    if (threads > 1) {
#pragma omp parallel num_threads((int)threads)
        if (p->beside) row_by_row(p, segments + omp_get_thread_num());
        else work(p, groups, segments, shares, rows, omp_get_thread_num(), threads);
        return;
    }
#endif
    (void)threads;  // without OpenMP
    if (p->beside) row_by_row(p, segments);
    else work(p, groups, segments, shares, rows, 0, 1);
}

int64_t lanes(void) { return LANES; }

// Vectors that the widest strip may have where tiles are `rows` high.
int64_t vectors_for(int64_t rows) { return VECTORS_FOR(rows); }
