// condensed.cuda: Y[m, n] = W[m, k] @ X[k, n], W with the same f nonzeros in each live row and none in the others.
//
//   values   ELEMENT [steps][WALKERS][ENTRIES]  the lists of slices of live rows, interleaved (slices.cuh)
//   columns  COLUMN  [steps][WALKERS][ENTRIES]  where the rows of X that they meet stand in the slab (slab.cuh); columns
//                                               of W for condensed_direct
//   rows     int     [slices][ROWS]             the row of Y of each list; its place in the band if BANDED; -1: none
//   starts   int     [slices * PARTS + 1]       EVICT alone: the first step of each slice and part
//   ready    int     [slices][PARTS - 1]        otherwise: the step that each part of X but the last lets a slice walk to
//   dead     int     [dead_rows]                the rows of Y that W leaves empty; none if BANDED
//   x        ELEMENT [k, n], BATCH: [n, k]      row-major
//   y        ELEMENT [m, n], BANDED: [n, m]     row-major, every entry written; [m, 1] and [1, m] are the same
//
// Threads:  32 * WARPS. condensed_slab: grid (bands at most, ceil(n / COLUMNS)); condensed_direct: (ceil(slices / WARPS),
//           ceil(n / COLUMNS)). LANES threads x VECTOR columns are a walker, SPLITS walkers a row.
// Demands:  n a multiple of STORE (m if BANDED), of COPY bytes, and of VECTOR for condensed_direct; k of RUN if BATCH.
// Moves:    values and columns once for each slab of columns; k * COLUMNS of X into each block; Y once.
// Ladder:   1 a slab in shared memory, filled while its first rows are multiplied (this)   2 TMA fills the slab
//           3 a cluster of blocks shares one fill
// Source:   own; the format is the condensed form of SRigL (arXiv 2305.02299, algorithm 1).

#include "slice_product.cuh"

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
condensed_slab(const ELEMENT* __restrict__ values, const COLUMN* __restrict__ columns, const int* __restrict__ rows,
               const int* __restrict__ starts, const int* __restrict__ ready, const int* __restrict__ dead,
               const ELEMENT* __restrict__ x, ELEMENT* __restrict__ y, int m, int k, int n, int slices, int dead_rows,
               int steps, int bands, int turns, int band_rows, int capacity, int part_rows)
{
    Weights w = {values, columns, rows, ready, dead, slices, dead_rows};
    Matrices a = {x, y, m, k, n};
    Shares shares = {bands, turns, band_rows};
#if EVICT
    slab_product(w, Listed{starts}, a, shares, capacity, part_rows);
#else
    slab_product(w, Even{steps}, a, shares, capacity, part_rows);
#endif
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
condensed_direct(const ELEMENT* __restrict__ values, const COLUMN* __restrict__ columns, const int* __restrict__ rows,
                 const int* __restrict__ dead, const ELEMENT* __restrict__ x, ELEMENT* __restrict__ y, int m, int k, int n,
                 int slices, int dead_rows, int steps)
{
    Weights w = {values, columns, rows, nullptr, dead, slices, dead_rows};
    direct_product(w, Even{steps}, Matrices{x, y, m, k, n});
}
