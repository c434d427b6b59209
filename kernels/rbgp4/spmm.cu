// rbgp4.cuda: Y = W X, W a product of two sparse and two complete graphs; no index per nonzero.
//
//   values  ELEMENT [u_o, parts, d_o, entries, UNITS, ROWS]  packed by tile; absent rows and entries are zero
//   outer   int     [u_o, d_o]                               tile columns next to each tile row
//   lists   int     [inner_parts, entries / 4, INNERS, 4]    columns within a tile, of each inner row
//   x       ELEMENT feature [k, n], batch [n, k]             row-major
//   y       ELEMENT feature [m, n], batch [n, m]             row-major, every entry written
//
// Threads:  grid (parts u_o ceil(n / (LANES VECTORS EACH))), part fastest, so that blocks that run together share X in L2;
//           block LANES x UNITS x SLICES. A unit is ROWS rows of one list; a part is INNERS lists x PIECES units of each.
//           A thread sums ROWS x COLUMNS entries of Y in registers; slices take the d_o edges in turn and are added up
//           at the end (for small n, where a tile row alone has too few threads).
// Shared:   a ring of STAGES stages, each SLICES edges: their X tiles [TILE_K, PITCH] and W tiles; then the part's lists
//           and the tile row's edges, for the whole launch; at the end the partial sums, and Y's tile if batch-major.
// Demands:  entries % 4 = 0, and a W tile of whole 16-byte chunks; m * k, k * n and m * n below 2**31.
// Moves:    W once for every LANES * VECTORS * EACH columns; X (1 - outer sparsity) u_o parts times, from L2; Y once.
// Bound:    shared memory [derived]: an entry costs a warp 4 cycles of X for each 4 fp32 columns, at least 1 of W and
//           1/4 of the list, against ROWS / 4 cycles of FMA a column: 4 x 4 sums reach .76 of the FMA peak, 8 x 4 all.
// Macros:   ELEMENT ROWS LANES VECTORS EACH (columns of a shared load) INNERS PIECES SLICES STAGES TILE_K BATCH
//           X_BYTES (of a copy of X) SPAN (bh, or 1 where a part cuts through blocks) OUT (elements of a store)
// Ladder:   1 staged tiles, no index from global memory (this)   2 a persistent grid   3 TMA for the X tiles
// Source:   own; the division of labour is RBGP4's (arXiv 2006.13486).

#include "elements.cuh"
#include "staging.cuh"

constexpr int COLUMNS = EACH * VECTORS;
constexpr int TILE_N = LANES * COLUMNS;
constexpr int WORKERS = LANES * INNERS * PIECES;  // threads of a slice
constexpr int THREADS = WORKERS * SLICES;
// Transposing stores hit other banks with a pitch of an odd number of 16-byte chunks.
constexpr int PITCH = TILE_N + (BATCH ? 16 / (int)sizeof(ELEMENT) : 0);
constexpr int CHUNK = 16 / sizeof(ELEMENT), TILE_SIZE = (TILE_K * PITCH + CHUNK - 1) / CHUNK * CHUNK;
using Place = Pitched<PITCH>;

#include "graph_tiles.cuh"

constexpr int W_VECTOR = ROWS < VECTOR ? ROWS : VECTOR;

// sums += one column of W's tile, ROWS values, times one row of X's, COLUMNS elements.
__device__ __forceinline__ void add_entry(float (&sums)[ROWS][COLUMNS], const ELEMENT* w, const ELEMENT* x)
{
    float weights[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r += W_VECTOR) {
        Vector<ELEMENT, W_VECTOR> loaded = load<ELEMENT, W_VECTOR>(w + r);
#pragma unroll
        for (int i = 0; i < W_VECTOR; ++i)
            weights[r + i] = to_float(loaded.at[i]);
    }
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        Vector<ELEMENT, EACH> loaded = load<ELEMENT, EACH>(x + v * LANES * EACH);
#pragma unroll
        for (int c = 0; c < EACH; ++c)
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                sums[r][v * EACH + c] += weights[r] * to_float(loaded.at[c]);
    }
}

// sums += all entries of one edge; `w` at the unit's values, `x` at the lane's columns, `list` at the inner row's.
__device__ __forceinline__ void add_edge(float (&sums)[ROWS][COLUMNS], const ELEMENT* w, const ELEMENT* x,
                                         const int* list, int entries)
{
#pragma unroll 2
    for (int e = 0; e < entries; e += 4) {
        Vector<int, 4> rows = load<int, 4>(list + e * INNERS);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            add_entry(sums, w + (e + i) * SLOTS, x + rows.at[i] * PITCH);
    }
}

