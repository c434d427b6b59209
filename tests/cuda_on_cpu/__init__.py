"""CUDA C++ bodies on the CPU: fibers for threads, plain C++ for the instructions of ptx.cuh, checks on every launch."""
