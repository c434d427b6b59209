// ptx.cuh of the tests: the functions of kernels/include/ptx.cuh, each in plain C++ over the fibers of block.h.
//
// What a lane holds is written out from the PTX ISA (mma.m16n8k16, mma.m16n8k8, ldmatrix), not taken from the other
// file's comments; test_cuda_shim.py checks it against numpy.

#pragma once

// ---------------------------------------------------------------------------------------------------------- numbers

__device__ inline float float_of_f16(unsigned short bits)
{
    unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ffu;
    if (exponent == 31)
        return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent)
        return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float tiny = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -tiny : tiny;
}

namespace shim {

// Shifts `bits` right by `by` (at most 31), to nearest even.
static inline unsigned shifted_to_even(unsigned bits, int by)
{
    unsigned kept = bits >> by, rest = bits & ((1u << by) - 1), half = 1u << (by - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
}

}  // namespace shim

__device__ inline unsigned short f16_of_float(float value)
{
    unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u)
        return 0x7fff;  // NaN, as cvt.rn.f16.f32 writes it
    if (size >= 0x47800000u)
        return static_cast<unsigned short>(sign | 0x7c00u);  // 2**16 and above, infinity
    if (size >= 0x38800000u)  // 2**-14: normal; rounding may carry into the exponent, up to infinity
        return static_cast<unsigned short>(sign | shim::shifted_to_even(size - 0x38000000u, 13));
    if (size < 0x33000000u)  // below half of the least subnormal
        return static_cast<unsigned short>(sign);
    int by = 126 - static_cast<int>(size >> 23);
    return static_cast<unsigned short>(sign | shim::shifted_to_even((size & 0x7fffffu) | 0x800000u, by));
}

__device__ inline float float_of_bf16(unsigned short bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }

__device__ inline unsigned short bf16_of_float(float value)
{
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return static_cast<unsigned short>(shim::shifted_to_even(bits, 16));
}

__device__ inline unsigned tf32_of_float(float value)
{
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7f800000u) == 0x7f800000u)
        return bits & 0x7fffffu ? 0x7fffffffu : bits;  // a NaN of low bits alone would be read as infinity
    return (bits + 0x1000u) & 0xffffe000u;  // to nearest, ties away from zero
}

// ------------------------------------------------------------------------------------------------------- cp.async

__device__ inline unsigned shared_address(const void* at) { return static_cast<unsigned>(__cvta_generic_to_shared(at)); }

__device__ inline void store_shared(void* to, const unsigned (&words)[4])
{
    *static_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

template <int BYTES>
__device__ inline void copy_async(void* to, const void* from, int take = BYTES, SHIM_HERE)
{
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    shim::begin_copy(to, from, BYTES, take, {"copy_async", file, line});
}

__device__ inline void commit_copies() { shim::commit_copies(); }

template <int PENDING>
__device__ inline void wait_copies()
{
    static_assert(PENDING >= 0);
    shim::wait_copies(PENDING);
}

// ------------------------------------------------------------------------------------------------------- ldmatrix

namespace shim {

static inline unsigned pair(unsigned short low, unsigned short high) { return low | static_cast<unsigned>(high) << 16; }

static inline const unsigned short* row_of(const Slot* slots, unsigned matrix, unsigned row)
{
    return shown<const unsigned short*>(slots, matrix * 8 + row);
}

static inline const Slot* show_rows(const void* row, Place place)
{
    if (reinterpret_cast<size_t>(row) % 16)
        stop(place, "the address of a row is not a multiple of 16 bytes");
    return exchange(ALL, row, place, true);
}

}  // namespace shim

__device__ inline void load_matrices(unsigned (&out)[4], const void* row, SHIM_HERE)
{
    const shim::Slot* slots = shim::show_rows(row, {"load_matrices", file, line});
    unsigned lane = shim::current->lane;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        const unsigned short* from = shim::row_of(slots, matrix, lane / 4) + lane % 4 * 2;
        out[matrix] = shim::pair(from[0], from[1]);
    }
}

