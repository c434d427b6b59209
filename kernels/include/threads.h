// EACH_THREAD(threads, t) statement: one turn for each thread, all at once where the body is compiled with OpenMP.
#ifndef SPARSEBENCH_THREADS_H
#define SPARSEBENCH_THREADS_H

#include <stdint.h>

#define PRAGMA(words) _Pragma(#words)
#if defined(_OPENMP)
#define EACH_THREAD(threads, t)                                                                                        \
    PRAGMA(omp parallel for num_threads((int)(threads)) schedule(static, 1) if ((threads) > 1))                        \
    for (int64_t t = 0; t < (threads); ++t)
#else
#define EACH_THREAD(threads, t) for (int64_t t = 0; t < (threads); ++t)
#endif

#endif