// Feature-major: each thread stores its rows, OUT elements at a time.
__device__ __forceinline__ void store_rows(const float (&sums)[ROWS][COLUMNS], ELEMENT* y, Frame f, Part part,
                                           int inner, int v, int lane)
{
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        int row = row_of(f, part.tile_row, inner, v + r);
#pragma unroll
        for (int c = 0; c < COLUMNS; c += OUT_COLUMNS) {
            int column = part.first_column + (c / EACH * LANES + lane) * EACH + c % EACH;
            float out[OUT_COLUMNS];
#pragma unroll
            for (int i = 0; i < OUT_COLUMNS; ++i)
                out[i] = sums[r][c + i];
            if (row >= 0 && column < f.n) store_rounded<ELEMENT, OUT_COLUMNS>(y + row * f.n + column, out);
        }
    }
}

// Batch-major: sums meet in shared memory, [TILE_N, OUT_PITCH], and leave along m, OUT elements at a time.
__device__ __forceinline__ void keep_transposed(const float (&sums)[ROWS][COLUMNS], ELEMENT* tile, int inner, int v,
                                                int lane)
{
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            int column = (c / EACH * LANES + lane) * EACH + c % EACH;
            from_float(tile[column * OUT_PITCH + slot_of(inner, v + r)], sums[r][c]);
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rbgp4_spmm(const ELEMENT* __restrict__ values, const int* __restrict__ outer, const int* __restrict__ lists,
               const ELEMENT* __restrict__ x, ELEMENT* __restrict__ y, int m, int n, int k, int u_o, int d_o, int u_i,
               int shared_rows, int bh, int entries, int lists_at)
{
    extern __shared__ __align__(16) unsigned char shared[];
    ELEMENT* ring = reinterpret_cast<ELEMENT*>(shared);
    Frame f = {m, n, k, u_o, d_o, u_i, shared_rows, bh, entries};
    Part part = part_of_block(f);
    Operands w = open_part(f, part, values, outer, lists, reinterpret_cast<int*>(shared + lists_at));

    int worker = threadIdx.x % WORKERS, slice = threadIdx.x / WORKERS;
    int lane = worker % LANES, unit = worker / LANES, inner = unit / PIECES, v = unit % PIECES * ROWS;
    float sums[ROWS][COLUMNS] = {};
    for_each_stage(ring, f, {x, n, k, part.first_column}, w, [&](Stage at, int first_edge) {
        if (first_edge + slice < d_o)
            add_edge(sums, at.w + (slice * entries * UNITS + unit) * ROWS, at.x + slice * TILE_SIZE + lane * EACH,
                     w.list + inner * 4, entries);
    });
    if constexpr (SLICES > 1)
        add_slices<ROWS * COLUMNS>(&sums[0][0], reinterpret_cast<float*>(shared), slice, worker, WORKERS);
    if constexpr (BATCH) {
        if (slice == 0) keep_transposed(sums, ring, inner, v, lane);
        __syncthreads();
        store_transposed(ring, y, f, part);
    } else if (slice == 0) {
        store_rows(sums, y, f, part, part.inner0 + inner, part.v0 + v, lane);
    }
}

// Without staging, for tiles that shared memory cannot hold: W, lists and X straight from global memory. The same
// packing with INNERS = PIECES = 1; a thread sums ROWS x 1 entries of Y.
extern "C" __global__ void rbgp4_direct(const ELEMENT* __restrict__ values, const int* __restrict__ outer,
                                        const int* __restrict__ lists, const ELEMENT* __restrict__ x,
                                        ELEMENT* __restrict__ y, int m, int n, int k, int u_o, int d_o, int u_i,
                                        int shared_rows, int bh, int entries, int units)
{
    Frame f = {m, n, k, u_o, d_o, u_i, shared_rows, bh, entries};
    int column = blockIdx.x / units * blockDim.x + threadIdx.x, unit = blockIdx.x % units;
    int pieces = (shared_rows + ROWS - 1) / ROWS, tile_row = unit / (u_i * pieces), inner = unit / pieces % u_i;
    if (column >= n) return;

    float sums[ROWS] = {};
    for (int j = 0; j < d_o; ++j)
        for (int e = 0; e < entries; ++e) {
            int row = outer[tile_row * d_o + j] * TILE_K + lists[inner * entries + e];
            float at = to_float(BATCH ? x[column * k + row] : x[row * n + column]);
            for (int r = 0; r < ROWS; ++r)
                sums[r] += to_float(values[(((long long)unit * d_o + j) * entries + e) * ROWS + r]) * at;
        }
    for (int r = 0; r < ROWS; ++r) {
        int row = row_of(f, tile_row, inner, unit % pieces * ROWS + r);
        if (row >= 0) from_float(BATCH ? y[column * m + row] : y[row * n + column], sums[r]);
    }
}
