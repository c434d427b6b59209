// hbs.cuda: Y[m, n] = W[m, k] @ X[k, n], W the sum of levels of dense blocks, all of them in one launch into one sum.
//
//   records  int     [units * BUNDLE][3 + lists]  row groups in the order of work (row_group.cuh)
//   columns  INDEX   [columns of all lists]       which block of columns of its level; 16-bit where NARROW
//   values   ELEMENT [column of a block][rows]    group after group, in a group level after level
//   x        ELEMENT [k, n], or [n, k] if BATCH   row-major
//   y        ELEMENT [m, n], or [n, m] if BATCH   row-major, every entry written
//
// Threads:  grid parts * ceil(n / TILE_COLUMNS), THREADS; a warp makes BUNDLE * ROWS rows x TILE_COLUMNS columns.
// Groups:   ROWS rows of one coarsest block row. A level of higher blocks gives a group one list; a level of lower
//           blocks gives it ROWS / rows, walked as one run of steps, each added to the rows it belongs to.
// Shared:   the slab [k][TILE_COLUMNS] if SLAB, and a tile of sums a warp where lanes split lists or Y is [n, m].
// Demands:  m * k, k * n and m * n below 2**31 (32-bit offsets).
// Moves:    W once a tile of columns; X of a slab once a block; Y once: the launch a level of hbs.levels, and its
//           reading and writing of sums between levels, are what this saves.
// Source:   own; the pattern is that of HBsNN (arXiv 1808.03420, section 2.3).

#include "row_group.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1)
hbs_spmm(const int* __restrict__ records, const INDEX* __restrict__ columns, const ELEMENT* __restrict__ values,
         const ELEMENT* __restrict__ x, ELEMENT* __restrict__ y, int units, int parts, int m, int k, int n)
{
    extern __shared__ __align__(16) unsigned char shared[];
    multiply_groups<void LEVELS>(shared, records, Streams{columns, values}, x, Output{y, nullptr, m, n}, units, parts, k);
}
