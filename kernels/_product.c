// Y[m, n] = W[m, k] @ X[k, n] for n > 1, W of any format: groups of rows that share lists, rows that share nothing, or
// both added up. All own formats come here; what differs between them is how their faces cut W into lists.
//
//   product   X, Y and their slabs (strips.h)
//   groups    lists of rows taken together (groups.h), or 0
//   segments  [threads] lists of single rows (segments.h), each with its own rows of Y, or 0
//   shares    int64 [threads + 1]  thread t has groups shares[t] .. shares[t + 1] - 1
//   rows      int64 [threads + 1]  and these rows of Y, where there is a slab of Y
//
// Tiles:    1 to 8 rows x up to 4 vectors of columns in registers.
// Threads:  each has its own rows, of about as many nonzeros, and packs its part of each strip of X. Two slabs take
//           turns, so that one barrier a slab is enough.
// Demands:  n >= 1; x_slab where n % LANES != 0, y_slab where segments are added to something and n % LANES != 0.
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

// Strip `strip` of rows [first, end) of X, packed by all threads where there is a slab.
static Strip with_x(const Product* p, Strip strip, int64_t first, int64_t turn, int64_t t, int64_t threads)
{
    int64_t rows = least(p->block_rows, p->k - first), step = strip.vectors * LANES;
    if (!p->x_slab) {
        strip.x += first * strip.x_step;
        return strip;
    }
    float* slab = p->x_slab + (threads > 1 ? turn % 2 : 0) * p->block_rows * p->widest * LANES;
    int64_t mine = rows * t / threads;
    int64_t end = first + rows * (t + 1) / threads;
    if (p->turned) pack_turned(strip, first + mine, end, slab + mine * step);
    else pack(strip, first + mine, end, slab + mine * step);
    meet();
    strip.x = slab;
    strip.x_step = step;
    return strip;
}

// The strip with Y's slab in place of Y, where there is one.
static Strip with_y(const Product* p, Strip strip)
{
    if (!p->y_slab) return strip;
    strip.y = p->y_slab;
    strip.y_step = strip.vectors * LANES;
    strip.last = LANES;
    return strip;
}

static void work(const Product* p, const Groups* groups, const Segments* segments, const int64_t* shares,
                 const int64_t* rows, int64_t t, int64_t threads)
{
    int64_t blocks = (p->k + p->block_rows - 1) / p->block_rows;
    for (int64_t turn = 0; turn < strips_of(p) * blocks; ++turn) {
        int64_t b = turn % blocks;
        Strip whole = strip_of(p, turn / blocks), strip = with_x(p, whole, b * p->block_rows, turn, t, threads);
        strip = with_y(p, strip);
        if (groups) times_groups(groups, b, shares[t], shares[t + 1], strip);
        if (segments) {
            int64_t per = p->block_rows / segments[t].block_rows;
            times_segments(segments + t, b * per, least((b + 1) * per, segments[t].blocks), groups != 0, strip);
        }
        if (!p->y_slab || b < blocks - 1) continue;
        if (groups) meet();  // their rows need not be neighbours
        if (p->turned) unpack_turned(whole, rows[t], rows[t + 1], p->y_slab);
        else unpack(whole, rows[t], rows[t + 1], p->y_slab);
        if (groups) meet();
    }
}

void product_f32(const Product* p, const Groups* groups, const Segments* segments, const int64_t* shares,
                 const int64_t* rows, int64_t threads)
{
    (void)threads;  // without OpenMP
#if defined(_OPENMP)
    if (threads > 1) {
#pragma omp parallel num_threads((int)threads)
        work(p, groups, segments, shares, rows, omp_get_thread_num(), threads);
        return;
    }
#endif
    work(p, groups, segments, shares, rows, 0, 1);
}

int64_t lanes(void) { return LANES; }

// Vectors that the widest strip may have where tiles are `rows` high.
int64_t vectors_for(int64_t rows) { return VECTORS_FOR(rows); }
