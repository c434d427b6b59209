// Items: what W, X and Y are stored as. Sums are floats, whatever items are.
//
//   item           float, or bfloat16 where a body is compiled with ITEM_BITS = 16: the upper half of a float's bits
//   widen, narrow  an item as a float, and back to the nearest item, ties to even
//   *_items        LANES of them; *_items_some the first `count` (1 <= count <= LANES), nothing beyond is touched
//   widened        a run of items as floats: where they are, or in `room`, whole vectors of it
//   sums_of        floats for items to be written: those items, or `room` behind a widened X [k]; `narrowed` writes then
//   ROOM           floats that a run of W needs
//   floats_at      items as floats where they are, for bodies that need no slab; 0 where items are no floats
//   RUN            where a run of entries that starts at `first` ends, `each` items an entry
#ifndef SPARSEBENCH_ITEMS_H
#define SPARSEBENCH_ITEMS_H

#include "vector.h"

// `count` up to whole vectors.
INLINE int64_t whole_vectors(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

#if defined(ITEM_BITS) && ITEM_BITS == 16

typedef uint16_t item;
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t wholes __attribute__((vector_size(4 * LANES)));

INLINE float widen(item value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

INLINE vec widen_lanes(halves values) { return (vec)(__builtin_convertvector(values, wholes) << 16); }

// Half of the last place is added to all, and a carry does the rest. NaN stays one.
INLINE halves narrow_lanes(vec value)
{
#if defined(__AVX512BF16__) && LANES == 16
    return (halves)_mm512_cvtneps_pbh((__m512)value);
#else
    wholes bits = (wholes)value, nan = (wholes)(value != value);
    wholes near = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return __builtin_convertvector((nan & 0x7fc0) | (~nan & near), halves);
#endif
}

INLINE vec load_items(const item* from) { return widen_lanes(*(const halves*)from); }

INLINE void store_items(item* to, vec value) { *(halves*)to = narrow_lanes(value); }

// Lanes [first, first + count) from the same places behind `from`, zeros in the others.
INLINE vec load_items_between(const item* from, int first, int count)
{
    halves some = {0};
#if defined(__AVX512BW__) && defined(__AVX512VL__) && LANES == 16
    some = (halves)_mm256_maskz_loadu_epi16((__mmask16)(((1u << count) - 1) << first), from);
#else
    for (int lane = first; lane < first + count; ++lane) some[lane] = from[lane];
#endif
    return widen_lanes(some);
}

INLINE vec load_items_some(const item* from, int count)
{
    return count == LANES ? load_items(from) : load_items_between(from, 0, count);
}

// The same lanes to the same places behind `to`.
INLINE void store_items_between(item* to, vec value, int first, int count)
{
    halves some = narrow_lanes(value);
#if defined(__AVX512BW__) && defined(__AVX512VL__) && LANES == 16
    _mm256_mask_storeu_epi16(to, (__mmask16)(((1u << count) - 1) << first), (__m256i)some);
#else
    for (int lane = first; lane < first + count; ++lane) to[lane] = some[lane];
#endif
}

INLINE void store_items_some(item* to, vec value, int count)
{
    if (count == LANES) store_items(to, value);
    else store_items_between(to, value, 0, count);
}

#define ROOM 256
#define RUN(first, end, each) ((end) - (first) <= ROOM / (each) ? (end) : (first) + ROOM / (each))

INLINE int some_of(int64_t count) { return count < LANES ? (int)count : LANES; }

// Always by 16: with narrower vectors the lists of few columns take twice as long (measured, Cascade Lake).
INLINE const float* widened(const item* from, int64_t count, float* room)
{
    typedef uint16_t narrow_run __attribute__((vector_size(32), aligned(2), may_alias));
    typedef uint32_t wide_run __attribute__((vector_size(64), aligned(4), may_alias));
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        *(wide_run*)(room + i) = __builtin_convertvector(*(const narrow_run*)(from + i), wide_run) << 16;
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    __m256i last = _mm256_maskz_loadu_epi16((__mmask16)((1u << (count - i)) - 1), from + i);
    if (i < count) _mm512_storeu_si512(room + i, _mm512_slli_epi32(_mm512_cvtepu16_epi32(last), 16));
#else
    for (; i < count; ++i) room[i] = widen(from[i]);
#endif
    return room;
}

INLINE const float* floats_at(const item* at)
{
    (void)at;
    return 0;
}

INLINE float* sums_of(item* to, float* room, int64_t k)
{
    (void)to;
    return room + whole_vectors(k);
}

INLINE void narrowed(const float* sums, int64_t count, item* to)
{
    for (int64_t i = 0; i < count; i += LANES) store_items_some(to + i, load(sums + i), some_of(count - i));
}

#else

typedef float item;

INLINE float widen(item value) { return value; }
INLINE vec load_items(const item* from) { return load(from); }
INLINE void store_items(item* to, vec value) { store(to, value); }
INLINE vec load_items_some(const item* from, int count) { return load_some(from, count); }
INLINE void store_items_some(item* to, vec value, int count) { store_some(to, value, count); }

INLINE vec load_items_between(const item* from, int first, int count) { return load_between(from, first, count); }

INLINE void store_items_between(item* to, vec value, int first, int count)
{
    store_between(to, value, first, count);
}

#define ROOM 1
#define RUN(first, end, each) (end)

INLINE const float* floats_at(const item* at) { return at; }

INLINE const float* widened(const item* from, int64_t count, float* room)
{
    (void)count, (void)room;
    return from;
}

INLINE float* sums_of(item* to, float* room, int64_t k)
{
    (void)room, (void)k;
    return to;
}

INLINE void narrowed(const float* sums, int64_t count, item* to) { (void)sums, (void)count, (void)to; }

#endif

#endif
