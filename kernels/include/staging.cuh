// staging.cuh: tiles of X on their way from global to shared memory.
//
// A staged tile holds Rows rows of X (entries of k) and Columns columns (entries of n), n fastest, wherever X comes
// from: feature-major x [k, n] is copied row by row, batch-major x [n, k] is transposed on the way. `Place::at(row,
// column)` says where an element stands; Bytes that are copied together must be neighbours there. Columns past n become
// zero. Nothing is read past the end of x. Template parameters are spelled Rows, not ROWS, which bodies define as macros.
//
// Copies of 4 bytes and more are asynchronous: the caller commits them, waits and meets at a barrier. Copies of 2 bytes
// are plain loads and stores, since cp.async starts at 4; the same barrier makes them visible.

#pragma once

#include "elements.cuh"

// Rows of Pitch elements.
template <int Pitch>
struct Pitched {
    static __device__ __forceinline__ int at(int row, int column) { return row * Pitch + column; }
};

// What a thread block multiplies with: columns first .. first + Columns - 1 of X.
template <typename T>
struct Activations {
    const T* x;
    int n, k, first;
};

// `bytes` of X into shared memory, or zeros where `inside` is false.
template <int Bytes, typename T>
__device__ __forceinline__ void copy_or_clear(T* to, const T* from, const T* valid, bool inside)
{
    if constexpr (Bytes >= 4)
        copy_async<Bytes>(to, inside ? from : valid, inside ? Bytes : 0);
    else
        *to = inside ? *from : T{};
}

// Rows row0 .. row0 + Rows - 1 of feature-major X. Needs n and `first` to be multiples of Bytes.
template <int Rows, int Columns, int Bytes, typename Place, typename T>
__device__ __forceinline__ void stage_rows(T* tile, Activations<T> in, int row0, int thread, int threads)
{
    constexpr int PerCopy = Bytes / (int)sizeof(T), Copies = Columns / PerCopy;
    for (int i = thread; i < Rows * Copies; i += threads) {
        int row = i / Copies, column = i % Copies * PerCopy;
        const T* from = in.x + (row0 + row) * in.n + in.first + column;
        copy_or_clear<Bytes>(tile + Place::at(row, column), from, in.x, in.first + column < in.n);
    }
}

// Columns row0 .. row0 + Rows - 1 of batch-major X of 4-byte elements, one at a time: eight neighbours in k by four in n
// are a warp's, so that each sector of 32 bytes is used whole.
template <int Rows, int Columns, typename Place, typename T>
__device__ __forceinline__ void stage_transposed(T* tile, Activations<T> in, int row0, int thread, int threads)
{
    for (int i = thread; i < (Rows + 7) / 8 * 8 * Columns; i += threads) {
        int row = i / (8 * Columns) * 8 + i % 8, column = i / 8 % Columns;
        const T* from = in.x + (in.first + column) * in.k + row0 + row;
        if (row < Rows) copy_or_clear<sizeof(T)>(tile + Place::at(row, column), from, in.x, in.first + column < in.n);
    }
}

// The same of 2-byte elements, which no copy can transpose: Run neighbours in k of two columns go through registers, and
// into shared memory by pairs of columns. `fetch` begins the loads of a thread's share, `put` stores it; what is computed
// between them hides the wait. `copy` does both bit by bit, where the share is too large for registers. Needs k, row0 and
// Rows to be multiples of Run. A warp takes two runs by 16 pairs, so that sectors of 32 bytes are used whole; its stores
// meet two in a bank.
template <int Rows, int Columns, int Run, int Threads, typename Place, typename T>
struct TransposedShare {
    static constexpr int Runs = (Rows / Run + 1) / 2 * 2, Pairs = (Columns + 1) / 2;
    static constexpr int Count = (Runs * Pairs + Threads - 1) / Threads;
    static constexpr int Registers = Count * 2 * ((Run + 1) / 2);
    struct Two {
        Vector<T, Run> of[2];
    };
    Two held[Count];

    __device__ __forceinline__ void fetch(Activations<T> in, int row0, int thread)
    {
#pragma unroll
        for (int i = 0; i < Count; ++i)
            held[i] = loaded(in, row0, thread + i * Threads);
    }

    __device__ __forceinline__ void put(T* tile, int thread) const
    {
#pragma unroll
        for (int i = 0; i < Count; ++i)
            keep(tile, thread + i * Threads, held[i]);
    }

    static __device__ __forceinline__ void copy(T* tile, Activations<T> in, int row0, int thread)
    {
#pragma unroll 2
        for (int at = thread; at < Runs * Pairs; at += Threads)
            keep(tile, at, loaded(in, row0, at));
    }

private:
    static __device__ __forceinline__ int row_of(int at) { return (at / (2 * Pairs) * 2 + at % 2) * Run; }
    static __device__ __forceinline__ int column_of(int at) { return at / 2 % Pairs * 2; }

    static __device__ __forceinline__ Two loaded(Activations<T> in, int row0, int at)
    {
        Two two = {};
        int row = row_of(at), column = in.first + column_of(at);
        const T* from = in.x + column * in.k + row0 + row;
        if (row < Rows && column < in.n) two.of[0] = load<T, Run>(from);
        if (row < Rows && column + 1 < in.n) two.of[1] = load<T, Run>(from + in.k);
        return two;
    }

    static __device__ __forceinline__ void keep(T* tile, int at, const Two& two)
    {
        int row = row_of(at), column = column_of(at);
        if (row >= Rows) return;
#pragma unroll
        for (int r = 0; r < Run; ++r)
            store<T, 2>(tile + Place::at(row + r, column), {{two.of[0].at[r], two.of[1].at[r]}});
    }
};

// Copies of Bytes each, one after the other.
template <int Bytes, typename T>
__device__ __forceinline__ void stage_run(T* to, const T* from, int copies, int thread, int threads)
{
    constexpr int PerCopy = Bytes / (int)sizeof(T);
    for (int i = thread; i < copies; i += threads)
        copy_async<Bytes>(to + i * PerCopy, from + i * PerCopy);
}
