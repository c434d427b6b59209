// A convolution without im2col: Y[image, m, pixel] = sum over a row's list of value * plane[start of pixel + offset].
//
//   x        items [batch, c, h, w]
//   y        items [batch, m, oh, ow]               every entry written
//   planes   float [c, stride * stride, line]       room for the padded activations of a few images
//   groups   W; a column (c, kh, kw) is an offset into planes (groups.h with x_step 1)
//   pieces   where lanes of a strip go in Y: pieces starts[s] .. starts[s + 1] - 1 of strip s
//   shares   int64 [threads + 1]  thread t has groups shares[t] .. shares[t + 1] - 1
//
// Planes. A convolution of stride s is one of stride 1 over s x s phases, pixels of equal remainder, so strips know no
// stride. `together` images of a channel stand in one line, row after row, with zeros between: as many as the
// second-level cache holds, so that what was just copied is read from there; output pixel (oy, ox) of an image
// is position (image * rows + oy) * pitch + ox of a line, and a strip is any neighbouring positions. What falls on the
// zeros is computed in vain: 2 of 33 columns for a plane of 32.
//
// Demands:  line has WIDEST * LANES floats beyond the last position that an offset can reach.
// Moves:    W once a strip; x once, planes written once, and read about once a strip from the caches; y once.
// Source:   own.

#define INDEX int32_t
#include "groups.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

typedef struct {
    int64_t m, c, h, w, stride, padding;
    int64_t down, across;       // phases that W reaches: fewer than stride where its kernels are smaller
    int64_t together, turns;    // images in the planes; batch = together * turns
    int64_t rows, pitch, line;  // of an image in a line, of a row, of a line
    int64_t positions, widest;  // of these images; vectors of a strip
    int64_t adds;               // whether y is added to, not written
    const item* x;
    float* planes;
} Planes;

// Items 0, stride, 2 stride.. below `end` as floats.
INLINE void every(int64_t stride, const item* restrict from, int64_t end, float* restrict to)
{
    for (int64_t i = 0; i * stride < end; ++i) to[i] = widen(from[i * stride]);
}

// Phase (down, across) of channel c of images from `first` on: every stride-th row and column, zeros where x has none.
static void fill_phase(const Planes* p, int64_t first, int64_t c, int64_t down, int64_t across)
{
    float* line = p->planes + ((c * p->stride + down) * p->stride + across) * p->line;
    int64_t first_x = (across + p->stride - p->padding % p->stride) % p->stride;
    memset(line, 0, sizeof(float) * (size_t)p->line);
    for (int64_t b = 0; b < p->together; ++b)
        for (int64_t y = 0; y < p->h; ++y) {
            if ((y + p->padding) % p->stride != down) continue;
            const item* from = p->x + (((first + b) * p->c + c) * p->h + y) * p->w;
            float* to = line + (b * p->rows + (y + p->padding) / p->stride) * p->pitch;
            to += (first_x + p->padding) / p->stride;
            if (p->stride == 1) every(1, from, p->w, to);
            else if (p->stride == 2) every(2, from + first_x, p->w - first_x, to);
            else every(p->stride, from + first_x, p->w - first_x, to);
        }
}

static void meet(void)
{
#if defined(_OPENMP)
#pragma omp barrier
#endif
}

static void work(const Planes* p, const Groups* groups, const Piece* pieces, const int64_t* starts, int64_t pixels,
                 item* y, const int64_t* shares, int64_t t, int64_t threads)
{
    int64_t step = p->widest * LANES;
    for (int64_t turn = 0; turn < p->turns; ++turn, y += p->together * p->m * pixels) {
        for (int64_t c = p->c * t / threads; c < p->c * (t + 1) / threads; ++c)
            for (int64_t down = 0; down < p->down; ++down)
                for (int64_t across = 0; across < p->across; ++across)
                    fill_phase(p, turn * p->together, c, down, across);
        meet();
        for (int64_t s = 0; s * step < p->positions; ++s) {
            if (starts[s] == starts[s + 1]) continue;
            Strip strip = {.x = p->planes + s * step,
                           .x_step = 1,
                           .y_step = pixels,
                           .beside = 1,
                           .vectors = (int)least(p->widest, (p->positions - s * step + LANES - 1) / LANES),
                           .last = LANES,
                           .adds = (int)p->adds,
                           .out = y,
                           .pieces = pieces + starts[s],
                           .beyond = pieces + starts[s + 1]};
            times_groups(groups, 0, shares[t], shares[t + 1], strip);
        }
        meet();  // the planes are filled anew
    }
}

void convolution(const Planes* p, const Groups* groups, const Piece* pieces, const int64_t* starts, int64_t pixels,
                 item* y, const int64_t* shares, int64_t threads)
{
    (void)threads;  // without OpenMP
#if defined(_OPENMP)
    if (threads > 1) {
#pragma omp parallel num_threads((int)threads)
        work(p, groups, pieces, starts, pixels, y, shares, omp_get_thread_num(), threads);
        return;
    }
#endif
    work(p, groups, pieces, starts, pixels, y, shares, 0, 1);
}

int64_t lanes(void) { return LANES; }

int64_t vectors_for(int64_t rows) { return VECTORS_FOR(rows); }
