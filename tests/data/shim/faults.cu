// faults.cu: one wrong thing a case, which the shim must find. Names are macros that shim_cases.py numbers.
//
//   x   float [n]  global
//   y   float [n]  global
//   at  a step that `what` explains; for races 1 puts the barrier back that is missing
//
// Threads:  64, two warps.
// Shared:   64 floats dynamic, 64 floats static; `s` is the one that FIXED asks for.

#include "ptx.cuh"

__device__ int touch_stack(int depth)
{
    volatile float much[4096];
    much[depth] = 1.0f;
    return depth ? touch_stack(depth - 1) + static_cast<int>(much[depth]) : 0;
}

extern "C" __global__ void races(const float* x, float* y, int what, int at, int fixed)
{
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ __align__(16) float array[64];
    float* s = fixed ? array : reinterpret_cast<float*>(shared);
    int t = threadIdx.x;
    s[t] = 0.0f;
    __syncthreads();

    switch (what) {
    case READ_BEFORE_WRITE:
        s[t] = x[t];
        if (at)
            __syncthreads();
        y[t] = s[63 - t];
        break;
    case OVERWRITE_BEFORE_READ:
        s[t] = x[t];
        __syncthreads();
        y[t] = s[63 - t];
        if (at)
            __syncthreads();
        s[t] = 0.0f;
        break;
    case TWO_WRITES:
        if (t % 32 == 0 && !(at && t))
            s[0] = x[0];
        break;
    case WARPS_NEED_A_BLOCK_BARRIER:
        s[t] = x[t];
        if (at)
            __syncthreads();
        __syncwarp();
        y[t] = s[63 - t];
        break;
    case LANES_NEED_A_WARP_BARRIER:
        s[t] = x[t];
        if (at)
            __syncwarp();
        y[t] = s[t ^ 1];
        break;
    case A_SHUFFLE_ORDERS_NO_MEMORY:
        s[t] = __shfl_xor_sync(0xffffffffu, x[t], 1);
        if (at)
            __syncwarp();
        y[t] = __shfl_xor_sync(0xffffffffu, s[t ^ 1], 1);
        break;
    case TWO_WARPS_READ_ONE_OVERWRITES:
        if (t <= 32)
            y[t] = s[0];
        __syncwarp();
        if (at)
            __syncthreads();
        if (t == 0)
            s[0] = 1.0f;
        break;
    case LATE_IN_A_LOOP:  // the barrier at the loop's end is missing: the next round overwrites
        for (int i = 0; i < 3; ++i) {
            s[t] = x[t] + static_cast<float>(i);
            __syncthreads();
            y[t] = s[63 - t];
            if (at)
                __syncthreads();
        }
        break;
    case MATRICES_NEED_A_WARP_BARRIER: {
        unsigned out[4];
        float* mine = s + t / 32 * 32;
        mine[t % 32] = x[t];
        if (at)
            __syncwarp();
        load_matrices(out, mine + (7 - t % 8) * 4);
        y[t] = __uint_as_float(out[0]);
        break;
    }
    case BLOCKS_WRITE_ONE_ENTRY:
        if (t == 0)
            y[at ? blockIdx.x : 0] = 1.0f;
        break;
    case A_BLOCK_READS_ANOTHERS:
        if (t == 0)
            y[blockIdx.x] = 1.0f;
        if (t == 0 && !at)
            s[0] = y[1 - blockIdx.x];
        break;
    case A_BLOCK_OVERWRITES_WHAT_ANOTHER_READ:
        if (t == 0) {
            s[0] = y[0];
            y[at ? 32 + blockIdx.x : blockIdx.x] = 1.0f;
        }
        break;
    }
}

