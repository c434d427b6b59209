// slab.cuh: a slab of X, COLUMNS of its columns for all of k or a part of it, in shared memory.
//
//   slab  ELEMENT [capacity + 1][COLUMNS]  row `capacity` is zero: what padding of W meets
//
// Feature-major x [k, n] comes by cp.async, COPY bytes at a time; FLAT when n = COLUMNS, one run of 16-byte copies.
// Batch-major x [n, k] (BATCH) is transposed on the way: a thread loads RUN entries along k of the columns of one
// 16-byte word and stores words. Threads side by side would store RUN rows apart, all in a few banks, so rows change
// places within blocks of LINE: column c stands at place(c), which the host has put into W's columns.
//
// Rows come in parts of part_rows, first part first. Without EVICT they all stay, and the first part's product starts
// while the others are on their way; with EVICT each part takes the place of the one before.

#pragma once

#include "slices.cuh"

constexpr int WORD = 16 / (int)sizeof(ELEMENT);                        // elements of 16 bytes
constexpr int GROUP = COLUMNS < WORD ? COLUMNS : WORD;                 // columns that a transposing thread takes
constexpr int TOGETHER = RUN < WORD / GROUP ? RUN : WORD / GROUP;  // rows that it stores as one word

struct Slab {
    const ELEMENT* rows;  // at this lane's first column

    __device__ __forceinline__ Vector<ELEMENT, VECTOR> at(int place) const
    {
        return load<ELEMENT, VECTOR>(rows + place * COLUMNS);
    }
};

// RUN entries of a column of X, kept as loaded: 16-bit elements on their own would take a register each.
struct Run {
    static constexpr int PER_WORD = sizeof(ELEMENT) == 2 && RUN > 1 ? 2 : 1;
    unsigned words[RUN / PER_WORD];

    __device__ __forceinline__ void take(const ELEMENT* from)
    {
        if constexpr (sizeof(ELEMENT) == 2 && RUN == 1) {
            words[0] = *reinterpret_cast<const unsigned short*>(from);
        } else {
            Vector<unsigned, RUN / PER_WORD> loaded = load<unsigned, RUN / PER_WORD>(reinterpret_cast<const unsigned*>(from));
#pragma unroll
            for (int i = 0; i < RUN / PER_WORD; ++i) words[i] = loaded.at[i];
        }
    }

    // The bits of entry `i`; of 16, the upper ones may be another's.
    __device__ __forceinline__ unsigned bits(int i) const { return words[i / PER_WORD] >> (i % PER_WORD * 16); }
};

template <int N>
__device__ __forceinline__ void store_words(unsigned* to, const unsigned (&words)[N])
{
    if constexpr (N == 4) {
        store_shared(to, words);
    } else {
        Vector<unsigned, N> together;
#pragma unroll
        for (int i = 0; i < N; ++i) together.at[i] = words[i];
        store(to, together);
    }
}

// N elements whose bits Run::bits gave, stored together.
template <int N>
__device__ __forceinline__ void store_bits(ELEMENT* to, const unsigned (&bits)[N])
{
    if constexpr (sizeof(ELEMENT) == 4) {
        store_words(reinterpret_cast<unsigned*>(to), bits);
    } else if constexpr (N == 1) {
        *reinterpret_cast<unsigned short*>(to) = (unsigned short)bits[0];
    } else {
        unsigned words[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; ++i) words[i] = (bits[2 * i] & 0xffffu) | bits[2 * i + 1] << 16;
        store_words(reinterpret_cast<unsigned*>(to), words);
    }
}

struct Filling {
    ELEMENT* slab;
    const ELEMENT* x;
    int k, n, first, part_rows;
    Run pending[GROUP];  // BATCH: this thread's first piece of the next part

    __device__ __forceinline__ int row_of(int part) const { return part * part_rows; }
    __device__ __forceinline__ int rows_of(int part) const { return min(part_rows, k - row_of(part)); }
    __device__ __forceinline__ ELEMENT* home(int part) const
    {
        return EVICT ? slab : slab + (size_t)row_of(part) * COLUMNS;
    }

    // Puts `part` on its way. Without BATCH it lands on its own; with BATCH it waits in registers until land().
    __device__ __forceinline__ void send(int part)
    {
        if constexpr (BATCH)
            fetch(part, (int)threadIdx.x);
        else if constexpr (FLAT)
            copy_run(part);
        else
            copy_rows(part);
    }

