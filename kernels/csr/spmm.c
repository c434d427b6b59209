// csr.c: Y[m, n] = W[m, k] @ X[k, n], W in compressed sparse rows.
//
//   values   float    [nnz]    row after row
//   columns  int32_t  [nnz]    0 <= columns < k
//   offsets  int32_t  [m + 1]  row i is values[offsets[i]] .. values[offsets[i + 1] - 1]
//   x        float    [k, n]   row-major
//   y        float    [m, n]   row-major, every entry written
//
// Tile:     one row x 64 columns (AVX-512) in registers over the whole row of W; two nonzeros in flight, since one
//           accumulator a vector would wait for its own last FMA (4 cycles) at every step. n = 1 is a plain dot product.
// Moves:    8 * nnz + 4 * m bytes of W for every tile of columns, 4 * nnz * n of X out of the caches, 4 * m * n of Y.
// Ladder:   1 plain (this)   2 X packed in slabs of 64 columns   3 rows that share columns taken together
// Source:   own.

#include "vector.h"

#define IN_FLIGHT 8  // accumulators: two FMAs a cycle x four cycles until one is done

typedef struct {
    const float* values;
    const int32_t* columns;
    const float* x;
    int64_t n;
} Operands;

// acc[set * vectors + v] += value p * X[column p, n0 + v * LANES ...]
INLINE void add_nonzero(vec* acc, const int vectors, int last, const Operands* in, int32_t p, int64_t n0)
{
    const float* x = in->x + in->columns[p] * in->n + n0;
    float w = in->values[p];
    UNROLL for (int v = 0; v < vectors; ++v)
        acc[v] += w * load_some(x + v * LANES, lanes_of(v, vectors, last));
}

INLINE void row_tile(const int vectors, int last, const Operands* in, int32_t first, int32_t end, int64_t n0, float* y)
{
    const int sets = IN_FLIGHT / vectors;
    vec acc[IN_FLIGHT] = {0};
    int32_t p = first;
    for (; p + sets <= end; p += sets)
        UNROLL for (int set = 0; set < sets; ++set)
            add_nonzero(acc + set * vectors, vectors, last, in, p + set, n0);
    for (; p < end; ++p) add_nonzero(acc, vectors, last, in, p, n0);
    UNROLL for (int v = 0; v < vectors; ++v) {
        vec sum = acc[v];
        UNROLL for (int set = 1; set < sets; ++set) sum += acc[set * vectors + v];
        store_some(y + n0 + v * LANES, sum, lanes_of(v, vectors, last));
    }
}

// One row times one column. Four sums: with eight, short rows spend their time in the rest loop.
static float row_dot(const float* values, const int32_t* columns, int32_t count, const float* x)
{
    float sum[4] = {0};
    int32_t p = 0;
    for (; p + 4 <= count; p += 4)
        UNROLL for (int i = 0; i < 4; ++i) sum[i] += values[p + i] * pick(x, columns[p + i]);
    for (; p < count; ++p) sum[0] += values[p] * pick(x, columns[p]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void csr_f32(const float* values, const int32_t* columns, const int32_t* offsets, int64_t m, int64_t n,
             const float* x, float* y)
{
    if (n == 1) {
        for (int64_t i = 0; i < m; ++i)
            y[i] = row_dot(values + offsets[i], columns + offsets[i], offsets[i + 1] - offsets[i], x);
        return;
    }
    const Operands in = {values, columns, x, n};
#define ALL_ROWS(vectors, last, n0) \
    for (int64_t i = 0; i < m; ++i) row_tile(vectors, last, &in, offsets[i], offsets[i + 1], n0, y + i * n)
    FOR_COLUMNS(4, n, ALL_ROWS);
}
