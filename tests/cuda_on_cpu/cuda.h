// cuda.h: the words of CUDA C++ that bodies use, over the threads and barriers of block.h.
//
// Put before a body's text by toolchain.py. __shared__ arrays become thread-local variables of the body's library: at
// function scope that implies static storage, in templates too, and a block runs on one thread of the system.

#pragma once

#include "block.h"
#include "vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __restrict__ __restrict
#define __builtin_assume(condition) ((void)(condition))

typedef decltype(sizeof(0)) size_t;

// ------------------------------------------------------------------------------------------------ who runs where

constexpr int warpSize = shim::WARP;

#define threadIdx (::shim::current->index)
#define blockIdx (::shim::block_index())
#define blockDim (::shim::shape().block)
#define gridDim (::shim::shape().grid)

// ------------------------------------------------------------------------------------------------------ barriers

// Default arguments are evaluated where the function is called, so these are the file and line of the barrier.
#define SHIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(SHIM_HERE) { shim::block_barrier({"__syncthreads", file, line}); }

static inline void __syncwarp(unsigned mask = shim::ALL, SHIM_HERE)
{
    shim::warp_sync(mask, {"__syncwarp", file, line});
}

static inline void __threadfence() {}
static inline void __threadfence_block() {}

// ------------------------------------------------------------------------------------------------ warp exchange

namespace shim {

// A lane that has ended shows nothing: what others read of it is full of 0xff.
template <typename T>
T from_lane(unsigned mask, T mine, int lane, Place place)
{
    const Slot* slots = exchange(mask, mine, place);
    if (current->warp->left >> lane & 1) {
        Slot nothing;
        __builtin_memset(nothing.bytes, 0xff, sizeof(nothing.bytes));
        return shown<T>(&nothing, 0);
    }
    return shown<T>(slots, static_cast<unsigned>(lane));
}

static inline int lane() { return static_cast<int>(current->lane); }

}  // namespace shim

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, SHIM_HERE)
{
    int segment = shim::lane() & ~(width - 1);
    return shim::from_lane(mask, value, segment + (from & (width - 1)), {"__shfl_sync", file, line});
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SHIM_HERE)
{
    int from = shim::lane() - static_cast<int>(delta), segment = shim::lane() & ~(width - 1);
    return shim::from_lane(mask, value, from < segment ? shim::lane() : from, {"__shfl_up_sync", file, line});
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SHIM_HERE)
{
    int from = shim::lane() + static_cast<int>(delta), end = (shim::lane() | (width - 1)) + 1;
    return shim::from_lane(mask, value, from < end ? from : shim::lane(), {"__shfl_down_sync", file, line});
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SHIM_HERE)
{
    int from = shim::lane() ^ bits, end = (shim::lane() | (width - 1)) + 1;
    return shim::from_lane(mask, value, from < end ? from : shim::lane(), {"__shfl_xor_sync", file, line});
}

static inline unsigned __ballot_sync(unsigned mask, int holds, SHIM_HERE)
{
    const shim::Slot* slots = shim::exchange(mask, holds, {"__ballot_sync", file, line});
    unsigned votes = 0;
    for (unsigned lane = 0; lane < shim::WARP; ++lane)
        if (!(shim::current->warp->left >> lane & 1) && shim::shown<int>(slots, lane))
            votes |= 1u << lane;
    return votes;
}

static inline int __any_sync(unsigned mask, int holds, SHIM_HERE) { return __ballot_sync(mask, holds, file, line) != 0; }

static inline int __all_sync(unsigned mask, int holds, SHIM_HERE) { return __ballot_sync(mask, !holds, file, line) == 0; }

static inline unsigned __reduce_add_sync(unsigned mask, unsigned value, SHIM_HERE)
{
    const shim::Slot* slots = shim::exchange(mask, value, {"__reduce_add_sync", file, line});
    unsigned sum = 0;
    for (unsigned lane = 0; lane < shim::WARP; ++lane)
        if (!(shim::current->warp->left >> lane & 1))
            sum += shim::shown<unsigned>(slots, lane);
    return sum;
}

// ------------------------------------------------------------------------------------------------------ numbers

static inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
static inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
static inline float fabsf(float a) { return __builtin_fabsf(a); }

static inline float __uint_as_float(unsigned bits) { return __builtin_bit_cast(float, bits); }
static inline float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }
static inline unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }
static inline int __float_as_int(float value) { return __builtin_bit_cast(int, value); }

