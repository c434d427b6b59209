// Dense blocks of one size: a bsr matrix W[m, k], or one level of an hbs matrix.
#ifndef SPARSEBENCH_BLOCKS_H
#define SPARSEBENCH_BLOCKS_H

#include "items.h"

typedef struct {
    int64_t bh, bw;
    const int32_t* offsets;  // [m / bh + 1]
    const int32_t* columns;  // [blocks]
    const item* values;      // [blocks, bh, bw]
} Blocks;

#endif
