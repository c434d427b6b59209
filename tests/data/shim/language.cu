// language.cu: words of CUDA C++ that bodies use, each in its plainest form.

#include "ptx.cuh"

#ifndef FACTOR
#define FACTOR 1
#endif

__constant__ int powers[4] = {1, 10, 100, 1000};

template <typename T, int N>
__device__ __forceinline__ T summed(const T (&values)[N])
{
    T sum = 0;
#pragma unroll
    for (int i = 0; i < N; ++i)
        sum += values[i];
    return sum;
}

// y [threads of the grid, 8]: where each thread is.
extern "C" __global__ void places(int* y)
{
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned at = (block * blockDim.x * blockDim.y * blockDim.z + thread) * 8;
    int values[8] = {int(blockIdx.x), int(blockIdx.y), int(blockIdx.z), int(threadIdx.x),
                     int(threadIdx.y), int(threadIdx.z), int(gridDim.x * 10000 + gridDim.y * 100 + gridDim.z),
                     int(blockDim.x * 10000 + blockDim.y * 100 + blockDim.z)};
    for (int i = 0; i < 8; ++i)
        y[at + i] = values[i];
}

// y[i] = FACTOR x[i] + 1111, through static and dynamic shared memory, templates, vectors and constants.
extern "C" __global__ void __launch_bounds__(2 * (16 + 16), 1) scaled(
    const float4* __restrict__ x, float4* __restrict__ y, int n, float factor, long long wide)
{
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ float added[4];
    float4* kept = reinterpret_cast<float4*>(shared);
    if (threadIdx.x < 4)
        added[threadIdx.x] = static_cast<float>(powers[threadIdx.x]);
    for (int first = blockIdx.x * blockDim.x; first < n; first += gridDim.x * blockDim.x) {
        int i = first + static_cast<int>(threadIdx.x);
        __syncthreads();
        if (i < n)
            kept[blockDim.x - 1 - threadIdx.x] = x[i];
        __syncthreads();
        float more = summed<float, 4>(added) + static_cast<float>(wide >> 40);
        if (i < n) {
            float4 v = kept[blockDim.x - 1 - threadIdx.x];
            y[i] = make_float4(v.x * FACTOR + more, v.y * factor + more, v.z * factor + more, fmaf(v.w, factor, more));
        }
    }
}

// y[thread of the grid] = how many threads came before; `count` [1].
extern "C" __global__ void turns(int* count, int* y)
{
    int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    y[t] = atomicAdd(count, 1);
    __syncthreads();
    y[gridDim.x * blockDim.x + t] = atomicAdd(count, 1);
}