static inline int __popc(unsigned value) { return __builtin_popcount(value); }
static inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
static inline int __ffs(int value) { return __builtin_ffs(value); }
static inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
static inline unsigned __brev(unsigned value)
{
    unsigned turned = 0;
    for (int bit = 0; bit < 32; ++bit)
        turned |= (value >> bit & 1) << (31 - bit);
    return turned;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((1ull * a * b) >> 32); }

#define SHIM_MIN_MAX(T)                                        \
    static inline T min(T a, T b) { return b < a ? b : a; }    \
    static inline T max(T a, T b) { return a < b ? b : a; }
SHIM_MIN_MAX(int)
SHIM_MIN_MAX(unsigned)
SHIM_MIN_MAX(long)
SHIM_MIN_MAX(unsigned long)
SHIM_MIN_MAX(long long)
SHIM_MIN_MAX(unsigned long long)
SHIM_MIN_MAX(float)
SHIM_MIN_MAX(double)
#undef SHIM_MIN_MAX
static inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
static inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
static inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
static inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }

// ------------------------------------------------------------------------------------------------------- memory

// clang-format off
template <typename T> T __ldg(const T* from) { return *from; }
template <typename T> T __ldca(const T* from) { return *from; }
template <typename T> T __ldcg(const T* from) { return *from; }
template <typename T> T __ldcs(const T* from) { return *from; }
template <typename T> T __ldlu(const T* from) { return *from; }
template <typename T> void __stcg(T* to, T value) { *to = value; }
template <typename T> void __stcs(T* to, T value) { *to = value; }
template <typename T> void __stwb(T* to, T value) { *to = value; }
template <typename T> void __stwt(T* to, T value) { *to = value; }
// clang-format on

static inline size_t __cvta_generic_to_shared(const void* at) { return reinterpret_cast<size_t>(at); }

static inline int atomicAdd(int* to, int value) { return shim::add_atomically(to, value); }
static inline unsigned atomicAdd(unsigned* to, unsigned value)
{
    return static_cast<unsigned>(shim::add_atomically(reinterpret_cast<int*>(to), static_cast<int>(value)));
}
static inline float atomicAdd(float* to, float value) { return shim::add_atomically(to, value); }

// --------------------------------------------------------------------------------------------- how it is launched

namespace shim {

// 'p' for a pointer, 'f' for a float, else the bytes of an integer: toolchain.py compares arguments with it.
template <typename T>
struct Letter {
    static constexpr char value = static_cast<char>('0' + sizeof(T));
};
template <typename T>
struct Letter<T*> {
    static constexpr char value = 'p';
};
template <typename T>
struct Letter<T* __restrict> {
    static constexpr char value = 'p';
};
template <>
struct Letter<float> {
    static constexpr char value = 'f';
};
template <typename T>
struct Letter<const T> : Letter<T> {};

template <typename... A>
struct Signature {
    static constexpr char letters[] = {Letter<A>::value..., 0};
};

template <typename... A>
const char* signature(void (*)(A...))
{
    return Signature<A...>::letters;
}

template <int... I>
struct Numbers {};

// The arguments lie in Python's memory, where a body has no business: these two are not watched.
template <typename... A, int... I>
__attribute__((no_sanitize("thread"))) void call_numbered(void (*kernel)(A...), void** arguments, Numbers<I...>)
{
    kernel(*static_cast<A*>(arguments[I])...);
}

template <typename... A>
__attribute__((no_sanitize("thread"))) void call(void (*kernel)(A...), void** arguments)
{
    call_numbered(kernel, arguments, Numbers<__integer_pack(static_cast<int>(sizeof...(A)))...>());
}

// __launch_bounds__(threads, blocks, clusters)
constexpr unsigned most_threads(unsigned threads, unsigned = 0, unsigned = 0) { return threads; }

}  // namespace shim

// What toolchain.py puts after a body: the symbols that the library shows. The bounds are those of __launch_bounds__.
#define SHIM_EXPORT(kernel, ...)                                                        \
    extern "C" __attribute__((visibility("default"))) void shim_entry(void** arguments) \
    {                                                                                   \
        ::shim::call(kernel, arguments);                                                \
    }                                                                                   \
    extern "C" __attribute__((visibility("default"))) const char* shim_signature()      \
    {                                                                                   \
        return ::shim::signature(kernel);                                               \
    }                                                                                   \
    extern "C" __attribute__((visibility("default"))) unsigned shim_most_threads()      \
    {                                                                                   \
        return ::shim::most_threads(__VA_ARGS__);                                       \
    }
