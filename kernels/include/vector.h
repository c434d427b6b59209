// Vectors of floats for all bodies, from one source: GCC's and Clang's vector extensions.
//
//   vec            LANES floats: 16 with AVX-512, 8 with AVX, else 4 (NEON, SSE; plain C where there is neither)
//   a + b, w * a   element by element; a scalar operand is broadcast; `a += w * b` becomes one FMA
//   load, store    any address, no alignment asked
//   *_some         the first `count` floats alone (1 <= count <= LANES): nothing beyond them is read or written
//   pick           one float at an index, for products with n = 1
//   FOR_COLUMNS    cuts the n columns of X and Y into register tiles, ragged ends included
//
// A tile of `rows` x `vectors` accumulators has to fit in the register file beside `vectors` loads of X, or the compiler
// spills every step: VECTORS_FOR(rows) is the widest that does. 4 rows x 4 vectors with AVX-512 reached 85 % of a core's
// peak at n = 256, 1 row x 4 vectors 32 % (measured, Zen 5, 2048x512 at sparsity 0.9): there each X load feeds one FMA.
#ifndef SPARSEBENCH_VECTOR_H
#define SPARSEBENCH_VECTOR_H

#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
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

#if defined(__AVX512F__)

INLINE vec load_some(const float* from, int count)
{
    return count == LANES ? load(from) : (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
}

INLINE void store_some(float* to, vec value, int count)
{
    if (count == LANES) store(to, value);
    else _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
}

#elif defined(__AVX__)

INLINE __m256i first_lanes(int count)
{
    static const int32_t ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i*)(ones_then_zeros + LANES - count));
}

INLINE vec load_some(const float* from, int count)
{
    return count == LANES ? load(from) : (vec)_mm256_maskload_ps(from, first_lanes(count));
}

INLINE void store_some(float* to, vec value, int count)
{
    if (count == LANES) store(to, value);
    else _mm256_maskstore_ps(to, first_lanes(count), (__m256)value);
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

// from[index] as a load of its own. Left alone, a compiler makes gather instructions of several, and a CSR matrix-vector
// product then takes 1.3 to 3.5 times as long (measured, Cascade Lake, three DLMC layers).
INLINE float pick(const float* from, int64_t index)
{
    __asm__("" : "+r"(index));
    return from[index];
}

// Lanes of vector v in a tile of `vectors` whose last one holds `last` columns.
INLINE int lanes_of(int v, int vectors, int last) { return v == vectors - 1 ? last : LANES; }

// Vectors a tile of 1, 2, 4 or 8 rows may be wide: 32 registers with AVX-512 and on 64-bit ARM, 16 elsewhere.
#if defined(__AVX512F__) || defined(__aarch64__)
#define VECTORS_FOR(rows) ((rows) <= 4 ? 4 : 2)
#else
#define VECTORS_FOR(rows) ((rows) <= 2 ? 4 : (rows) <= 4 ? 2 : 1)
#endif

// FOR_COLUMNS(WIDEST, n, TILE) runs TILE(vectors, last, n0) over all columns 0 <= n0 < n.
//
// `vectors` is a literal 1..WIDEST (WIDEST: 1, 2 or 4), so that a tile's loops unroll and its accumulators live in
// registers; the tile covers (vectors - 1) * LANES + last columns from n0 on. `last` is the literal LANES in whole
// tiles, where load_some and store_some turn into plain moves, and 1..LANES in the ragged one.
#define FOR_COLUMNS(WIDEST, n, TILE)                                                                                   \
    do {                                                                                                               \
        int64_t n0_ = 0;                                                                                               \
        for (; n0_ + (WIDEST) * LANES <= (n); n0_ += (WIDEST) * LANES) TILE(WIDEST, LANES, n0_);                       \
        int rest_ = (int)((n)-n0_);                                                                                    \
        if (rest_ == 0) break;                                                                                         \
        int vectors_ = (rest_ + LANES - 1) / LANES, last_ = rest_ - (vectors_ - 1) * LANES;                            \
        if (vectors_ == 1) TILE(1, last_, n0_);                                                                        \
        if ((WIDEST) >= 2 && vectors_ == 2) TILE(((WIDEST) >= 2 ? 2 : 1), last_, n0_);                                 \
        if ((WIDEST) >= 4 && vectors_ == 3) TILE(((WIDEST) >= 4 ? 3 : 1), last_, n0_);                                 \
        if ((WIDEST) >= 4 && vectors_ == 4) TILE(((WIDEST) >= 4 ? 4 : 1), last_, n0_);                                 \
    } while (0)

#endif
