// csr.cuda: Y[m, n] = W[m, k] @ X[k, n], W in compressed sparse rows, taken in slices of rows of about one length.
//
//   values   ELEMENT [steps][WALKERS][ENTRIES]  the lists of slices of rows, longest first, interleaved (slices.cuh)
//   columns  COLUMN  [steps][WALKERS][ENTRIES]  where the rows of X that they meet stand in the slab (slab.cuh); columns
//                                               of W for csr_direct
//   rows     int     [slices][ROWS]             the row of Y of each list; its place in the band if BANDED; -1: none
//   starts   int     [slices + 1]               the first step of each slice; EVICT: [slices * PARTS + 1], of each part
//   ready    int     [slices][PARTS - 1]        unless EVICT: the step that each part of X but the last lets it walk to
//   dead     int     [dead_rows]                the rows of Y that W leaves empty; none if BANDED
//   x        ELEMENT [k, n], BATCH: [n, k]      row-major
//   y        ELEMENT [m, n], BANDED: [n, m]     row-major, every entry written; [m, 1] and [1, m] are the same
//
// Threads:  32 * WARPS. csr_slab: grid (bands at most, ceil(n / COLUMNS)); csr_direct: (ceil(slices / WARPS),
//           ceil(n / COLUMNS)). LANES threads x VECTOR columns are a walker, SPLITS walkers a row.
// Demands:  n a multiple of STORE (m if BANDED), of COPY bytes, and of VECTOR for csr_direct; k of RUN if BATCH.
// Moves:    values and columns, padding included, once for each slab of columns; k * COLUMNS of X into each block; Y once.
// Ladder:   1 slices by length, a slab in shared memory (this)   2 rows far longer than the others split over warps
// Source:   own; rows in order of length are Sputnik's row swizzle (Gale et al., arXiv 2006.10901, section 5.1.3).

#include "slice_product.cuh"

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
csr_slab(const ELEMENT* __restrict__ values, const COLUMN* __restrict__ columns, const int* __restrict__ rows,
         const int* __restrict__ starts, const int* __restrict__ ready, const int* __restrict__ dead,
         const ELEMENT* __restrict__ x, ELEMENT* __restrict__ y, int m, int k, int n, int slices, int dead_rows, int steps,
         int bands, int turns, int band_rows, int capacity, int part_rows)
{
    Weights w = {values, columns, rows, ready, dead, slices, dead_rows};
    slab_product(w, Listed{starts}, Matrices{x, y, m, k, n}, Shares{bands, turns, band_rows}, capacity, part_rows);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
csr_direct(const ELEMENT* __restrict__ values, const COLUMN* __restrict__ columns, const int* __restrict__ rows,
           const int* __restrict__ starts, const int* __restrict__ dead, const ELEMENT* __restrict__ x,
           ELEMENT* __restrict__ y, int m, int k, int n, int slices, int dead_rows)
{
    Weights w = {values, columns, rows, nullptr, dead, slices, dead_rows};
    direct_product(w, Listed{starts}, Matrices{x, y, m, k, n});
}
