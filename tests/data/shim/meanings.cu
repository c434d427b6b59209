// meanings.cu: what the words of CUDA and the instructions of ptx.cuh say, written out for numpy to compare.

#include "elements.cuh"

// Rows of y [9, 32]: what each lane of one warp gets.
extern "C" __global__ void exchange(const int* x, int* y, int delta, int width)
{
    int lane = threadIdx.x, mine = x[lane];
    y[lane] = __shfl_sync(0xffffffffu, mine, delta, width);
    y[32 + lane] = __shfl_up_sync(0xffffffffu, mine, static_cast<unsigned>(delta), width);
    y[64 + lane] = __shfl_down_sync(0xffffffffu, mine, static_cast<unsigned>(delta), width);
    y[96 + lane] = __shfl_xor_sync(0xffffffffu, mine, delta, width);
    y[128 + lane] = static_cast<int>(__ballot_sync(0xffffffffu, mine % 2));
    y[160 + lane] = __any_sync(0xffffffffu, mine == delta);
    y[192 + lane] = __all_sync(0xffffffffu, mine != delta);
    y[224 + lane] = static_cast<int>(__reduce_add_sync(0xffffffffu, static_cast<unsigned>(mine)));
    atomicAdd(y + 256 + lane % 4, mine);
}

// Lanes from `last` on have left: y [2, 32].
extern "C" __global__ void without_the_last(int* y, int last)
{
    int lane = threadIdx.x;
    if (lane >= last)
        return;
    y[lane] = static_cast<int>(__ballot_sync(0xffffffffu, 1));
    y[32 + lane] = __shfl_down_sync(0xffffffffu, lane, 1);
}

// Registers a [32, 4], b [32, 2] and d [32, 4] of a warp, lane by lane.
extern "C" __global__ void matrices(const unsigned* a, const unsigned* b, float* d, int kind)
{
    int lane = threadIdx.x;
    unsigned from_a[4];
    float sums[4];
    for (int i = 0; i < 4; ++i) {
        from_a[i] = a[lane * 4 + i];
        sums[i] = d[lane * 4 + i];
    }
    if (kind == 0)
        multiply_add_f16(sums, from_a, b[lane * 2], b[lane * 2 + 1]);
    else if (kind == 1)
        multiply_add_bf16(sums, from_a, b[lane * 2], b[lane * 2 + 1]);
    else
        multiply_add_tf32(sums, from_a, b[lane * 2], b[lane * 2 + 1]);
    for (int i = 0; i < 4; ++i)
        d[lane * 4 + i] = sums[i];
}

// ldmatrix of 16-bit `tiles` [64, 8] with lane i at row rows[i]; out [32, 4].
extern "C" __global__ void tiles(const unsigned short* tiles, const int* rows, unsigned* out, int transposed)
{
    __shared__ __align__(16) unsigned short kept[64 * 8];
    int lane = threadIdx.x;
    for (int i = lane; i < 64 * 8; i += 32)
        kept[i] = tiles[i];
    __syncwarp();
    unsigned got[4];
    if (transposed)
        load_matrices_transposed(got, kept + rows[lane] * 8);
    else
        load_matrices(got, kept + rows[lane] * 8);
    for (int i = 0; i < 4; ++i)
        out[lane * 4 + i] = got[i];
}

// Bits of floats, rounded.
extern "C" __global__ void narrowed(const float* x, unsigned short* half, unsigned short* brain, unsigned* tf32, int n)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        half[i] = f16_of_float(x[i]);
        brain[i] = bf16_of_float(x[i]);
        tf32[i] = tf32_of_float(x[i]);
    }
}

// All 65536 values of each 16-bit format.
extern "C" __global__ void widened(float* half, float* brain)
{
    unsigned bits = blockIdx.x * blockDim.x + threadIdx.x;
    half[bits] = float_of_f16(static_cast<unsigned short>(bits));
    brain[bits] = float_of_bf16(static_cast<unsigned short>(bits));
}
