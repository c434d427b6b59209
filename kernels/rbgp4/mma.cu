// rbgp4.mma: Y = W X on tensor cores, W a product of two sparse and two complete graphs.
//
//   values  ELEMENT [u_o, parts, d_o, STEPS, UNITS, ROWS / 16, 32, 16 bytes]  in the order of mma's registers
//   outer   int     [u_o, d_o]                            tile columns next to each tile row
//   lists   int     [inner_parts, STEPS, INNERS, Step]    columns within a tile, dealt against bank conflicts
//   x       ELEMENT feature [k, n], batch [n, k]          row-major
//   y       ELEMENT feature [m, n], batch [n, m]          row-major, every entry written
//
// Threads:  grid as rbgp4.cuda (graph_tiles.cuh); block 32 x WARPS x UNITS x SLICES. A warp sums ROWS rows of one list x
//           WARP_N columns; the WARPS warps of a unit stand side by side. Operands of a step are fetched while the step
//           before is multiplied; edges arrive in a ring of STAGES.
// Shared:   the ring: X tiles [TILE_K, TILE_N], their 16-byte chunks swizzled (fragments.cuh), and W tiles; lists and
//           edges; at the end the partial sums, then Y's tile, through which both layouts store OUT elements at a time.
// Demands:  ROWS 16, 32 or 64, WARP_N a multiple of 16 (32 for float); m * k, k * n and m * n below 2**31.
// Moves:    W once for every TILE_N columns; X (1 - outer sparsity) u_o parts times, from L2; Y once.
// Bound:    L2 sees rows of the part x (1 - inner sparsity) FLOP a byte of X (16 bits), shared memory
//           2 ROWS WARP_N / (ROWS + WARP_N) / 2 a byte, so 64 x 64 a warp where registers allow: 32 FLOP a byte.
//           mma.sync does not reach the dense rate of sm_90's wgmma; how far it comes is to be measured.
// Macros:   ELEMENT ROWS WARP_N WARPS INNERS PIECES SLICES STAGES STEPS TILE_K BATCH X_BYTES SPAN OUT, and
//           SPLIT (1: three TF32 products)
// Ladder:   1 mma.sync on gathered rows (this)   2 wgmma where bw is a multiple of 8, its descriptors naming block columns
// Source:   own; the structure is RBGP4's (arXiv 2006.13486).

#include "elements.cuh"
#include "fragments.cuh"
#include "staging.cuh"

constexpr int TILE_N = WARP_N * WARPS;
constexpr int WORKERS = 32 * WARPS * INNERS * PIECES;  // threads of a slice
constexpr int THREADS = WORKERS * SLICES;
constexpr int TILE_SIZE = TILE_K * TILE_N;
using Place = Swizzled<TILE_N, sizeof(ELEMENT)>;

#include "graph_tiles.cuh"

constexpr int M_TILES = ROWS / 16, PRODUCTS = WARP_N / 8;
using Operand = Fragments<ELEMENT, M_TILES, WARP_N, Place, SPLIT>;
constexpr int STEP = Operand::Step;
constexpr int HELD = STEPS <= 8 ? STEPS : 1;  // steps whose rows stay in registers: lists are the same for all edges
constexpr int UNROLL = STEPS <= 8 ? 8 : 2;
constexpr int Y_PITCH = TILE_N + VECTOR;

// The rows of X that a lane reads in each step.
struct Gather {
    const int* list;
    int lane;
    typename Operand::Rows held[HELD];

    __device__ __forceinline__ typename Operand::Rows at(int step) const
    {
        if constexpr (STEPS <= HELD)
            return held[step];
        else
            return Operand::rows_of(list + step * INNERS * STEP, lane);
    }
};

// sums += one edge; `w` at the unit's values, `x` at the X tile.
__device__ __forceinline__ void add_edge(float (&sums)[M_TILES][PRODUCTS][4], const ELEMENT* w, const ELEMENT* x,
                                         const Gather& rows, int lane, int first)
{
    Operand now, next;
    now.fetch(w, x, rows.at(0), lane, first);
#pragma unroll UNROLL
    for (int step = 1; step < STEPS; ++step) {
        next.fetch(w + step * SLOTS * STEP, x, rows.at(step), lane, first);
        now.add_to(sums);
        now = next;
    }
    now.add_to(sums);
}

