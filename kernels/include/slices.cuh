// slices.cuh: rows of W as lists, cut in slices that a warp walks with coalesced loads.
//
// A slice is ROWS rows of W. A walker, LANES lanes side by side, walks one list; SPLITS walkers share a row and their
// sums are added by shuffles. In one step each walker takes ENTRIES entries, and what a warp takes lies together:
//
//   values   ELEMENT [steps][WALKERS][ENTRIES]  slice after slice; 0 in the padding
//   columns  COLUMN  [steps][WALKERS][ENTRIES]  where the rows of X stand that they meet
//   rows     int     [slices][ROWS]             the row of Y, or its place in its band; -1 where the slice has none
//
// So a step is one line of values and half a line of columns, whatever the lengths of the rows. Interleaved slices of
// rows sorted by length are SELL-C-sigma (Kreutzer et al., arXiv 1307.6209); walkers that split a row are ours.
//
// A lane sums VECTOR columns and holds AHEAD steps in registers: the next entries are on their way while these are added.

#pragma once

#include "elements.cuh"

constexpr int LANES = COLUMNS / VECTOR, WALKERS = 32 / LANES, ROWS = WALKERS / SPLITS;
static_assert(LANES * VECTOR == COLUMNS && WALKERS * LANES == 32 && ROWS * SPLITS == WALKERS && ROWS >= 1,
              "a warp is ROWS x SPLITS walkers of COLUMNS / VECTOR lanes");

__device__ __forceinline__ int lane_of() { return (int)threadIdx.x % 32; }
__device__ __forceinline__ int warp_of() { return (int)threadIdx.x / 32; }

// What this lane is in its warp.
__device__ __forceinline__ int first_column() { return lane_of() % LANES * VECTOR; }
__device__ __forceinline__ int walker() { return lane_of() / LANES; }
__device__ __forceinline__ int row_in_slice() { return walker() / SPLITS; }
__device__ __forceinline__ bool holds_sums() { return walker() % SPLITS == 0; }

struct Entries {
    Vector<ELEMENT, ENTRIES> values;
    Vector<COLUMN, ENTRIES> columns;
};

// One walker's way through a slice. `X::at(column)` gives VECTOR activations in this lane's columns.
struct Walk {
    const ELEMENT* values;
    const COLUMN* columns;
    Entries ahead[AHEAD];
    float sums[VECTOR];
    int step, end;

    __device__ __forceinline__ Walk(const ELEMENT* all_values, const COLUMN* all_columns)
        : values(all_values + walker() * ENTRIES), columns(all_columns + walker() * ENTRIES), step(0), end(0)
    {
        clear();
    }

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) sums[v] = 0.0f;
    }

    // `at_step` is the same in all lanes of the warp.
    __device__ __forceinline__ void take(Entries& to, int at_step)
    {
        size_t at = (size_t)at_step * (WALKERS * ENTRIES);
        to.values = load<ELEMENT, ENTRIES>(values + at);
        to.columns = load<COLUMN, ENTRIES>(columns + at);
    }

    // Sets out on steps first .. last - 1; sums go on.
    __device__ __forceinline__ void start(int first, int last)
    {
        step = first;
        end = last;
#pragma unroll
        for (int i = 0; i < AHEAD; ++i)
            if (step + i < end)
                take(ahead[i], step + i);
    }

    // Adds all steps before `to`, which is the end or a multiple of AHEAD after the start.
    template <typename X>
    __device__ __forceinline__ void until(int to, const X& x)
    {
#pragma unroll 1
        for (; step < to; step += AHEAD)
#pragma unroll
            for (int i = 0; i < AHEAD; ++i)
                if (step + i < to) {
                    add(ahead[i], x);
                    if (step + i + AHEAD < end)
                        take(ahead[i], step + i + AHEAD);
                }
    }

    template <typename X>
    __device__ __forceinline__ void add(const Entries& entries, const X& x)
    {
        // Four gathers under way at a time: eight of 16 bytes would take half of a full block's registers.
#pragma unroll
        for (int first = 0; first < ENTRIES; first += 4) {
            Vector<ELEMENT, VECTOR> activations[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) activations[e] = x.at(entries.columns.at[first + e]);
#pragma unroll
            for (int e = 0; e < 4; ++e)
#pragma unroll
                for (int v = 0; v < VECTOR; ++v)
                    sums[v] += to_float(entries.values.at[first + e]) * to_float(activations[e].at[v]);
        }
    }

    // All lanes of a row hold its whole sums afterwards.
    __device__ __forceinline__ void join()
    {
#pragma unroll
        for (int apart = LANES; apart < LANES * SPLITS; apart *= 2)
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) sums[v] += __shfl_xor_sync(0xffffffffu, sums[v], apart);
    }
};

// Where a slice's steps begin: the same number of them in each (condensed), or listed, one start a slice and part.
struct Even {
    int steps;
    __device__ __forceinline__ int start(int slice) const { return slice * steps; }
};

struct Listed {
    const int* starts;
    __device__ __forceinline__ int start(int segment) const { return starts[segment]; }
};
