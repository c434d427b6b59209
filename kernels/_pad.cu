// Activations into zero-padded planes, borders and interior written each time.
//
//   x       ELEMENT [planes, h, w]                            row-major
//   padded  ELEMENT [planes, h + 2 padding, w + 2 padding]    row-major, every entry written
//
// Threads:  grid (ceil(entries of padded / (EACH * blockDim.x))); a thread makes EACH entries, blockDim.x apart.
// Demands:  fewer than 2**31 entries of padded.
// Moves:    x and padded once.
// Source:   own.

#include "elements.cuh"

#ifndef ELEMENT
#define ELEMENT float
#endif
#ifndef EACH
#define EACH 4
#endif
#ifndef HEIGHT
#define HEIGHT 34
#endif
#ifndef WIDTH
#define WIDTH 34
#endif

// HEIGHT, WIDTH: of a padded plane; as macros, so that the divisions are multiplications.
extern "C" __global__ void pad_planes(const ELEMENT* __restrict__ x, ELEMENT* __restrict__ padded, int planes,
                                      int padding)
{
    const int h = HEIGHT - 2 * padding, w = WIDTH - 2 * padding;
    const long long first = (long long)blockIdx.x * (EACH * blockDim.x) + threadIdx.x;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const long long entry = first + i * (int)blockDim.x;
        if (entry >= (long long)planes * (HEIGHT * WIDTH)) return;
        const unsigned at = (unsigned)entry % (HEIGHT * WIDTH);
        const int row = (int)(at / WIDTH) - padding, column = (int)(at % WIDTH) - padding;
        ELEMENT value;
        from_float(value, 0.0f);
        if (row >= 0 && row < h && column >= 0 && column < w)
            value = x[((unsigned)entry / (HEIGHT * WIDTH) * h + row) * w + column];
        padded[entry] = value;
    }
}
