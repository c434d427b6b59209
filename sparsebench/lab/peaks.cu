// peaks.cu: what one GPU can do at most, each measured by a kernel that does nothing else.
//
//   stream   x float [n], y float [n]: y += x, 16 bytes a thread and step
//   l2       x float [n] that fits the L2, read `rounds` times, each block beginning elsewhere
//   shared   4096 floats of shared memory, read 16 bytes a thread, `rounds` times
//   fma      `rounds` x 8 independent multiply-adds a thread
//
// `sink` is never written (the sums are finite), but the compiler cannot know.

#include "elements.cuh"

extern "C" __global__ void __launch_bounds__(512) stream(const float* x, float* y, int n)
{
    for (int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x); i + 3 < n; i += 4 * gridDim.x * blockDim.x) {
        Vector<float, 4> sum = load<float, 4>(x + i), old = load<float, 4>(y + i);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            sum.at[j] += old.at[j];
        store<float, 4>(y + i, sum);
    }
}

extern "C" __global__ void __launch_bounds__(512) read_l2(const float* x, float* sink, int n, int rounds)
{
    const int step = 4 * gridDim.x * blockDim.x;
    float sum = 0;
    for (int round = 0; round < rounds; ++round) {
        int i = 4 * (((blockIdx.x + round * 37) % gridDim.x) * blockDim.x + threadIdx.x);
        for (; i + 3 < n; i += step) {
            // Past the first-level cache: what is asked is the L2.
            float4 four = __ldcg(reinterpret_cast<const float4*>(x + i));
            sum += four.x + four.y + four.z + four.w;
        }
    }
    if (sum == -1.0f)
        *sink = sum;
}

extern "C" __global__ void __launch_bounds__(1024) read_shared(float* sink, int rounds)
{
    __shared__ float shared[4096];
    for (int i = threadIdx.x; i < 4096; i += blockDim.x)
        shared[i] = 1.0f;
    __syncthreads();
    float sums[4] = {0, 0, 0, 0};
    int at = 4 * threadIdx.x % 4096;
    for (int round = 0; round < rounds; ++round) {
        Vector<float, 4> four = load<float, 4>(shared + at);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            sums[j] += four.at[j];
        at = (at + 128) & 4095;
    }
    if (sums[0] + sums[1] + sums[2] + sums[3] == -1.0f)
        *sink = sums[0];
}

extern "C" __global__ void __launch_bounds__(512) fma_f32(float* sink, float factor, int rounds)
{
    float sums[8];
#pragma unroll
    for (int j = 0; j < 8; ++j)
        sums[j] = threadIdx.x + j;
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
        for (int j = 0; j < 8; ++j)
            sums[j] = fmaf(sums[j], factor, 1.0f);
    }
    float total = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j)
        total += sums[j];
    if (total == -1.0f)
        *sink = total;
}