extern "C" __global__ void barriers(const float* x, float* y, int what)
{
    int t = threadIdx.x;
    switch (what) {
    case HALF_A_BLOCK:
        if (t < 32)
            __syncthreads();
        break;
    case TWO_PLACES:
        if (t < 32)
            __syncthreads();
        else
            __syncthreads();
        break;
    case SOME_HAVE_LEFT:
        if (t >= 40)
            return;
        __syncthreads();
        break;
    case HALF_A_WARP:
        if (t % 2)
            __syncwarp();
        __syncthreads();
        break;
    case A_SHUFFLE_IN_A_BRANCH:
        if (t % 2)
            y[t] = __shfl_sync(0xffffffffu, 1.0f, 0);
        __syncthreads();
        break;
    case TWO_SHUFFLES:
        if (t % 2)
            y[t] = __shfl_sync(0xffffffffu, 1.0f, 0);
        else
            y[t] = __shfl_sync(0xffffffffu, 2.0f, 0);
        break;
    case A_PART_OF_THE_MASK:
        __syncwarp(0xffffu);
        break;
    case A_WARP_IN_PARTS: {  // blocks of 48 threads
        float d[4] = {};
        unsigned a[4] = {};
        multiply_add_tf32(d, a, 0, 0);
        break;
    }
    }
    y[t] = 1.0f;
}

struct alignas(8) Two {
    unsigned short at[4];
};

extern "C" __global__ void memory(const float* x, float* y, int what, int at)
{
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ float array[64];
    float* s = reinterpret_cast<float*>(shared);
    int t = threadIdx.x;
    array[t] = 0.0f;
    __syncthreads();

    switch (what) {
    case READ_X: y[t] = x[t + at]; break;
    case WRITE_Y: y[t + at] = x[t]; break;
    case READ_FOUR:
        if (t == 0)
            *reinterpret_cast<float4*>(y) = *reinterpret_cast<const float4*>(x + at);
        break;
    case WRITE_FOUR:
        if (t == 0)
            *reinterpret_cast<float4*>(y + at) = make_float4(0, 1, 2, 3);
        break;
    case READ_HALVES:
        if (t == 0)
            *reinterpret_cast<Two*>(y) = *reinterpret_cast<const Two*>(x + at);
        break;
    case SHARED_FOUR:
        if (t == 0)
            *reinterpret_cast<float4*>(s + at) = make_float4(0, 1, 2, 3);
        break;
    case STORE_SHARED: {
        const unsigned words[4] = {0, 1, 2, 3};
        if (t == 0)
            store_shared(s + at, words);
        break;
    }
    case READ_DYNAMIC:
        s[t] = x[t];
        __syncthreads();
        y[t] = s[t + at];
        break;
    case WRITE_DYNAMIC: s[t + at] = x[t]; break;
    case READ_STATIC: y[t] = array[t + at]; break;
    case WRITE_STATIC: array[t + at] = x[t]; break;
    case STATIC_BY_POINTER: {
        volatile float* start = array;
        start[t + at] = x[t];
        break;
    }
    case LOCAL_ARRAY: {
        float mine[4] = {0, 1, 2, 3};
        mine[(t + at) % 8] = x[t];
        y[t] = mine[0] + mine[t % 4];
        break;
    }
    case ANOTHERS_STACK: {
        float mine = x[t];
        float** where = reinterpret_cast<float**>(shared);
        if (t == 0)
            where[0] = &mine;
        __syncthreads();
        y[t] = at && t ? *where[0] : mine;
        break;
    }
    case ATOMIC: atomicAdd(y + at, 1.0f); break;
    case STACK: y[t] = static_cast<float>(touch_stack(at)); break;
    case DIVIDE: y[t] = static_cast<float>(t / at); break;
    case SHIFT: y[t] = static_cast<float>(1 << at); break;
    case OVERFLOW: y[t] = static_cast<float>(0x7fffffff - 63 + t + at); break;
    case UNWRITTEN_SHARED:  // of which only so many entries are written
        if (t < at)
            s[t] = x[t];
        y[t] = s[t];
        break;
    case UNWRITTEN_Y:
        if (t != at)
            y[t] = x[t];
        break;
    case ENDLESS:
        while (at)
            y[t] = x[t];
        break;
    }
}
