// row_group_w.cuh: W as the lists of row groups, and one group times the columns of a lane.
//
// A group is ROWS neighbouring rows. Each level of blocks gives it ROWS / rows lists: blocks of rows x width entries
// that `rows` of its rows share. A list is walked in steps of `step` columns of W; it is padded to whole steps with its
// own last block and zeros. All lists of a group follow each other in two streams, in the order in which they are read:
//
//   columns  INDEX            one a block: block b covers columns b * width and the width - 1 after it
//   values   [column][rows]   the entries of each column of a block together, so that they load together
//
// and each level's part of a stream is padded to STREAM elements, which keeps 16-byte loads aligned.
//
// Macros:  ELEMENT; ROWS; NARROW (1: INDEX is 16-bit); those of row_group_x.cuh

#pragma once

#include "row_group_x.cuh"

#if NARROW
typedef unsigned short INDEX;
#else
typedef int INDEX;
#endif

constexpr int STREAM = 8;
constexpr int SUMS = ROWS * LANE_COLUMNS;
constexpr int SPLIT = 32 / LANES;  // lanes that take turns at the steps of a list

__host__ __device__ constexpr int widest_load(int count)
{
    int width = 1;
    while (count % (2 * width) == 0 && 2 * width * (int)sizeof(ELEMENT) <= 16)
        width *= 2;
    return width;
}

// One level, as a number 0xRRWWSS: rows, width and step in a byte each. nvcc splits macros at commas.
template <int CODE>
struct Level {
    static constexpr int rows = CODE >> 16, width = CODE >> 8 & 0xff, step = CODE & 0xff;
    static constexpr int lists = ROWS / rows;
    static constexpr int blocks = step > width ? step / width : 1;          // that a step covers
    static constexpr int parts = width > step ? width / step : 1;           // steps that a block takes
    static constexpr int values = step * rows, vector = widest_load(values);
    static_assert(ROWS % rows == 0, "a list's rows must divide the group's");
    static_assert(blocks * width == step || parts * step == width, "a step is whole blocks, or a block whole steps");
};

// What one step reads of W.
template <class L>
struct Step {
    Vector<INDEX, L::blocks> blocks;
    Vector<ELEMENT, L::vector> values[L::values / L::vector];

    __device__ __forceinline__ void read(const INDEX* columns, const ELEMENT* entries, int i)
    {
        blocks = load<INDEX, L::blocks>(columns + i / L::parts * L::blocks);
#pragma unroll
        for (int v = 0; v < L::values / L::vector; ++v)
            values[v] = load<ELEMENT, L::vector>(entries + i * L::values + v * L::vector);
    }

    __device__ __forceinline__ int column(int c, int i) const
    {
        return blocks.at[c / L::width] * L::width + (L::parts > 1 ? i % L::parts * L::step + c : c % L::width);
    }

    __device__ __forceinline__ float value(int c, int row) const
    {
        const int at = c * L::rows + row;
        return to_float(values[at / L::vector].at[at % L::vector]);
    }

    // sums[rows][LANE_COLUMNS] += this step of W times the lane's columns.
    __device__ __forceinline__ void multiply(float* sums, int i, const LaneColumns& x) const
    {
#pragma unroll
        for (int c = 0; c < L::step; ++c) {
            float xs[LANE_COLUMNS];
            x.load_row(xs, column(c, i));
#pragma unroll
            for (int row = 0; row < L::rows; ++row)
#pragma unroll
                for (int j = 0; j < LANE_COLUMNS; ++j)
                    sums[row * LANE_COLUMNS + j] += value(c, row) * xs[j];
        }
    }
};

// Where a group is in the streams.
struct Streams {
    const INDEX* columns;
    const ELEMENT* values;
};

__device__ __forceinline__ int padded(int count) { return (count + STREAM - 1) / STREAM * STREAM; }

// sums += one level of the group times the lane's columns. ends[j] is the step after the last of list j, all counted
// from the level's first. The next step of W is read while this one multiplies. Lists lower than the group are one run
// of steps, whichever rows they belong to: short ones would leave most of SPLIT lanes idle, each on its own.
template <class L>
__device__ __forceinline__ void add_level(float (&sums)[SUMS], Streams& at, const int*& ends, int turn,
                                          const LaneColumns& x)
{
    int end[L::lists];
#pragma unroll
    for (int j = 0; j < L::lists; ++j)
        end[j] = ends[j];
    const int steps = end[L::lists - 1];
    Step<L> next;
    if (turn < steps) next.read(at.columns, at.values, turn);
    for (int i = turn; i < steps; i += SPLIT) {
        const Step<L> now = next;
        if (i + SPLIT < steps) next.read(at.columns, at.values, i + SPLIT);
        if constexpr (L::lists == 1) {
            now.multiply(sums, i, x);
        } else {
            float part[L::rows * LANE_COLUMNS] = {};
            now.multiply(part, i, x);
#pragma unroll
            for (int j = 0; j < L::lists; ++j)
                if ((j == 0 || i >= end[j - 1]) && i < end[j])
#pragma unroll
                    for (int s = 0; s < L::rows * LANE_COLUMNS; ++s)
                        sums[j * L::rows * LANE_COLUMNS + s] += part[s];
        }
    }
    at.columns += padded(steps / L::parts * L::blocks);
    at.values += padded(steps * L::values);
    ends += L::lists;
}
