// Direct sparse convolution, tiles of the padded planes in shared memory: padding is never written to memory.
//
//   rows     int [slabs * WARPS][ROWS]   row of W of each row of a group; -1: none
//   regions, starts, offsets, values     include/row_lists.cuh; region slab * chunks + chunk, a chunk is CHANNELS channels.
//                                        Column (c, kh, kw) of W is the offset of its phase's plane in the staged tile
//                                        (_conv.py: staged_offsets)
//   x        ELEMENT [batch, c, h, w]    row-major
//   y        ELEMENT [batch, m, oh, ow]  row-major, every entry written
//
// Tiles:    a block's WARPS groups of ROWS rows share a tile of pixels, SUBS warps a group. It stages the planes of
//           CHANNELS channels under its pixels, zeros beyond the image, in fp32, split into phases (pixels of equal
//           remainder by the stride), and the lists of its groups for those channels; while it walks them, the next
//           channels arrive in the other buffer. Which pixels a lane takes: _conv_tiles.py.
// Demands:  y below 2**31 entries; VECTOR = 4: a 1x1 kernel, stride 1, padding 0, w % 4 == 0, IMAGES = LANE_IMAGES = 1.
// Moves:    x once from memory, then from L2 once a slab; W and Y once. An entry reads 4 bytes of shared memory a pixel.
// Ladder:   1 _conv.cu   2 staged tiles (this)   3 a barrier a buffer instead of one a block, so that warps may run ahead
// Source:   own; direct sparse convolution on CPUs: Park et al. (arXiv 1608.01409).

#include "elements.cuh"
#include "row_lists.cuh"

#ifndef ELEMENT
#define ELEMENT float
#endif
#ifndef ROWS
#define ROWS 4
#endif
#ifndef HEIGHTS
#define HEIGHTS 0x4  // include/row_lists.cuh
#endif
#ifndef BANDS  // the default is a 3x3 convolution of 32x32 pixels
#define BANDS 1
#define PITCH 34
#define SPAN 340
#define POSITIONS 8
#define IMAGES 1
#define LANE_IMAGES 1
#define VECTOR 1
#define WARPS 8
#define SUBS 1
#define CHANNELS 16
#define STRIDE 1
#define PHASES_DOWN 1
#define PHASES_ACROSS 1
#endif

#define PIXELS (POSITIONS * IMAGES)
#define ALL_IMAGES (IMAGES * LANE_IMAGES)
#define CHANNEL_SIZE (PHASES_DOWN * PHASES_ACROSS * ALL_IMAGES * SPAN)
#define THREADS (32 * WARPS * SUBS)
#define STEP (BANDS ? PITCH : 32 * VECTOR)  // elements between a lane's pixels, or vectors of them
#define LISTS (WARPS * lists_of<ROWS, HEIGHTS>)

static_assert(SPAN % 4 == 0 && POSITIONS % VECTOR == 0, "vectors of four");
static_assert(VECTOR == 1 || (BANDS == 0 && ALL_IMAGES * STRIDE == 1), "vectors are neighbours in one row");
static_assert(BANDS > 0 || LANE_IMAGES == 1, "the lanes of a flat tile are neighbours");

using Offset = unsigned short;  // into the staged planes, which have fewer than 65536 elements

struct Images {
    const ELEMENT* x;
    int batch, c, h, w, padding;
};

// One of the buffers in shared memory.
struct Buffer {
    float* planes;
    float* values;
    int* starts;
    Offset* offsets;
};

__device__ __forceinline__ Buffer buffer_in(unsigned char* shared, int number, int values, int entries)
{
    constexpr int starts_room = (2 * (LISTS + 1) + 3) / 4 * 4, planes_room = CHANNELS * CHANNEL_SIZE;
    const int size = 4 * (planes_room + values + starts_room) + entries * (int)sizeof(Offset);
    Buffer buffer;
    buffer.planes = reinterpret_cast<float*>(shared + number * size);
    buffer.values = buffer.planes + planes_room;
    buffer.starts = reinterpret_cast<int*>(buffer.values + values);
    buffer.offsets = reinterpret_cast<Offset*>(buffer.starts + starts_room);
    return buffer;
}

