"""CUDA C++ bodies on the CPU: fibers for threads, plain C++ for the instructions of ptx.cuh, checks on every launch.

A body's text becomes one C++ file: cuda.h before it gives CUDA's words a meaning, include/ptx.cuh takes the place of
kernels/include/ptx.cuh, __shared__ arrays become thread-local variables. g++ compiles it once a function (build.py).
A launch (toolchain.py, launch.cpp) runs its blocks one after the other; the threads of a block are fibers (fibers.h),
each of which runs until a barrier or an exchange of its warp. Which goes on next is the order's to say (order.h).

What is checked, with the file that does it; tests/test_cuda_shim_*.py plant each fault:
    watch.cpp     every access that g++ would show its thread sanitizer: it is in a tensor, in shared memory or on the
                  thread's own stack; a barrier orders it after what other threads wrote or read there, whatever the
                  order of threads; shared memory was written before it is read
    block.cpp     barriers and exchanges that some threads of the block or lanes of the warp do not reach
    memory.cpp    shared memory is full of NaN (integers: -1) when a block starts, as Y is
    copies.cpp    cp.async destroys its target at once and delivers at the wait
    faults.cpp    misaligned vectors, indices beyond an array, shifts, overflow, division by zero, stacks that run over,
                  loops without end: traps of the compiler's checks, signals, and a clock
    toolchain.py  what CUDA refuses to launch: arguments, sizes of grid and block, __launch_bounds__, shared memory

What it cannot see:
    - A wrong address within the same tensor or the same run of shared memory: values show it, or nothing does. An index
      is held against its array's own end, a pointer against the end of all static arrays together.
    - Races of atomics, of __device__ variables, and between launches. Reads of X through the read-only cache where the
      launch writes too. Two threads that write neighbouring bytes are said to race: elements have at least two.
    - Code in which a block waits for another never ends here; fences and flags between blocks are said to race.
    - Barriers and exchanges of a part of a warp, and barriers after some threads have ended, which a GPU may allow, are
      refused.
    - Alignment is that of the address at hand: a static array may lie better than its type demands.
    - A float too large for the integer it becomes, and what nvcc does otherwise than g++: products and sums that it
      contracts, the order of a tensor core's sums. Registers, spills, occupancy, time.
"""
