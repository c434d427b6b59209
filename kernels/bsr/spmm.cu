// bsr.cuda: Y[m, n] = W[m, k] @ X[k, n], W in dense blocks; also one level of hbs.levels.
//
//   records  int     [units * BUNDLE][3 + lists]  row groups in the order of work (row_group.cuh)
//   columns  INDEX   [columns of all lists]       which block of columns; 16-bit where NARROW
//   values   ELEMENT [column of a block][rows]    group after group
//   x        ELEMENT [k, n], or [n, k] if BATCH   row-major
//   y        ELEMENT [m, n], or [n, m] if BATCH   row-major, every entry written, unless KEEP
//   partial  float, laid out as y                 read if ADD, written if KEEP; y itself where ELEMENT is float
//
// Threads:  grid parts * ceil(n / TILE_COLUMNS), THREADS; a warp makes BUNDLE * ROWS rows x TILE_COLUMNS columns.
// Shared:   the slab [k][TILE_COLUMNS] if SLAB, and a tile of sums a warp where lanes split lists or Y is [n, m].
// Demands:  m * k, k * n and m * n below 2**31 (32-bit offsets).
// Moves:    W once a tile of columns (from L2 but for the first time); X of a slab once a block; Y once.
// Bound:    an X element in a register serves ROWS multiply-adds, so 16-byte loads from L1 keep the multipliers busy
//           from about 4 rows on [derived].
// Ladder:   1 a warp a group (this)   2 tensor cores from 16 rows on (bsr.triton)
// Source:   own; rows in order of length are Sputnik's (arXiv 2006.10901, section 5).

#include "row_group.cuh"

// No __restrict__ on y and partial: for float they are one tensor.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
bsr_spmm(const int* __restrict__ records, const INDEX* __restrict__ columns, const ELEMENT* __restrict__ values,
         const ELEMENT* __restrict__ x, ELEMENT* y, float* partial, int units, int parts, int m, int k, int n)
{
    extern __shared__ __align__(16) unsigned char shared[];
    multiply_groups<void LEVELS>(shared, records, Streams{columns, values}, x, Output{y, partial, m, n}, units, parts, k);
}