// Sums rounded into Y's tile: [SLOTS, Y_PITCH] in the order of units, or [TILE_N, OUT_PITCH] in that of slots.
__device__ __forceinline__ void keep(const float (&sums)[M_TILES][PRODUCTS][4], ELEMENT* tile, int unit, int lane,
                                     int first)
{
#pragma unroll
    for (int i = 0; i < M_TILES; ++i)
#pragma unroll
        for (int p = 0; p < PRODUCTS; ++p)
#pragma unroll
            for (int d = 0; d < 4; ++d) {
                int v = i * 16 + d / 2 * 8 + lane / 4, column = first + Operand::column(p, lane % 4 * 2 + d % 2);
                int slot = slot_of(unit / PIECES, unit % PIECES * ROWS + v);
                int at = BATCH ? column * OUT_PITCH + slot : (unit * ROWS + v) * Y_PITCH + column;
                from_float(tile[at], sums[i][p][d]);
            }
}

// Feature-major Y from its tile, OUT elements of n at a time.
__device__ __forceinline__ void store_rows(const ELEMENT* tile, ELEMENT* y, Frame f, Part part)
{
    for (int i = threadIdx.x; i < SLOTS * (TILE_N / OUT_COLUMNS); i += THREADS) {
        int at = i / (TILE_N / OUT_COLUMNS), column = i % (TILE_N / OUT_COLUMNS) * OUT_COLUMNS;
        int unit = at / ROWS, n = part.first_column + column;
        int row = row_of(f, part.tile_row, part.inner0 + unit / PIECES, part.v0 + unit % PIECES * ROWS + at % ROWS);
        if (row >= 0 && n < f.n)
            store<ELEMENT, OUT_COLUMNS>(y + row * f.n + n, load<ELEMENT, OUT_COLUMNS>(tile + at * Y_PITCH + column));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rbgp4_mma(const ELEMENT* __restrict__ values, const int* __restrict__ outer, const int* __restrict__ lists,
              const ELEMENT* __restrict__ x, ELEMENT* __restrict__ y, int m, int n, int k, int u_o, int d_o, int u_i,
              int shared_rows, int bh, int lists_at)
{
    extern __shared__ __align__(16) unsigned char shared[];
    ELEMENT* ring = reinterpret_cast<ELEMENT*>(shared);
    Frame f = {m, n, k, u_o, d_o, u_i, shared_rows, bh, STEPS * STEP};
    Part part = part_of_block(f);
    Operands w = open_part(f, part, values, outer, lists, reinterpret_cast<int*>(shared + lists_at));

    int worker = threadIdx.x % WORKERS, slice = threadIdx.x / WORKERS, lane = threadIdx.x % 32;
    int first = worker / 32 % WARPS * WARP_N, unit = worker / 32 / WARPS;
    Gather rows = {w.list + unit / PIECES * STEP, lane, {}};
#pragma unroll
    for (int step = 0; step < HELD; ++step)
        rows.held[step] = Operand::rows_of(rows.list + step * INNERS * STEP, lane);

    float sums[M_TILES][PRODUCTS][4] = {};
    for_each_stage(ring, f, {x, n, k, part.first_column}, w, [&](Stage at, int first_edge) {
        if (first_edge + slice < d_o)
            add_edge(sums, at.w + (slice * STEPS * SLOTS + unit * ROWS) * STEP, at.x + slice * TILE_SIZE, rows, lane, first);
    });
    if constexpr (SLICES > 1)
        add_slices<M_TILES * PRODUCTS * 4>(&sums[0][0][0], reinterpret_cast<float*>(shared), slice, worker, WORKERS);
    if (slice == 0) keep(sums, ring, unit, lane, first);
    __syncthreads();
    if constexpr (BATCH)
        store_transposed(ring, y, f, part);
    else
        store_rows(ring, y, f, part);
}
