// block.h: one thread block as the kernel sees it: its threads, warps and barriers. block.cpp runs it.
//
// Every CUDA thread is a fiber, and a block runs on one thread of the operating system. A thread runs until it meets a
// barrier or ends; what runs next is for the order to say (order.h), so that code which leans on luck is found out.

#pragma once

namespace shim {

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

struct Index {
    unsigned x, y, z;
};

// Where in the source something happens: shown in errors, and two barriers are the same one only in the same place.
struct Place {
    const char* what;
    const char* file;
    int line;
};

struct Block;
struct Copies;

// What the lanes of a warp show each other: room for one lane's operands of an mma in float.
struct alignas(16) Slot {
    unsigned char bytes[64];
};

struct Warp {
    unsigned ready = 0;     // lanes that can run
    unsigned waiting = 0;   // lanes at a warp barrier
    unsigned ended = 0;     // lanes that are through, or that the block is too small for
    unsigned left = 0;      // those of them when the lanes last met: what an exchange shows cannot change after it
    unsigned exchanges = 0;  // passed; each uses the other half of the slots, so nobody overwrites an unread one
    unsigned syncs = 0;      // those of them that were __syncwarp, which orders memory
    bool at_sync = false;    // whether the lanes that wait do so at one
    Slot slots[2][WARP];
};

struct Thread {
    Block* block;
    Warp* warp;
    Copies* copies;
    unsigned lane, number;
    Index index;
    void* stack;  // where its registers are while it does not run
    const unsigned char* stack_end;
    bool at_block_barrier;
    Place place;  // of the barrier at which it waits
};

// The thread that runs now; null outside of a launch.
extern thread_local constinit Thread* current;

struct Shape {
    Index grid, block;
};
const Shape& shape();
Index block_index();
unsigned char* dynamic_shared();

// Returns when all threads of the block are at this place.
void block_barrier(Place place);

// Returns when all lanes of the warp that have not ended are at this place. With `whole` no lane may be missing.
void warp_barrier(unsigned mask, Place place, bool whole = false);

// __syncwarp: a warp barrier after which all lanes see what any of them wrote.
void warp_sync(unsigned mask, Place place);

// Ends the launch with an error that names thread and block; never returns.
[[noreturn]] void stop(Place place, const char* reason);

// All lanes show `mine`; afterwards any lane may look at any lane's until the warp's next exchange.
template <typename T>
const Slot* exchange(unsigned mask, const T& mine, Place place, bool whole = false)
{
    static_assert(sizeof(T) <= sizeof(Slot), "too much for one exchange");
    Slot* slots = current->warp->slots[current->warp->exchanges & 1];
    __builtin_memcpy(slots[current->lane].bytes, &mine, sizeof(T));
    warp_barrier(mask, place, whole);
    return slots;
}

template <typename T>
T shown(const Slot* slots, unsigned lane)
{
    T value;
    __builtin_memcpy(&value, slots[lane].bytes, sizeof(T));
    return value;
}

// cp.async (copies.cpp): nothing arrives before it is waited for, and what was there before is gone at once.
void begin_copy(void* to, const void* from, int bytes, int take, Place place);
void commit_copies();
void wait_copies(int pending);

int add_atomically(int* to, int value);
float add_atomically(float* to, float value);

}  // namespace shim
