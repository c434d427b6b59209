// csr.c at n = 1: y[m] = W[m, k] @ x[k], W in compressed sparse rows. Products with more columns go to ../_product.c.
//
//   offsets  int32 [m + 1]  never falling; row i is values[offsets[i]] .. values[offsets[i + 1] - 1]
//   columns  int32 [nnz]    0 <= columns < k
//   values   float [nnz]    row after row
//   x        float [k]
//   y        float [m]      every entry written
//
// Moves:    8 bytes a nonzero and 4 a row of W.
// Ladder:   1 a row at a time, four sums (this)   2 short rows taken together
// Source:   own.

#include "vector.h"

typedef struct {
    const int32_t* offsets;
    const int32_t* columns;
    const float* values;
} Csr;

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

void csr_vector_f32(int64_t m, const int32_t* offsets, const int32_t* columns, const float* values, const float* x,
                    float* y)
{
    times_vector((Csr){offsets, columns, values}, m, x, y);
}