    // Afterwards this thread's share of `part` is in the slab; `later` parts may still be on their way.
    __device__ __forceinline__ void land(int part, int later)
    {
        if constexpr (BATCH) {
#pragma unroll 1
            for (int piece = (int)threadIdx.x; piece < pieces_of(part); piece += 32 * WARPS) {
                if (piece != (int)threadIdx.x)
                    fetch(part, piece);
                put(part, piece);
            }
        } else {
            wait_for(later);
        }
    }

    static __device__ __forceinline__ void wait_for(int later)
    {
        if (PARTS > 1 && later >= 3)
            wait_copies<3>();
        else if (PARTS > 1 && later == 2)
            wait_copies<2>();
        else if (PARTS > 1 && later == 1)
            wait_copies<1>();
        else
            wait_copies<0>();
    }

    // x is one run of bytes from row_of(part) on; the last copy may end within 16 bytes.
    __device__ __forceinline__ void copy_run(int part)
    {
        int elements = rows_of(part) * COLUMNS;
        const ELEMENT* from = x + (size_t)row_of(part) * COLUMNS;
        for (int i = (int)threadIdx.x * WORD; i < elements; i += 32 * WARPS * WORD)
            copy_async<16>(home(part) + i, from + i, min(WORD, elements - i) * (int)sizeof(ELEMENT));
        commit_copies();
    }

    __device__ __forceinline__ void copy_rows(int part)
    {
        constexpr int taken = COPY / (int)sizeof(ELEMENT), copies = COLUMNS / taken;
        const ELEMENT* from = x + (size_t)row_of(part) * n + first;
#pragma unroll 4
        for (int i = (int)threadIdx.x; i < rows_of(part) * copies; i += 32 * WARPS) {
            int row = i / copies, column = i % copies * taken;
            if (first + column < n)
                copy_some<COPY>(home(part) + row * COLUMNS + column, from + (size_t)row * n + column);
        }
        commit_copies();
    }

    template <int BYTES>
    static __device__ __forceinline__ void copy_some(ELEMENT* to, const ELEMENT* from)
    {
        if constexpr (BYTES >= 4)
            copy_async<BYTES>(to, from);
        else
            *to = *from;
    }

    __device__ __forceinline__ int pieces_of(int part) const
    {
        return rows_of(part) / RUN * (COLUMNS / GROUP);  // k is a multiple of RUN
    }

    // Pieces side by side are the columns of one row first: a warp reads whole sectors and writes whole lines. What lies
    // beyond x is taken from its last column or piece, so that no load waits for a branch.
    __device__ __forceinline__ void fetch(int part, int piece)
    {
        piece = min(piece, pieces_of(part) - 1);
        int row = piece / (COLUMNS / GROUP) * RUN, column = piece % (COLUMNS / GROUP) * GROUP;
        const ELEMENT* from = x + (size_t)min(first + column, n - 1) * k + row_of(part) + row;
#pragma unroll
        for (int j = 0; j < GROUP; ++j) {
            pending[j].take(from);
            from += first + column + j + 1 < n ? k : 0;
        }
    }

    __device__ __forceinline__ void put(int part, int piece)
    {
        int row = piece / (COLUMNS / GROUP) * RUN, column = piece % (COLUMNS / GROUP) * GROUP;
#pragma unroll
        for (int r = 0; r < RUN; r += TOGETHER) {
            unsigned bits[TOGETHER * GROUP];
#pragma unroll
            for (int i = 0; i < TOGETHER * GROUP; ++i) bits[i] = pending[i % GROUP].bits(r + i / GROUP);
            store_bits(home(part) + place(row + r) * COLUMNS + column, bits);
        }
    }

    // Where row `row` of a part stands. The host computes the same (_slab_cut.place).
    static __device__ __forceinline__ int place(int row)
    {
        constexpr int unit = COLUMNS < WORD ? WORD / COLUMNS : 1;
        int word = row / unit;
        return (word ^ (word / APART & (LINE - 1))) * unit + row % unit;
    }

    // Zeros in the row after the last, which padding names, and in columns past n, which copy_rows leaves out.
    __device__ __forceinline__ void clear_padding(int capacity)
    {
        for (int i = (int)threadIdx.x; i < COLUMNS; i += 32 * WARPS) from_float(slab[(size_t)capacity * COLUMNS + i], 0.0f);
        if (!BATCH && first + COLUMNS > n)
            for (int i = (int)threadIdx.x; i < capacity * COLUMNS; i += 32 * WARPS)
                if (first + i % COLUMNS >= n)
                    from_float(slab[i], 0.0f);
    }
};
