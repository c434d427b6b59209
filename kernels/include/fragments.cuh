// fragments.cuh: a step of a gathered product on tensor cores, for one warp: 16 entries of a list (8 in TF32) times
// MTiles x 16 rows that share it and Columns columns of a staged X tile.
//
// Rows of X are gathered for nothing: every lane of ldmatrix names a row of its own. TF32 operands are four bytes wide,
// which ldmatrix cannot transpose; there a lane loads four neighbouring columns at once and calls them column i / 4 of
// four products, so column j of product p stands for column 4 j + p of its 32.
//
// W comes in the order of the registers, packed on the host: 16 bytes a lane for each 16 rows.
//
//   rows_of(list, lane)             what a lane keeps of a step's list
//   fetch(w, x, rows, lane, first)  operands of a step from shared memory; `first` is the warp's first column
//   add_to(sums)                    sums [MTiles][Columns / 8] of 16 x 8 += W X
//   column(product, j)              column of Y, from the warp's first, of column j of a product

#pragma once

#include "elements.cuh"

// Where a staged X tile keeps an element: rows of Columns elements, their 16-byte chunks permuted so that what is read
// together comes from different banks. 16 bits: 8 rows that differ by their number mod 8, one chunk of each. TF32: 4 rows
// that differ mod 4, two chunks of each.
template <int Columns, int ItemBytes>
struct Swizzled {
    static constexpr int PerChunk = 16 / ItemBytes, Chunks = Columns / PerChunk;
    static constexpr int RowsOfBanks = Chunks < 8 ? 8 / Chunks : 1;  // rows that 128 bytes hold

    static __device__ __forceinline__ int at(int row, int column)
    {
        int key = ItemBytes == 4 ? row % 4 * 2 : row / RowsOfBanks % (8 / RowsOfBanks);
        return row * Columns + ((column / PerChunk) ^ key) * PerChunk + column % PerChunk;
    }
};

__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, f16)
{
    multiply_add_f16(sums, a, b0, b1);
}

__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bf16)
{
    multiply_add_bf16(sums, a, b0, b1);
}

__device__ __forceinline__ void load_words(unsigned (&to)[4], const void* from)
{
    Vector<unsigned, 4> loaded = load<unsigned, 4>(static_cast<const unsigned*>(from));
#pragma unroll
    for (int i = 0; i < 4; ++i)
        to[i] = loaded.at[i];
}

// 16 bits; Split is for TF32.
template <typename T, int MTiles, int Columns, typename Place, bool Split>
struct Fragments {
    static constexpr int Step = 16;
    struct Rows {
        int at;
    };
    unsigned a[MTiles][4], b[Columns / 16][4];

    static __device__ __forceinline__ Rows rows_of(const int* list, int lane) { return {list[lane % 16]}; }

    __device__ __forceinline__ void fetch(const T* w, const T* x, Rows rows, int lane, int first)
    {
#pragma unroll
        for (int i = 0; i < Columns / 16; ++i)
            load_matrices_transposed(b[i], x + Place::at(rows.at, first + 16 * i + lane / 16 * 8));
#pragma unroll
        for (int i = 0; i < MTiles; ++i)
            load_words(a[i], w + (i * 32 + lane) * 8);
    }

    __device__ __forceinline__ void add_to(float (&sums)[MTiles][Columns / 8][4]) const
    {
#pragma unroll
        for (int i = 0; i < MTiles; ++i)
#pragma unroll
            for (int j = 0; j < Columns / 8; ++j)
                multiply_add(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T{});
    }

    static __device__ __forceinline__ int column(int product, int j) { return product * 8 + j; }
};

// What TF32 leaves of `value`, which TF32 takes again: with both, three products carry 21 bits of each factor.
__device__ __forceinline__ unsigned rest_of(float value, unsigned taken)
{
    return tf32_of_float(value - __uint_as_float(taken));
}

template <int MTiles, int Columns, typename Place, bool Split>
struct Fragments<float, MTiles, Columns, Place, Split> {
    static constexpr int Step = 8;
    struct Rows {
        int at[2];
    };
    unsigned a[MTiles][4];
    Vector<float, 4> b[Columns / 32][2];

    static __device__ __forceinline__ Rows rows_of(const int* list, int lane)
    {
        return {{list[lane % 4], list[lane % 4 + 4]}};
    }

    __device__ __forceinline__ void fetch(const float* w, const float* x, Rows rows, int lane, int first)
    {
#pragma unroll
        for (int i = 0; i < Columns / 32; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                b[i][half] = load<float, 4>(x + Place::at(rows.at[half], first + 32 * i + lane / 4 * 4));
#pragma unroll
        for (int i = 0; i < MTiles; ++i)
            load_words(a[i], w + (i * 32 + lane) * 4);
    }

    __device__ __forceinline__ void add_to(float (&sums)[MTiles][Columns / 8][4]) const
    {
        unsigned high[MTiles][4], low[MTiles][4];
#pragma unroll
        for (int i = 0; i < MTiles * 4; ++i) {
            float value = __uint_as_float(a[i / 4][i % 4]);
            high[i / 4][i % 4] = tf32_of_float(value);
            low[i / 4][i % 4] = rest_of(value, high[i / 4][i % 4]);
        }
#pragma unroll
        for (int j = 0; j < Columns / 8; ++j) {
            float x0 = b[j / 4][0].at[j % 4], x1 = b[j / 4][1].at[j % 4];
            unsigned b0 = tf32_of_float(x0), b1 = tf32_of_float(x1);
#pragma unroll
            for (int i = 0; i < MTiles; ++i) {
                if constexpr (Split) {  // small products first, so that they are not lost beside the large one
                    multiply_add_tf32(sums[i][j], low[i], b0, b1);
                    multiply_add_tf32(sums[i][j], high[i], rest_of(x0, b0), rest_of(x1, b1));
                }
                multiply_add_tf32(sums[i][j], high[i], b0, b1);
            }
        }
    }

    static __device__ __forceinline__ int column(int product, int j) { return product / 4 * 32 + 4 * j + product % 4; }
};
