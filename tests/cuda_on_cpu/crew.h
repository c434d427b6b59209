// crew.h: what runs blocks one after the other on one thread of the operating system (block.cpp, launch.cpp).

#pragma once

#include <csignal>
#include <ctime>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block.h"
#include "fibers.h"
#include "order.h"
#include "watch.h"

namespace shim {

// cp.async of one thread: copies begun, and how many of them each closed group has.
struct Copies {
    struct Copy {
        unsigned char* to;
        const unsigned char* from;
        int bytes, take;
        const void* code;  // where it was begun
    };
    std::vector<Copy> begun;
    std::vector<std::size_t> groups;
    std::size_t committed = 0;

    void clear();
};

// The code and the constants of a body's library.
struct Image {
    const unsigned char *start = nullptr, *end = nullptr;

    bool holds(const void* at) const { return at >= start && at < end; }
};
Image image_of(const void* code_of_library);

// What is launched. Blocks get serial numbers in the order in which they run, which no other launch uses.
struct Launch {
    void (*entry)(void**);
    void** arguments;
    Shape shape;
    Image body;
    std::size_t shared_bytes;
    std::int64_t order;
    std::uint32_t first_serial, next_serial;
    std::vector<Room> tensors;
};

// Dynamic shared memory between two pages without access; it ends where the second begins.
class SharedMemory {
  public:
    SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;
    ~SharedMemory();

    // Room for `bytes`, 16-byte aligned as the language promises, not more; full of 0xff.
    unsigned char* fresh(std::size_t bytes);
    // Whether the up to 15 bytes after the room are as they were.
    bool untouched() const;

  private:
    unsigned char* memory;
    unsigned char* room = nullptr;
    std::size_t size = 0;
};

struct Block {
    const Launch* launch = nullptr;
    std::uint32_t serial = 0;
    Index index{};
    void* scheduler = nullptr;  // its stack while a thread runs
    Order order;
    unsigned threads = 0, ended = 0, at_barrier = 0;
    std::uint32_t barriers = 0;  // passed by all threads
    unsigned char* shared = nullptr;
    std::vector<Warp> warps;
    std::vector<Thread> members;
    std::vector<Room*> rooms;
    std::string error;

    // Whether a thread may read this besides tensors, shared memory and its stack: what says who it is, what a warp
    // exchanges, the body's own constants.
    bool lends(const unsigned char* at) const;
    void give_way();  // from the running thread to the scheduler
};

class Crew {
  public:
    // Runs block number `number` of the launch; "" or what went wrong.
    std::string run(Launch& launch, std::uint64_t number);

  private:
    void assemble(Launch& launch, std::uint64_t number);
    void resume(Thread& thread);
    bool release();
    std::string divergence() const;

    Block block;
    SharedMemory shared;
    Room dynamic_room{"dynamic shared memory", nullptr, 0, true}, static_room{"the __shared__ arrays", nullptr, 0, true};
    std::vector<std::unique_ptr<Stack>> stacks;
    std::vector<Copies> copies;
};

// Static shared arrays are the thread-local variables of the body's library: those of this thread, full of 0xff.
struct StaticShared {
    unsigned char* start;
    std::size_t bytes;
};
StaticShared fresh_static_shared(const void* code_of_library);

// Faults of memory and arithmetic, and a loop without end, end the launch with an error while one of these lives
// (faults.cpp). `limit_s` is processor time.
class FaultsCaught {
  public:
    explicit FaultsCaught(double limit_s);
    FaultsCaught(const FaultsCaught&) = delete;
    FaultsCaught& operator=(const FaultsCaught&) = delete;
    ~FaultsCaught();

  private:
    static constexpr std::size_t STACK_BYTES = 64 * 1024;
    std::unique_ptr<unsigned char[]> stack;  // a stack that ran over cannot carry the handler
    stack_t former_stack{};
    timer_t timer{};
};

std::string text(const Place& place);
std::string hexadecimal(const void* address);
std::string where(const Block& block, const Thread& thread);
// What faults.py says in words.
std::string fault(const Thread& thread, int signal, const void* instruction, const void* address);

}  // namespace shim
