// copies.cu: cp.async, right and wrong. Names are macros that shim_cases.py numbers.
//
//   x   float [n]      global
//   y   float [4, 64]  global, what each thread finds in its own place of four groups
//   at  a step that `what` explains; for races 1 puts back what is missing
//
// Threads:  64. Shared: 4 * 64 floats, dynamic.

#include "ptx.cuh"

template <int PENDING>
__device__ void deliver(const float* x, float* y, float* s, int t)
{
    for (int group = 0; group < 4; ++group) {
        copy_async<4>(s + group * 64 + t, x + group * 64 + t);
        commit_copies();
    }
    wait_copies<PENDING>();
    for (int group = 0; group < 4; ++group)
        y[group * 64 + t] = s[group * 64 + t];
}

extern "C" __global__ void copies(const float* x, float* y, int what, int at)
{
    extern __shared__ __align__(16) unsigned char shared[];
    float* s = reinterpret_cast<float*>(shared);
    int t = threadIdx.x;
    for (int i = t; i < 256; i += 64)
        s[i] = 0.0f;
    __syncthreads();

    switch (what) {
    case DELIVER:
        switch (at) {
        case 0: deliver<0>(x, y, s, t); break;
        case 1: deliver<1>(x, y, s, t); break;
        case 2: deliver<2>(x, y, s, t); break;
        case 4: deliver<4>(x, y, s, t); break;
        }
        break;
    case NO_COMMIT:
        copy_async<4>(s + t, x + t);
        wait_copies<0>();
        y[t] = s[t];
        break;
    case OLD_DATA_IS_GONE:
        s[t] = 7.0f;
        copy_async<4>(s + t, x + t);
        y[t] = s[t];
        break;
    case TAKE:
        if (t % 4 == 0)
            copy_async<16>(s + t, x + t, at);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        y[t] = s[t];
        break;
    case NO_BARRIER_AFTER_THE_WAIT:
        copy_async<4>(s + t, x + t);
        commit_copies();
        wait_copies<0>();
        if (at)
            __syncthreads();
        y[t] = s[63 - t];
        break;
    case WAIT_AFTER_THE_BARRIER:
        copy_async<4>(s + t, x + t);
        commit_copies();
        if (at)
            wait_copies<0>();
        __syncthreads();
        if (!at)
            wait_copies<0>();
        y[t] = s[63 - t];
        break;
    case ONTO_WHAT_IS_READ:  // a ring of one buffer: the next copy starts while others still read
        s[t] = x[t];
        __syncthreads();
        y[t] = s[63 - t];
        if (at)
            __syncthreads();
        copy_async<4>(s + t, x + t);
        break;
    case PIPELINE: {  // two buffers, as it should be; with at = 0 the barrier that frees a buffer is missing
        copy_async<4>(s + t, x + t);
        commit_copies();
        for (int step = 0; step < 4; ++step) {
            if (step + 1 < 4)
                copy_async<4>(s + (step + 1) % 2 * 64 + t, x + (step + 1) * 64 + t);
            commit_copies();
            wait_copies<1>();
            __syncthreads();
            y[step * 64 + t] = s[step % 2 * 64 + 63 - t];
            if (at)
                __syncthreads();
        }
        break;
    }
    case READ_BEYOND:
        copy_async<4>(s + t, x + t + at);
        break;
    case READ_BEYOND_BUT_TAKE_NONE:
        copy_async<4>(s + t, x + t + at, 0);
        break;
    case WRITE_BEYOND:
        copy_async<4>(s + 192 + t + at, x + t);
        break;
    case MISALIGNED_TO:
        if (t == 0)
            copy_async<16>(s + at, x);
        break;
    case MISALIGNED_FROM:
        if (t == 0)
            copy_async<16>(s, x + at);
        break;
    case TAKE_TOO_MUCH:
        if (t == 0)
            copy_async<16>(s, x, 16 + at);
        break;
    }
}
