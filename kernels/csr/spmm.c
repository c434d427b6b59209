// csr.c: Y[m, n] = W[m, k] @ X[k, n], W in compressed sparse rows.
//
//   offsets  int32 [m + 1]  never falling; row i is values[offsets[i]] .. values[offsets[i + 1] - 1]
//   columns  int32 [nnz]    0 <= columns < k
//   values   float [nnz]    row after row
//   x        float [k, n]   row-major
//   y        float [m, n]   row-major, every entry written
//
// Tiles:    one row of W x up to 4 vectors of columns, summed in registers over the whole row; column tiles outermost,
//           so that the part of X in use (k x 64 with AVX-512) stays in the second-level cache. n = 1 is a dot product.
// Demands:  n >= 1.
// Moves:    8 bytes a nonzero and 4 a row of W for every 64 columns, 4 * m * n of Y; X at least 4 * k * n, and
//           4 * n a nonzero from the caches.
// Ladder:   1 register tiles (this)   2 X packed strip by strip for n > 64   3 rows that share columns taken together
// Source:   own.

#include "tile.h"

// Sums under way at once: two FMAs start a cycle and each takes four. A narrow strip takes several nonzeros together.
#define IN_FLIGHT 8

typedef struct {
    const int32_t* offsets;
    const int32_t* columns;
    const float* values;
} Csr;

// sums += nonzero p of W times the strip.
INLINE void add_nonzero(vec* sums, Csr w, int64_t p, Strip strip)
{
    vec xs[4];
    load_strip(xs, strip.x + w.columns[p] * strip.n, strip);
    UNROLL for (int v = 0; v < strip.vectors; ++v) sums[v] += w.values[p] * xs[v];
}

INLINE void times_strip(Csr w, int64_t m, Strip strip)
{
    const int sets = IN_FLIGHT / strip.vectors;
    for (int64_t i = 0; i < m; ++i) {
        vec sums[IN_FLIGHT] = {0};
        int64_t p = w.offsets[i], end = w.offsets[i + 1];
        for (; p + sets <= end; p += sets)
            UNROLL for (int s = 0; s < sets; ++s) add_nonzero(sums + s * strip.vectors, w, p + s, strip);
        for (; p < end; ++p) add_nonzero(sums, w, p, strip);
        UNROLL for (int s = 1; s < sets; ++s)
            UNROLL for (int v = 0; v < strip.vectors; ++v) sums[v] += sums[s * strip.vectors + v];
        store_row(sums, strip.y + i * strip.n, strip);
    }
}

// Four sums: with eight, short rows spend their time in the rest loop.
static void times_vector(Csr w, int64_t m, const float* x, float* y)
{
    for (int64_t i = 0; i < m; ++i) {
        float sums[4] = {0};
        int64_t p = w.offsets[i], end = w.offsets[i + 1];
        for (; p + 4 <= end; p += 4)
            UNROLL for (int s = 0; s < 4; ++s) sums[s] += w.values[p + s] * pick(x, w.columns[p + s]);
        for (; p < end; ++p) sums[0] += w.values[p] * pick(x, w.columns[p]);
        y[i] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

#define TILE(vectors, last, n0) times_strip(w, m, (Strip){x + (n0), y + (n0), n, vectors, last})

void csr_f32(int64_t m, const int32_t* offsets, const int32_t* columns, const float* values, int64_t n,
             const float* x, float* y)
{
    Csr w = {offsets, columns, values};
    if (n == 1) times_vector(w, m, x, y);
    else FOR_COLUMNS(4, n, TILE);
}
