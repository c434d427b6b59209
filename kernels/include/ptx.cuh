// ptx.cuh: every instruction that CUDA C++ has no word for, each behind one small function.
//
// Bodies hold no inline assembly of their own. The tests run them on a CPU by putting another file of this name, with
// the same functions written in C++, first on the include path. Instructions are those of sm_80, which sm_90 keeps.
//
// Nothing here includes a CUDA header, so NVRTC needs no toolkit on disk.

#pragma once

// ---------------------------------------------------------------------------------------------------------- numbers

// IEEE binary16 and bfloat16 to and from float, rounded to nearest even.
__device__ __forceinline__ float float_of_f16(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ unsigned short f16_of_float(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ float float_of_bf16(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

__device__ __forceinline__ unsigned short bf16_of_float(float value)
{
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// `value` with the 10 bits of mantissa that a tensor core reads, rounded to nearest, ties away from zero.
__device__ __forceinline__ unsigned tf32_of_float(float value)
{
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// ------------------------------------------------------------------------------------------------------- cp.async

__device__ __forceinline__ unsigned shared_address(const void* at) { return (unsigned)__cvta_generic_to_shared(at); }

// Four words into shared memory at once, `to` a multiple of 16 bytes. A uint4 that is assigned may be taken apart again:
// nvcc 13.0 makes four 4-byte stores of one whose words a loop carries [compiled], four times the bank conflicts.
__device__ __forceinline__ void store_shared(void* to, const unsigned (&words)[4])
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(to)), "r"(words[0]), "r"(words[1]),
                 "r"(words[2]), "r"(words[3])
                 : "memory");
}

// Copies of 4, 8 or 16 bytes, global to shared, that run on their own; `take` bytes come from memory, the rest is zero.
// Both addresses are multiples of the size. With take = 0 nothing is read, but `from` must still be a valid address.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, int take = BYTES)
{
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(take)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES),
                     "r"(take)
                     : "memory");
}

// Closes the group of copies begun since the last commit.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's newest groups are unfinished. Other threads' copies need a barrier too.
template <int PENDING>
__device__ __forceinline__ void wait_copies()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// ------------------------------------------------------------------------------------------------------- ldmatrix

// Four 8x8 matrices of 16-bit elements from shared memory: lane i gives the 16-byte aligned address of row i % 8 of
// matrix i / 8, and lane i receives in out[j] the elements (row i / 4, columns 2 (i % 4) and the next) of matrix j.
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, each matrix transposed: lane i receives (rows 2 (i % 4) and the next, column i / 4).
__device__ __forceinline__ void load_matrices_transposed(unsigned (&out)[4], const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// ------------------------------------------------------------------------------------------------------------ mma

// d += a b on tensor cores, a [16, 16] row-major, b [16, 8] column-major, d [16, 8], fp32 sums. Lane i, with g = i / 4
// and t = i % 4, holds
//   a[0..3]  (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), each with the next column in its high half
//   b[0..1]  (2t, g), (2t + 8, g), each with the next row in its high half
//   d[0..3]  (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
__device__ __forceinline__ void multiply_add_f16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void multiply_add_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same with TF32, a [16, 8], b [8, 8]: lane i holds
//   a[0..3]  (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)
//   b[0..1]  (t, g), (t + 4, g)
__device__ __forceinline__ void multiply_add_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
