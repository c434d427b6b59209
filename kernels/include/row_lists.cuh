// row_lists.cuh: rows of W held in registers while a warp walks the lists of entries that they share.
//
// A list serves Height neighbouring rows of a group: entry i is one offset and Height values. Its length is a multiple of
// four (the last entry again, times 0), and it starts at a multiple of four entries, so four offsets are one load.
//
// The lists that a thread block walks in one go are a region:
//
//   regions  int [regions + 1][2]        where the offsets of a region and its values start
//   starts   int [regions][lists + 1][2] the same of each list in its region, warp after warp, level after level, and
//                                        where the last one ends
//   offsets  Offset [entries]            where its activation stands, counted from a pixel's own start
//   values   Value [entries][Height]     list after list
//
// All lanes read the same entry (one broadcast) and each its own pixels. A step of four entries costs Height * Count * 4
// multiply-adds a lane, 4 * Count loads of activations, Height or so of values and one of offsets.
//
// `Pixels` says where activations come from: Count = SLOTS * WIDE of them a lane, and
//   void take(float (&to)[WIDE], int offset, int slot)
//
// Template parameters are spelled Rows, not ROWS, which bodies define as macros.

#pragma once

#include "elements.cuh"

// Height values of each of four entries: together they are whole vectors of four, whatever Height is.
template <int Height, typename Value>
__device__ __forceinline__ void take_values(float (&to)[4 * Height], const Value* from)
{
#pragma unroll
    for (int i = 0; i < Height; ++i) {
        Vector<Value, 4> four = load<Value, 4>(from + 4 * i);
#pragma unroll
        for (int j = 0; j < 4; ++j) to[4 * i + j] = to_float(four.at[j]);
    }
}

// sums[First .. First + Height) += one list times this lane's pixels.
template <int First, int Height, int Rows, int Count, typename Offset, typename Value, typename Pixels>
__device__ __forceinline__ void add_list(float (&sums)[Rows][Count], const Offset* offsets, const Value* values,
                                         int entries, const Pixels& pixels)
{
#pragma unroll 1
    for (int i = 0; i < entries; i += 4) {
        Vector<Offset, 4> at = load<Offset, 4>(offsets + i);
        float w[4 * Height];
        take_values<Height>(w, values + i * Height);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int slot = 0; slot < Pixels::SLOTS; ++slot) {
                float x[Pixels::WIDE];
                pixels.take(x, at.at[j], slot);
#pragma unroll
                for (int r = 0; r < Height; ++r)
#pragma unroll
                    for (int p = 0; p < Pixels::WIDE; ++p)
                        sums[First + r][slot * Pixels::WIDE + p] += w[j * Height + r] * x[p];
            }
    }
}

// Where the lists of this warp's group are: `starts` points at its first segment.
template <typename Offset, typename Value>
struct Lists {
    const int* starts;
    const Offset* offsets;
    const Value* values;
};

// All lists of one level, rows [0, Rows) of the group, Height at a time.
template <int Height, int First = 0, int Rows, int Count, typename Offset, typename Value, typename Pixels>
__device__ __forceinline__ void add_level(float (&sums)[Rows][Count], Lists<Offset, Value>& lists,
                                          const Pixels& pixels)
{
    static_assert(Rows % Height == 0, "the height of a level divides the height of a group");
    const int first = lists.starts[0];
    add_list<First, Height>(sums, lists.offsets + first, lists.values + lists.starts[1], lists.starts[2] - first,
                            pixels);
    lists.starts += 2;
    if constexpr (First + Height < Rows) add_level<Height, First + Height>(sums, lists, pixels);
}

// Heights of levels are one number, a byte a level, the coarsest lowest: 16, 4 and 1 are 0x010410.
using Heights = unsigned long long;

// All levels of a group, coarse to fine, into the same sums.
template <Heights Of, int Rows, int Count, typename Offset, typename Value, typename Pixels>
__device__ __forceinline__ void add_levels(float (&sums)[Rows][Count], Lists<Offset, Value>& lists,
                                           const Pixels& pixels)
{
    add_level<(int)(Of & 255)>(sums, lists, pixels);
    if constexpr (Of >> 8 != 0) add_levels<(Of >> 8)>(sums, lists, pixels);
}

// Lists of a group: Rows / height of each level.
template <int Rows, Heights Of>
constexpr int lists_of = Rows / (int)(Of & 255) + lists_of<Rows, (Of >> 8)>;
template <int Rows>
constexpr int lists_of<Rows, 0> = 0;

template <int Rows, int Count>
__device__ __forceinline__ void clear(float (&sums)[Rows][Count])
{
#pragma unroll
    for (int r = 0; r < Rows; ++r)
#pragma unroll
        for (int p = 0; p < Count; ++p) sums[r][p] = 0.0f;
}
