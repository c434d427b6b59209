// slice_product.cuh: a thread block's whole work, shared by csr.cuda and condensed.cuda, which differ in Steps alone.
//
// slab_product    X in shared memory (slab.cuh). Grid (shares of the rows, slabs of columns); a block fills its slab once
//                 and walks its share of the slices: those whose number is its band modulo `bands`.
// direct_product  X read from L2, a warp's lanes side by side along n. Grid (slices / WARPS, tiles of columns).
//
// Macros, all set by _slab_cut.py: ELEMENT, COLUMN; COLUMNS, VECTOR, SPLITS, ENTRIES, AHEAD, WARPS (slices.cuh);
// PARTS, EVICT, COPY, FLAT, BATCH, RUN, APART, LINE (slab.cuh); BANDED, STORE (slice_out.cuh).

#pragma once

#include "slab.cuh"
#include "slice_out.cuh"

// W as packed by _slices.py, and how it is shared out.
//   ready  int [slices][PARTS - 1]  without EVICT: the step that each part but the last lets a slice walk to
//   dead   int [dead_rows]          rows of Y without entries, unless BANDED
struct Weights {
    const ELEMENT* values;
    const COLUMN* columns;
    const int *rows, *ready, *dead;
    int slices, dead_rows;
};

// Bands share the slices: `turns` in each at most. band_rows: rows of Y in one, if BANDED.
struct Shares {
    int bands, turns, band_rows;
};

struct Matrices {
    const ELEMENT* x;
    ELEMENT* y;
    int m, k, n;
};

// Where a finished slice goes.
struct Sink {
    Output out;
    Band band;

    __device__ __forceinline__ void take(Walk& walk, int row) const
    {
        walk.join();
        if (!holds_sums() || row < 0)
            return;
        if (BANDED)
            band.keep(walk.sums, row);
        else
            out.store_row(walk.sums, row);
    }
};

// One slice, all of it: with `fills`, while parts of the slab come in, and then a warp without a slice meets the barriers.
// With EVICT each part has steps of its own; without, the parts are milestones on one way.
template <typename Steps>
__device__ __forceinline__ void walk_slice(Walk& walk, Filling& filling, const Slab& slab, const Weights& w,
                                           const Steps& steps, int slice, bool walks, bool fills, int parts)
{
    walk.clear();
    if (!EVICT && walks)
        walk.start(steps.start(slice), steps.start(slice + 1));
    if (fills)
        for (int part = 0; part < (EVICT || BATCH ? 1 : parts); ++part) filling.send(part);
    for (int part = 0; part < (fills ? parts : 1); ++part) {
        if (fills) {
            filling.land(part, EVICT ? 0 : parts - 1 - part);
            __syncthreads();  // the part of every thread is in the slab
            if (BATCH && part + 1 < parts)
                filling.send(part + 1);
        }
        if (walks) {
            if (EVICT)
                walk.start(steps.start(slice * parts + part), steps.start(slice * parts + part + 1));
            bool whole = EVICT || !fills || part + 1 == parts;
            walk.until(whole ? walk.end : w.ready[slice * (parts - 1) + part], slab);
        }
        if (EVICT && part + 1 < parts) {
            __syncthreads();  // nobody needs the part that the next one overwrites
            if (!BATCH)
                filling.send(part + 1);
        }
    }
}

template <typename Steps>
__device__ __forceinline__ void slab_product(const Weights& w, const Steps& steps, const Matrices& a,
                                             const Shares& shares, int capacity, int part_rows)
{
    extern __shared__ __align__(16) unsigned char shared[];
    ELEMENT* rows = reinterpret_cast<ELEMENT*>(shared);
    int slab_bytes = ((capacity + 1) * COLUMNS * (int)sizeof(ELEMENT) + 15) / 16 * 16;
    int first = (int)blockIdx.y * COLUMNS, parts = (a.k + part_rows - 1) / part_rows;

    Slab slab = {rows + first_column()};
    Filling filling = {rows, a.x, a.k, a.n, first, part_rows, {}};
    Sink sink = {{a.y, a.m, a.n, first}, {reinterpret_cast<ELEMENT*>(shared + slab_bytes), shares.band_rows}};
    Walk walk(w.values, w.columns);

    filling.clear_padding(capacity);
    if (!BANDED)
        sink.out.clear_rows(w.dead, w.dead_rows);
    for (int band = (int)blockIdx.x; band < shares.bands; band += (int)gridDim.x) {
        bool fills = EVICT || band == (int)blockIdx.x;
        if (band != (int)blockIdx.x)
            __syncthreads();  // the band before has left, and nobody needs its slab
        if (BANDED)
            sink.band.clear();
        if (BANDED && !fills)
            __syncthreads();  // the band is zero before sums come
        for (int turn = warp_of(); turn < shares.turns || (fills && turn < WARPS); turn += WARPS) {
            int slice = band + turn * shares.bands;
            bool walks = turn < shares.turns && slice < w.slices;
            int row = walks ? w.rows[slice * ROWS + row_in_slice()] : -1;
            walk_slice(walk, filling, slab, w, steps, slice, walks, fills && turn < WARPS, parts);
            sink.take(walk, row);
        }
        if (BANDED) {
            __syncthreads();  // all sums are in the band
            sink.band.leave(sink.out, band * shares.band_rows);
        }
    }
}

// VECTOR columns of a row of feature-major X where it lies. Needs n to be a multiple of VECTOR.
struct Far {
    const ELEMENT* x;  // at this lane's first column
    int n;

    __device__ __forceinline__ Vector<ELEMENT, VECTOR> at(int column) const
    {
        return load<ELEMENT, VECTOR>(x + column * n);
    }
};

template <typename Steps>
__device__ __forceinline__ void direct_product(const Weights& w, const Steps& steps, const Matrices& a)
{
    Output out = {a.y, a.m, a.n, (int)blockIdx.y * COLUMNS};
    out.clear_rows(w.dead, w.dead_rows);
    int slice = (int)blockIdx.x * WARPS + warp_of();
    if (slice >= w.slices)
        return;
    // Lanes past n read the last columns and store nothing.
    Far x = {a.x + min(out.first + first_column(), a.n - VECTOR), a.n};
    Walk walk(w.values, w.columns);
    walk.start(steps.start(slice), steps.start(slice + 1));
    walk.until(walk.end, x);
    walk.join();
    int row = w.rows[slice * ROWS + row_in_slice()];
    if (holds_sums() && row >= 0)
        out.store_row(walk.sums, row);
}
