// watch.h: who read and wrote which bytes of shared and global memory since the last barrier.
//
// Bodies are compiled with -fsanitize=thread, which puts a call before every read and write of memory; watch.cpp
// answers these calls instead of the sanitizer's own library. Two accesses of different threads to one place, one of
// them a write, are a race unless __syncthreads (or, within a warp, __syncwarp) lies between. Shuffles, ldmatrix and
// mma order no memory. So a missing barrier is found in any order of threads, and no luck hides it. Atomics are exempt.
// Shared memory that is read must have been written by the block.
//
// The same calls find what pages without access miss: the up to 15 bytes after a buffer's end, and any address that is
// in no tensor, not in shared memory and not on the thread's own stack.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "block.h"

namespace shim {

struct Launch;

constexpr int MANY_LANES = -1, MANY_WARPS = -2, MANY_BLOCKS = -3;  // Access::thread of several readers

// The last write of a place, or all reads of it that no barrier has ended.
struct Access {
    std::uint32_t block = 0;  // unique over launches; 0: none
    std::uint32_t barriers = 0, syncs = 0;  // of the block and of the warp, passed before it
    std::int16_t thread = 0, warp = 0;
    const void* code = nullptr;
};

// Two bytes: no body keeps narrower elements.
struct Pair {
    Access write, reads;
};

// A run of bytes that is watched.
class Room {
  public:
    // `shared`: every block has its own.
    Room(std::string name, const void* start, std::size_t bytes, bool shared)
        : name(std::move(name)), start(static_cast<const unsigned char*>(start)), bytes(bytes), shared(shared)
    {
    }

    // Up to 15 bytes beyond the end are this room's too, so that a step over the end is not lost.
    bool holds(const unsigned char* at) const { return at >= start && at < start + (bytes + 15) / 16 * 16; }

    bool holds_all(const unsigned char* at, std::size_t size) const
    {
        return at >= start && at + size <= start + bytes;
    }

    void resize(const void* new_start, std::size_t new_bytes)
    {
        start = static_cast<const unsigned char*>(new_start);
        bytes = new_bytes;
    }

    // Notes an access and says whether all is well. `first` is the serial number of the launch's first block.
    bool note(const unsigned char* at, std::size_t size, bool writes, const Access& now, std::uint32_t first);

    // What was wrong with the access that note() just refused.
    std::string complaint(const unsigned char* at, std::size_t size, bool writes, const Access& now,
                          std::uint32_t first) const;

    std::string name;

  private:
    const unsigned char* start;
    std::size_t bytes;
    bool shared;
    std::vector<Pair> pairs;
};

// Of the running thread. Called by what the compiler puts before accesses, and by the runtime for what it copies.
void watch(const void* at, std::size_t size, bool writes, const void* code);

// An atomic is no race, but it must hit a tensor or shared memory.
void watch_atomic(const void* at, std::size_t size, const void* code);

}  // namespace shim
