// vectors.h: CUDA's short vectors, float2 to ulonglong4, with their alignment.

#pragma once

#define SHIM_VECTORS(T, name)                                                                   \
    struct name##1 { T x; };                                                                    \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                          \
    struct name##3 { T x, y, z; };                                                              \
    struct alignas(sizeof(T) > 4 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; };               \
    static inline name##1 make_##name##1(T x) { return {x}; }                                   \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                           \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                   \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SHIM_VECTORS(signed char, char)
SHIM_VECTORS(unsigned char, uchar)
SHIM_VECTORS(short, short)
SHIM_VECTORS(unsigned short, ushort)
SHIM_VECTORS(int, int)
SHIM_VECTORS(unsigned, uint)
SHIM_VECTORS(long long, longlong)
SHIM_VECTORS(unsigned long long, ulonglong)
SHIM_VECTORS(float, float)
SHIM_VECTORS(double, double)

#undef SHIM_VECTORS

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
