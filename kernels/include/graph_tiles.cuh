// graph_tiles.cuh: what the rbgp4 bodies share: which rows a block makes, and a ring of staged edges of G_o.
//
// A row of W is tile row o, and in it row (v / bh * u_i + i) * bh + v % bh, with i one of u_i inner rows and v one of
// `shared_rows` (row_repeat x bh) rows that share list i. A thread block takes a part of a tile row, INNERS lists x
// PIECES * ROWS rows of each, and TILE_N columns; its threads are SLICES groups that take the d_o edges in turn.
//
// The body defines, before it includes this: the macros ELEMENT BATCH X_BYTES TILE_K INNERS PIECES ROWS SPAN OUT SLICES
// STAGES; the constants TILE_N, THREADS, TILE_SIZE (elements of a staged X tile); and Place (staging.cuh) for that tile.

#pragma once

#include "elements.cuh"
#include "staging.cuh"

constexpr int VECTOR = 16 / sizeof(ELEMENT);
constexpr int UNITS = INNERS * PIECES;
constexpr int SLOTS = UNITS * ROWS;  // rows of a part
constexpr int OUT_PITCH = SLOTS + VECTOR;
constexpr int OUT_ROWS = BATCH ? OUT : 1, OUT_COLUMNS = BATCH ? 1 : OUT;  // of Y, stored together

struct Frame {
    int m, n, k, u_o, d_o, u_i, shared_rows, bh, entries;
};

// inner0, v0: the part's first inner row, and first of the rows that share a list. index: of its values and lists.
struct Part {
    int tile_row, inner0, v0, first_column, inner_part, index;
};

// Parts are fastest, so that blocks that run together read the same columns of X from L2.
__device__ __forceinline__ Part part_of_block(Frame f)
{
    int inner_parts = (f.u_i + INNERS - 1) / INNERS;
    int row_parts = (f.shared_rows + PIECES * ROWS - 1) / (PIECES * ROWS);
    int index = blockIdx.x % (f.u_o * inner_parts * row_parts), columns = blockIdx.x / (f.u_o * inner_parts * row_parts);
    int row_part = index % row_parts, inner_part = index / row_parts % inner_parts;
    int tile_row = index / row_parts / inner_parts;
    return {tile_row, inner_part * INNERS, row_part * PIECES * ROWS, columns * TILE_N, inner_part, index};
}

// Row of Y of inner row `inner` and sharing row `v`, or -1 where there is none.
__device__ __forceinline__ int row_of(Frame f, int tile_row, int inner, int v)
{
    if (inner >= f.u_i || v >= f.shared_rows) return -1;
    return tile_row * f.u_i * f.shared_rows + (v / f.bh * f.u_i + inner) * f.bh + v % f.bh;
}

// What a block reads for its whole life: its W, and in shared memory its lists and the tile columns of its edges.
struct Operands {
    const ELEMENT* values;
    int *list, *edges;
};

__device__ __forceinline__ Operands open_part(Frame f, Part part, const ELEMENT* values, const int* outer,
                                              const int* lists, int* room)
{
    int length = f.entries * INNERS;
    for (int i = threadIdx.x; i < length; i += THREADS)
        room[i] = lists[part.inner_part * length + i];
    for (int i = threadIdx.x; i < f.d_o; i += THREADS)
        room[length + i] = outer[part.tile_row * f.d_o + i];
    __syncthreads();
    return {values + (long long)part.index * f.d_o * f.entries * SLOTS, room, room + length};
}

// One stage of the ring: the X tiles of SLICES edges, then their W tiles.
struct Stage {
    ELEMENT *x, *w;
};

__device__ __forceinline__ Stage stage_at(ELEMENT* ring, int stage, int entries)
{
    ELEMENT* at = ring + stage % STAGES * SLICES * (TILE_SIZE + entries * SLOTS);
    return {at, at + SLICES * TILE_SIZE};
}

__device__ __forceinline__ int edges_of(Frame f, int stage)
{
    int left = f.d_o - stage * SLICES;
    return left < 0 ? 0 : left < SLICES ? left : SLICES;
}

// X of 2 bytes, batch-major, goes through registers while the stage before it is computed, if they are few.
constexpr bool THROUGH_REGISTERS = BATCH && sizeof(ELEMENT) == 2;
using Share = TransposedShare<TILE_K, TILE_N, THROUGH_REGISTERS ? X_BYTES / 2 : 1, THREADS, Place, ELEMENT>;
constexpr bool PREFETCH = THROUGH_REGISTERS && SLICES * Share::Registers <= 16;

struct Shares {
    Share of[PREFETCH ? SLICES : 1];
};