// N elements as floats into shared memory, zeros where `inside` is false.
template <int N>
__device__ __forceinline__ void fetch(float* to, const float* from, bool inside)
{
    copy_async<4 * N>(to, from, inside ? 4 * N : 0);
}

template <int N, typename T>
__device__ __forceinline__ void fetch(float* to, const T* from, bool inside)
{
    Vector<float, N> floats = {};
    if (inside) {
        const Vector<T, N> found = load<T, N>(from);
#pragma unroll
        for (int i = 0; i < N; ++i) floats.at[i] = to_float(found.at[i]);
    }
    store<float, N>(to, floats);
}

// Planes of channels [channel, channel + CHANNELS) under the block's pixels; `origin`: where these start in a plane.
__device__ __forceinline__ void stage_planes(float* planes, const Images& in, int image0, int origin, int channel)
{
    const int channels = min(CHANNELS, in.c - channel);
    for (int cell = threadIdx.x * VECTOR; cell < CHANNEL_SIZE; cell += THREADS * VECTOR) {
        const int at = origin + cell % SPAN, image = image0 + cell / SPAN % ALL_IMAGES;
        const int phase = cell / (SPAN * ALL_IMAGES);
        const int row = at / PITCH * STRIDE + phase / PHASES_ACROSS - in.padding;
        const int column = at % PITCH * STRIDE + phase % PHASES_ACROSS - in.padding;
        const bool inside = image < in.batch && row >= 0 && row < in.h && column >= 0 && column < in.w;
        const int plane = inside ? in.h * in.w : 0;
        const ELEMENT* from = in.x;
        if (inside) from += (long long)(image * in.c + channel) * plane + row * in.w + column;
#pragma unroll 4
        for (int i = 0; i < channels; ++i, from += plane) fetch<VECTOR>(planes + i * CHANNEL_SIZE + cell, from, inside);
    }
}

// The lists of one region: values as floats, everything counted from the region's start.
__device__ __forceinline__ void stage_lists(const Buffer& buffer, const int* regions, const int* starts,
                                            const Offset* offsets, const ELEMENT* values, int region)
{
    const int entry = regions[2 * region], value = regions[2 * region + 1];
    const int entries = regions[2 * region + 2] - entry, count = regions[2 * region + 3] - value;
    for (int i = 4 * threadIdx.x; i < entries; i += 4 * THREADS)
        copy_async<4 * sizeof(Offset)>(buffer.offsets + i, offsets + entry + i);
    for (int i = 4 * threadIdx.x; i < count; i += 4 * THREADS) fetch<4>(buffer.values + i, values + value + i, true);
    for (int i = 2 * threadIdx.x; i < 2 * (LISTS + 1); i += 2 * THREADS)
        copy_async<8>(buffer.starts + i, starts + 2 * region * (LISTS + 1) + i);
}

struct StagedPixels {
    static constexpr int WIDE = VECTOR, SLOTS = PIXELS / VECTOR;
    const float* start;  // of this lane's first pixel

    // All pixels of a lane are the same distances apart: one address, and constants that the load itself adds.
    __device__ __forceinline__ void take(float (&to)[WIDE], int offset, int slot) const
    {
        const int image = slot * WIDE / POSITIONS, along = slot % (POSITIONS / WIDE);
        Vector<float, WIDE> found =
            load<float, WIDE>(start + offset + (image * LANE_IMAGES * SPAN + along * STEP));
#pragma unroll
        for (int p = 0; p < WIDE; ++p) to[p] = found.at[p];
    }
};

// Which pixels are a lane's: in image `image` of the tile, from element `first` of the staged plane on, STEP apart.
struct Lane {
    int image, first;
    bool idle;
};

