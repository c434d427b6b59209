// Measured peaks of one core: what a roofline may be drawn from. Own.
//
//   fma_f32     runs `rounds` of CHAINS independent fused multiply-adds on 16 floats; 2 * 16 * CHAINS * rounds flops
//   fma_bf16    the same with sums of two products of bfloat16 each, where the processor has them (AVX512_BF16):
//               bf16_products times the flops. Elsewhere that is 1: bfloat16 is widened and multiplied as float32
//   triad_f32   a[i] = b[i] + s * c[i], n floats each: moves 12 n bytes (16 n where the store first reads its line)
//   read_f32    the sum of n floats: moves 4 n bytes
//
// A first loop with too few chains read a third of the rate that a good GEMM then reached: 4-cycle latency times two
// units wants eight chains at least; more are used so that the compiler may hold them in registers as it likes.

#include <stdint.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

typedef float v16 __attribute__((vector_size(64), aligned(4)));
enum { CHAINS = 12 };

float fma_f32(int64_t rounds, float scale)
{
    v16 sums[CHAINS];
    v16 factor = scale - (v16){0};
    for (int chain = 0; chain < CHAINS; ++chain)
        sums[chain] = (v16){0} + (float)chain;
    for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 12
        for (int chain = 0; chain < CHAINS; ++chain)
            sums[chain] = sums[chain] * factor + factor;
    v16 total = {0};
    for (int chain = 0; chain < CHAINS; ++chain)
        total += sums[chain];
    return total[0] + total[7];
}

#ifdef __AVX512BF16__
const int64_t bf16_products = 2;

float fma_bf16(int64_t rounds, float scale)
{
    __m512 sums[CHAINS];
    __m512bh factor = _mm512_cvtne2ps_pbh(_mm512_set1_ps(scale), _mm512_set1_ps(scale));
    for (int chain = 0; chain < CHAINS; ++chain)
        sums[chain] = _mm512_set1_ps((float)chain);
    for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 12
        for (int chain = 0; chain < CHAINS; ++chain)
            sums[chain] = _mm512_dpbf16_ps(sums[chain], factor, factor);
    __m512 total = _mm512_setzero_ps();
    for (int chain = 0; chain < CHAINS; ++chain)
        total = _mm512_add_ps(total, sums[chain]);
    return _mm512_reduce_add_ps(total);
}
#else
const int64_t bf16_products = 1;
#endif

void triad_f32(int64_t n, float s, const float* restrict b, const float* restrict c, float* restrict a)
{
    for (int64_t i = 0; i < n; ++i)
        a[i] = b[i] + s * c[i];
}

float read_f32(int64_t n, const float* a)
{
    v16 sums[4] = {{0}};
    for (int64_t i = 0; i + 64 <= n; i += 64)
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part)
            sums[part] += *(const v16*)(a + i + 16 * part);
    v16 total = sums[0] + sums[1] + sums[2] + sums[3];
    return total[0] + total[7];
}