// Begins to copy the edges of `stage`, as far as there are any; what lands in `held` is for finish_stage.
__device__ __forceinline__ void begin_stage(ELEMENT* ring, int stage, Frame f, Activations<ELEMENT> in, Operands w,
                                            Shares& held)
{
    Stage to = stage_at(ring, stage, f.entries);
    int count = edges_of(f, stage), size = f.entries * SLOTS;
#pragma unroll
    for (int slice = 0; slice < SLICES; ++slice) {
        if (slice >= count) break;
        ELEMENT* tile = to.x + slice * TILE_SIZE;
        int row0 = w.edges[stage * SLICES + slice] * TILE_K;
        if constexpr (THROUGH_REGISTERS) {
            if constexpr (PREFETCH)
                held.of[PREFETCH ? slice : 0].fetch(in, row0, threadIdx.x);
            else
                Share::copy(tile, in, row0, threadIdx.x);
        } else if constexpr (BATCH) {
            stage_transposed<TILE_K, TILE_N, Place>(tile, in, row0, threadIdx.x, THREADS);
        } else {
            stage_rows<TILE_K, TILE_N, X_BYTES, Place>(tile, in, row0, threadIdx.x, THREADS);
        }
    }
    const ELEMENT* from = w.values + (long long)stage * SLICES * size;
    stage_run<16>(to.w, from, count * size / VECTOR, threadIdx.x, THREADS);
}

__device__ __forceinline__ void finish_stage(ELEMENT* ring, int stage, Frame f, const Shares& held)
{
    Stage to = stage_at(ring, stage, f.entries);
    int count = edges_of(f, stage);
#pragma unroll
    for (int slice = 0; slice < (PREFETCH ? SLICES : 0); ++slice)
        if (slice < count) held.of[slice].put(to.x + slice * TILE_SIZE, threadIdx.x);
}

// Calls add(stage, its first edge) for each stage when its copies have arrived, while later ones are on their way.
template <typename Add>
__device__ __forceinline__ void for_each_stage(ELEMENT* ring, Frame f, Activations<ELEMENT> in, Operands w, Add add)
{
    Shares held;
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        begin_stage(ring, stage, f, in, w, held);
        finish_stage(ring, stage, f, held);
        commit_copies();
    }
    int stages = (f.d_o + SLICES - 1) / SLICES;
    for (int stage = 0; stage < stages; ++stage) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        // The stage that is begun takes the place of the one before this, which all threads have left.
        begin_stage(ring, stage + STAGES - 1, f, in, w, held);
        commit_copies();
        add(stage_at(ring, stage, f.entries), stage * SLICES);
        finish_stage(ring, stage + STAGES - 1, f, held);
    }
    wait_copies<0>();
    __syncthreads();
}

// Adds the sums of all slices to those of slice 0. `partial` holds (SLICES - 1) * Count * workers floats.
template <int Count>
__device__ __forceinline__ void add_slices(float* sums, float* partial, int slice, int worker, int workers)
{
    float* mine = partial + (slice - 1) * Count * workers + worker;
#pragma unroll
    for (int i = 0; i < Count; ++i)
        if (slice > 0) mine[i * workers] = sums[i];
    __syncthreads();
    for (int other = 0; other < (slice == 0 ? SLICES - 1 : 0); ++other)
#pragma unroll
        for (int i = 0; i < Count; ++i)
            sums[i] += partial[(other * Count + i) * workers + worker];
    __syncthreads();
}

// Slot of inner row `inner` and sharing row `v` of the part: slots that follow each other are rows of Y that do, as far
// as the part goes.
__device__ __forceinline__ int slot_of(int inner, int v) { return (v / SPAN * INNERS + inner) * SPAN + v % SPAN; }

__device__ __forceinline__ int row_of_slot(Frame f, Part part, int slot)
{
    int outer = slot / SPAN;
    return row_of(f, part.tile_row, part.inner0 + outer % INNERS, part.v0 + outer / INNERS * SPAN + slot % SPAN);
}

// Batch-major Y from a tile [TILE_N, OUT_PITCH] of slots in shared memory, OUT elements of m at a time.
__device__ __forceinline__ void store_transposed(const ELEMENT* tile, ELEMENT* y, Frame f, Part part)
{
    for (int i = threadIdx.x; i < TILE_N * (SLOTS / OUT_ROWS); i += THREADS) {
        int column = i / (SLOTS / OUT_ROWS), slot = i % (SLOTS / OUT_ROWS) * OUT_ROWS;
        int row = row_of_slot(f, part, slot), n = part.first_column + column;
        if (row >= 0 && n < f.n)
            store<ELEMENT, OUT_ROWS>(y + n * f.m + row, load<ELEMENT, OUT_ROWS>(tile + column * OUT_PITCH + slot));
    }
}
