// Direct sparse convolution from zero-padded planes in memory: Y[image, row, oy, ox] = sum of value * plane[start + offset].
//
//   rows     int [slabs * WARPS][ROWS]   row of W of each row of a group; -1: none
//   regions, starts, offsets, values   include/row_lists.cuh; a region is a slab. Offset and ELEMENT; column
//                                  (c, kh, kw) of W is the offset c * hp * wp + kh * wp + kw
//   planes   ELEMENT [batch, c, hp, wp]  row-major: _pad.cu's, or x itself where padding = 0
//   y        ELEMENT [batch, m, oh, ow]  row-major, every entry written
//
// Tiles:    a warp makes ROWS rows x 32 * PIXELS pixels in registers, pixels of all images in one line; a block's WARPS
//           warps take as many groups, a slab, and the same pixels, so that L1 holds what they share. A lane's pixels
//           are 32 apart: its loads join with its neighbours', whatever (kh, kw) does to their alignment. VECTOR = 4
//           takes four neighbours in one load instead.
// Demands:  planes and y below 2**31 entries; VECTOR = 4: a 1x1 kernel, stride 1, padding 0, oh * ow % 4 == 0.
// Moves:    W, planes and Y once from memory; an entry reads 4 bytes of planes a pixel from L1 or L2.
// Ladder:   1 planes in memory (this)   2 planes of a tile in shared memory: _conv_staged.cu
// Source:   own; direct sparse convolution on CPUs: Park et al. (arXiv 1608.01409).

#include "elements.cuh"
#include "row_lists.cuh"

#ifndef ELEMENT
#define ELEMENT float
#endif
#ifndef OFFSET_BITS
#define OFFSET_BITS 32
#endif
#ifndef ROWS
#define ROWS 4
#endif
#ifndef HEIGHTS
#define HEIGHTS 0x4  // include/row_lists.cuh
#endif
#ifndef PIXELS
#define PIXELS 4
#endif
#ifndef VECTOR
#define VECTOR 1
#endif
#ifndef WARPS
#define WARPS 8
#endif

static_assert(PIXELS % VECTOR == 0, "a lane takes whole vectors of pixels");

template <int Bits>
struct Unsigned {
    using Type = int;
};
template <>
struct Unsigned<16> {
    using Type = unsigned short;
};
using Offset = Unsigned<OFFSET_BITS>::Type;

struct PlanePixels {
    static constexpr int WIDE = VECTOR, SLOTS = PIXELS / VECTOR;
    const ELEMENT* planes;
    int start[SLOTS];

    __device__ __forceinline__ void take(float (&to)[WIDE], int offset, int slot) const
    {
        Vector<ELEMENT, WIDE> found = load<ELEMENT, WIDE>(planes + start[slot] + offset);
#pragma unroll
        for (int p = 0; p < WIDE; ++p) to[p] = to_float(found.at[p]);
    }
};

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    conv_planes(const int* __restrict__ rows, const int* __restrict__ regions, const int* __restrict__ starts,
                const Offset* __restrict__ offsets, const ELEMENT* __restrict__ values, const ELEMENT* __restrict__ planes, ELEMENT* __restrict__ y,
                int slabs, int m, int n, int oh, int ow, int stride, int image_size, int pitch)
{
    constexpr int lists_each = lists_of<ROWS, HEIGHTS>;
    const int lane = threadIdx.x % 32;
    const int slab = blockIdx.x % slabs, warp = threadIdx.x / 32;
    const int first = blockIdx.x / slabs * (32 * PIXELS) + lane * VECTOR;

    PlanePixels pixels;
    pixels.planes = planes;
#pragma unroll
    for (int slot = 0; slot < PlanePixels::SLOTS; ++slot) {
        const int j = min(first + slot * 32 * VECTOR, n - VECTOR);  // lanes past the end repeat the last pixels
        const int pixel = j % (oh * ow);
        pixels.start[slot] = j / (oh * ow) * image_size + (pixel / ow * pitch + pixel % ow) * stride;
    }

    float sums[ROWS][PIXELS];
    clear(sums);
    const int segment = slab * (WARPS * lists_each + 1) + warp * lists_each;
    Lists<Offset, ELEMENT> lists = {starts + 2 * segment, offsets + regions[2 * slab], values + regions[2 * slab + 1]};
    add_levels<HEIGHTS>(sums, lists, pixels);

#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int row = rows[(slab * WARPS + warp) * ROWS + r];
        if (row < 0) continue;
#pragma unroll
        for (int slot = 0; slot < PlanePixels::SLOTS; ++slot) {
            const int j = first + slot * 32 * VECTOR;
            if (j >= n) continue;
            float made[VECTOR];
#pragma unroll
            for (int p = 0; p < VECTOR; ++p) made[p] = sums[r][slot * VECTOR + p];
            store_rounded<ELEMENT, VECTOR>(y + (j / (oh * ow) * m + row) * (oh * ow) + j % (oh * ow), made);
        }
    }
}
