// elements.cuh: float, f16 and bf16 as a body stores them, always summed in float; and vectors of them.
//
// A body is compiled once a dtype with -DELEMENT=float, f16 or bf16.

#pragma once

#include "ptx.cuh"

struct f16 {
    unsigned short bits;
};

struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(f16 value) { return float_of_f16(value.bits); }
__device__ __forceinline__ float to_float(bf16 value) { return float_of_bf16(value.bits); }

__device__ __forceinline__ void from_float(float& to, float value) { to = value; }
__device__ __forceinline__ void from_float(f16& to, float value) { to.bits = f16_of_float(value); }
__device__ __forceinline__ void from_float(bf16& to, float value) { to.bits = bf16_of_float(value); }

// N elements that are loaded and stored together. Addresses must be multiples of its size.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
    T at[N];
};

template <typename T, int N>
__device__ __forceinline__ Vector<T, N> load(const T* from)
{
    return *reinterpret_cast<const Vector<T, N>*>(from);
}

template <typename T, int N>
__device__ __forceinline__ void store(T* to, const Vector<T, N>& value)
{
    *reinterpret_cast<Vector<T, N>*>(to) = value;
}

// N sums rounded once and stored together.
template <typename T, int N>
__device__ __forceinline__ void store_rounded(T* to, const float (&sums)[N])
{
    Vector<T, N> rounded;
#pragma unroll
    for (int i = 0; i < N; ++i)
        from_float(rounded.at[i], sums[i]);
    store<T, N>(to, rounded);
}
