// Vectors of four floats, for products with one vector (n = 1), where nonzeros and not columns fill the lanes.
//
// Four, whatever the machine has: blocks are often four high or wide, rows of a condensed matrix are padded to fours,
// and four loads joined to a vector beat the gather instruction (43 against 71 us, condensed 768x3072, sparsity 0.9,
// measured on a Zen 5 core). An FMA takes four cycles, so a body keeps several sums in flight.
#ifndef SPARSEBENCH_FOUR_H
#define SPARSEBENCH_FOUR_H

#include "items.h"

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

INLINE four load_four(const float* from) { return *(const four*)from; }

// Four items of W.
INLINE four four_items(const item* from)
{
#if defined(ITEM_BITS) && ITEM_BITS == 16
    typedef uint16_t quarters __attribute__((vector_size(8), aligned(2), may_alias));
    typedef uint32_t whole_four __attribute__((vector_size(16)));
    return (four)(__builtin_convertvector(*(const quarters*)from, whole_four) << 16);
#else
    return load_four(from);
#endif
}

// x at four 32-bit places.
INLINE four pick_four(const float* x, const int32_t* at)
{
    return (four){pick(x, at[0]), pick(x, at[1]), pick(x, at[2]), pick(x, at[3])};
}

// x at four 16-bit places, which are one load.
INLINE four pick_four_near(const float* x, const uint16_t* at)
{
    uint64_t places;
    memcpy(&places, at, sizeof places);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (four){x[places >> 48], x[places >> 32 & 65535], x[places >> 16 & 65535], x[places & 65535]};
#else
    return (four){x[places & 65535], x[places >> 16 & 65535], x[places >> 32 & 65535], x[places >> 48]};
#endif
}

// Lists stream past once: what is read STREAM_AHEAD entries later is asked for now. Condensed 768x3072, sparsity 0.9: 133
// to 101 us warm, 173 to 122 cold, and 93 and 119 with places of 16 bits in one load (measured, Cascade Lake).
#define STREAM_AHEAD 1024

INLINE float sum_of_four(four value) { return (value[0] + value[1]) + (value[2] + value[3]); }

#endif
