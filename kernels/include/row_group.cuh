// row_group.cuh: the work of a thread block of bsr.cuda, hbs.cuda and hbs.levels.
//
// One warp takes a bundle of row groups after another: all levels of a group are added to sums in registers, so Y is
// written once and never read. Warps never wait for each other but for the slab.
//
//   records  int [units * BUNDLE][3 + lists]  the groups in the order of work, longest bundles first: first row,
//                                                 where its columns and values start, and `ends` of each level's lists
//   parts    thread blocks that share a tile of columns; block b works on tile b / parts
//
// Macros:  LEVELS  LEVEL(0xRRWWSS) for each level, one after another; those of the headers below

#pragma once

#include "row_group_y.cuh"

#define LEVEL(code) , Level<code>

constexpr int WARPS = THREADS / 32;

__device__ __forceinline__ int slab_bytes(int k) { return (k * TILE_COLUMNS * (int)sizeof(ELEMENT) + 15) / 16 * 16; }

template <class... L>
__device__ __forceinline__ void add_group(float (&sums)[SUMS], const int* record, Streams streams, int lane,
                                          const LaneColumns& x)
{
    streams.columns += record[1];
    streams.values += record[2];
    const int* ends = record + 3;
    (add_level<L>(sums, streams, ends, lane / LANES, x), ...);
}

// The first parameter takes the place before the first comma of LEVELS.
template <class Nothing, class... L>
__device__ __forceinline__ void multiply_groups(unsigned char* shared, const int* records, Streams streams,
                                                const ELEMENT* x, const Output& out, int units, int parts, int k)
{
    constexpr int RECORD = 3 + (L::lists + ...);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int column0 = blockIdx.x / parts * TILE_COLUMNS;
    LaneColumns columns;
    if constexpr (SLAB) {
        ELEMENT* slab = reinterpret_cast<ELEMENT*>(shared);
        fill_slab(slab, x, column0, k, out.n);
        __syncthreads();
        columns = columns_in_slab(slab, lane);
    } else {
        columns = columns_in_x(x, column0, lane, k, out.n);
    }
    float* tile = reinterpret_cast<float*>(shared + (SLAB ? slab_bytes(k) : 0)) + warp * TILE_FLOATS;
    for (int unit = blockIdx.x % parts * WARPS + warp; unit < units; unit += parts * WARPS) {
        const int* record = records + unit * BUNDLE * RECORD;
        const int row0 = record[0];
#pragma unroll 1
        for (int group = 0; group < BUNDLE; ++group, record += RECORD) {
            float sums[SUMS] = {};
            add_group<L...>(sums, record, streams, lane, columns);
            if constexpr (TILED)
                lay_in_tile(tile, sums, group, lane);
            else
                store_lane(out, sums, row0, column0, lane);
        }
        if constexpr (TILED) {
            __syncwarp();
            store_tile(out, tile, row0, column0, lane);
            __syncwarp();
        }
    }
}
