// Vectors of floats for all bodies, from one source: GCC's and Clang's vector extensions.
//
//   vec            LANES floats: 16 with AVX-512, 8 with AVX, else 4 (NEON, SSE; plain C where there is neither); fewer
//                  where a body is compiled with fewer, for products of few columns
//   a + b, w * a   element by element; a scalar operand is broadcast; `a += w * b` becomes one FMA
//   load, store    any address, no alignment asked
//   *_some         the first `count` floats alone (1 <= count <= LANES): nothing beyond them is read or written
//   pick           one float at an index, for products with n = 1
#ifndef SPARSEBENCH_VECTOR_H
#define SPARSEBENCH_VECTOR_H

#include <stdint.h>
#include <string.h>

#ifdef LANES
#define ONE_VECTOR  // strips of few columns are one vector wide; bodies leave out the others, four fifths of their code
#else
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#endif

#if defined(__AVX__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float* from) { return *(const vec*)from; }

INLINE void store(float* to, vec value) { *(vec*)to = value; }

#if defined(__AVX512F__) && LANES == 16

INLINE vec load_some(const float* from, int count)
{
    return count == LANES ? load(from) : (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
}

INLINE void store_some(float* to, vec value, int count)
{
    if (count == LANES) store(to, value);
    else _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
}

#elif defined(__AVX__) && LANES <= 8

#if LANES == 8
#define MASKED(name) _mm256_mask##name
typedef __m256i mask;
typedef __m256 masked;
#else
#define MASKED(name) _mm_mask##name
typedef __m128i mask;
typedef __m128 masked;
#endif

INLINE mask first_lanes(int count)
{
    static const int32_t ones_then_zeros[2 * LANES] = {[0 ... LANES - 1] = -1};
    mask lanes;
    memcpy(&lanes, ones_then_zeros + LANES - count, sizeof lanes);
    return lanes;
}

INLINE vec load_some(const float* from, int count)
{
    return count == LANES ? load(from) : (vec)MASKED(load_ps)(from, first_lanes(count));
}

INLINE void store_some(float* to, vec value, int count)
{
    if (count == LANES) store(to, value);
    else MASKED(store_ps)(to, first_lanes(count), (masked)value);
}

#else

INLINE vec load_some(const float* from, int count)
{
    vec value = {0};
    if (count == LANES) return load(from);
    for (int lane = 0; lane < count; ++lane) value[lane] = from[lane];
    return value;
}

INLINE void store_some(float* to, vec value, int count)
{
    if (count == LANES) store(to, value);
    else for (int lane = 0; lane < count; ++lane) to[lane] = value[lane];
}

#endif

// Lanes [first, first + count) of `value` to the same places behind `to`; nothing else is written.
INLINE void store_between(float* to, vec value, int first, int count)
{
#if defined(__AVX512F__) && LANES == 16
    _mm512_mask_storeu_ps(to, (__mmask16)(((1u << count) - 1) << first), (__m512)value);
#else
    for (int lane = first; lane < first + count; ++lane) to[lane] = value[lane];
#endif
}

// The same lanes loaded, zeros in the others.
INLINE vec load_between(const float* from, int first, int count)
{
#if defined(__AVX512F__) && LANES == 16
    return (vec)_mm512_maskz_loadu_ps((__mmask16)(((1u << count) - 1) << first), from);
#else
    vec value = {0};
    for (int lane = first; lane < first + count; ++lane) value[lane] = from[lane];
    return value;
#endif
}

// from[index] as a load of its own. Left alone, a compiler makes gather instructions of several, and a CSR matrix-vector
// product then takes 1.3 to 3.5 times as long (measured, Cascade Lake, three DLMC layers).
INLINE float pick(const float* from, int64_t index)
{
    __asm__("" : "+r"(index));
    return from[index];
}

// Rows become columns: lane c of rows[r] and lane r of rows[c] change places.
INLINE void transpose(vec rows[LANES])
{
#if defined(__clang__)
    vec from[LANES];
    for (int r = 0; r < LANES; ++r) from[r] = rows[r];
    for (int r = 0; r < LANES; ++r)
        for (int c = 0; c < LANES; ++c) rows[c][r] = from[r][c];
#else
    typedef int32_t places __attribute__((vector_size(4 * LANES)));
    places lane;
    UNROLL for (int l = 0; l < LANES; ++l) lane[l] = l;
    UNROLL for (int step = 1; step < LANES; step *= 2) {
        // Blocks of step x step change places across the diagonal. A comparison is -1 where it holds.
        const places odd = (lane & step) != 0, low = lane + (odd & (LANES - step)), high = lane + (odd & LANES) + (~odd & step);
        UNROLL for (int r = 0; r < LANES; ++r)
            if (!(r & step)) {
                vec upper = rows[r], lower = rows[r + step];
                rows[r] = __builtin_shuffle(upper, lower, low);
                rows[r + step] = __builtin_shuffle(upper, lower, high);
            }
    }
#endif
}

// Bring the cache line of `from` into the first-level cache; any address, nothing is read.
INLINE void prefetch(const void* from) { __builtin_prefetch(from, 0, 3); }

#endif