__device__ __forceinline__ Lane lane_of(int lane, int sub, int ow)
{
    if (BANDS == 0) return {0, sub * (32 * POSITIONS) + lane * VECTOR, false};
    const int column = lane % ow, band = lane / ow % max(BANDS, 1), image = lane / (ow * max(BANDS, 1));
    // Lanes beyond the last image repeat it.
    return {min(image, LANE_IMAGES - 1), (sub * BANDS + band) * (POSITIONS * PITCH) + column, image >= LANE_IMAGES};
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    conv_staged(const int* __restrict__ rows, const int* __restrict__ regions, const int* __restrict__ starts,
                const Offset* __restrict__ offsets, const ELEMENT* __restrict__ values,
                const ELEMENT* __restrict__ x, ELEMENT* __restrict__ y, int slabs, int m, int batch, int c, int h, int w,
                int padding, int oh, int ow, int parts, int room_values, int room_entries)
{
    extern __shared__ __align__(16) unsigned char shared[];
    constexpr int lists_each = lists_of<ROWS, HEIGHTS>;
    const Images in = {x, batch, c, h, w, padding};
    const int slab = blockIdx.x % slabs, tile = blockIdx.x / slabs;
    const int warp = threadIdx.x / 32 % WARPS, sub = threadIdx.x / (32 * WARPS);
    const int image0 = tile / parts * ALL_IMAGES, part = tile % parts;
    const Lane mine = lane_of(threadIdx.x % 32, sub, ow);
    const int origin = part * (BANDS ? BANDS * POSITIONS * SUBS * PITCH : 32 * POSITIONS * SUBS);
    const int start = mine.image * SPAN + mine.first;

    float sums[ROWS][PIXELS];
    clear(sums);
    const int chunks = (c + CHANNELS - 1) / CHANNELS;
    Buffer now = buffer_in(shared, 0, room_values, room_entries);
    stage_planes(now.planes, in, image0, origin, 0);
    stage_lists(now, regions, starts, offsets, values, slab * chunks);
    commit_copies();
    for (int chunk = 0; chunk < chunks; ++chunk) {
        Buffer next = now;
        if (chunk + 1 < chunks) {
            next = buffer_in(shared, (chunk + 1) % 2, room_values, room_entries);
            stage_planes(next.planes, in, image0, origin, (chunk + 1) * CHANNELS);
            stage_lists(next, regions, starts, offsets, values, slab * chunks + chunk + 1);
        }
        commit_copies();
        wait_copies<1>();
        __syncthreads();
        Lists<Offset, float> lists = {now.starts + 2 * warp * lists_each, now.offsets, now.values};
        add_levels<HEIGHTS>(sums, lists, StagedPixels{now.planes + start});
        __syncthreads();  // the buffer just read is filled again next
        now = next;
    }

    int to[PIXELS / VECTOR];  // where each of the lane's pixels stands in row 0 of Y; -1: nowhere
#pragma unroll
    for (int slot = 0; slot < PIXELS / VECTOR; ++slot) {
        const int image = image0 + mine.image + slot * VECTOR / POSITIONS * LANE_IMAGES;
        const int at = origin + mine.first + slot % (POSITIONS / VECTOR) * STEP;
        const bool exists = at / PITCH < oh && at % PITCH < ow && image < batch && !mine.idle;
        to[slot] = exists ? image * m * (oh * ow) + at / PITCH * ow + at % PITCH : -1;
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int row = rows[(slab * WARPS + warp) * ROWS + r];
        if (row < 0) continue;
#pragma unroll
        for (int slot = 0; slot < PIXELS / VECTOR; ++slot) {
            if (to[slot] < 0) continue;
            float made[VECTOR];
#pragma unroll
            for (int p = 0; p < VECTOR; ++p) made[p] = sums[r][slot * VECTOR + p];
            store_rounded<ELEMENT, VECTOR>(y + to[slot] + row * (oh * ow), made);
        }
    }
}