__device__ inline void load_matrices_transposed(unsigned (&out)[4], const void* row, SHIM_HERE)
{
    const shim::Slot* slots = shim::show_rows(row, {"load_matrices_transposed", file, line});
    unsigned lane = shim::current->lane, column = lane / 4, first = lane % 4 * 2;
    for (unsigned matrix = 0; matrix < 4; ++matrix)
        out[matrix] = shim::pair(shim::row_of(slots, matrix, first)[column], shim::row_of(slots, matrix, first + 1)[column]);
}

// ------------------------------------------------------------------------------------------------------------ mma

namespace shim {

struct Operands {
    float a[8], b[4];  // as a lane holds them, low half first
};

// d += A B for this lane's four entries. `a` finds lane and place of A's (row, index), `b` of B's (index, column).
template <int DEPTH, typename A, typename B>
void multiply_add(float (&d)[4], const Operands& mine, A a, B b, Place place)
{
    const Slot* slots = exchange(ALL, mine, place, true);
    unsigned group = current->lane / 4, thread = current->lane % 4;
    for (unsigned entry = 0; entry < 4; ++entry) {
        unsigned row = group + entry / 2 * 8, column = 2 * thread + entry % 2;
        double sum = d[entry];
        for (unsigned i = 0; i < DEPTH; ++i)
            sum += static_cast<double>(a(slots, row, i)) * static_cast<double>(b(slots, i, column));
        d[entry] = static_cast<float>(sum);
    }
}

static inline float a_at(const Slot* slots, unsigned lane, unsigned at)
{
    return reinterpret_cast<const Operands*>(slots[lane].bytes)->a[at];
}

static inline float b_at(const Slot* slots, unsigned lane, unsigned at)
{
    return reinterpret_cast<const Operands*>(slots[lane].bytes)->b[at];
}

// mma.m16n8k16 with 16-bit operands: A's registers are (row, index) = (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8).
template <typename Convert>
void multiply_add_16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Convert convert, Place place)
{
    Operands mine;
    for (int i = 0; i < 8; ++i)
        mine.a[i] = convert(static_cast<unsigned short>(a[i / 2] >> i % 2 * 16));
    for (int i = 0; i < 4; ++i)
        mine.b[i] = convert(static_cast<unsigned short>((i < 2 ? b0 : b1) >> i % 2 * 16));
    auto from_a = [](const Slot* slots, unsigned row, unsigned index) {
        unsigned reg = row / 8 + index / 8 * 2;
        return a_at(slots, row % 8 * 4 + index % 8 / 2, 2 * reg + index % 2);
    };
    auto from_b = [](const Slot* slots, unsigned index, unsigned column) {
        return b_at(slots, column * 4 + index % 8 / 2, index / 8 * 2 + index % 2);
    };
    multiply_add<16>(d, mine, from_a, from_b, place);
}

}  // namespace shim

__device__ inline void multiply_add_f16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, SHIM_HERE)
{
    shim::multiply_add_16(d, a, b0, b1, float_of_f16, {"multiply_add_f16", file, line});
}

__device__ inline void multiply_add_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, SHIM_HERE)
{
    shim::multiply_add_16(d, a, b0, b1, float_of_bf16, {"multiply_add_bf16", file, line});
}

// mma.m16n8k8 with TF32, whose low 13 bits a tensor core does not read.
__device__ inline void multiply_add_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, SHIM_HERE)
{
    auto seen = [](unsigned bits) { return __uint_as_float(bits & 0xffffe000u); };
    shim::Operands mine{{seen(a[0]), seen(a[1]), seen(a[2]), seen(a[3])}, {seen(b0), seen(b1)}};
    auto from_a = [](const shim::Slot* slots, unsigned row, unsigned index) {
        return shim::a_at(slots, row % 8 * 4 + index % 4, row / 8 + index / 4 * 2);
    };
    auto from_b = [](const shim::Slot* slots, unsigned index, unsigned column) {
        return shim::b_at(slots, column * 4 + index % 4, index / 4);
    };
    shim::multiply_add<8>(d, mine, from_a, from_b, {"multiply_add_tf32", file, line});
}
