// fibers.h: a call that can stop in its middle and go on later, many of them on one thread of the operating system.
//
// A fiber is a stack and the place on it where its registers were saved. Switching by hand takes a few nanoseconds;
// swapcontext of the C library takes ten times as long, because it asks the kernel for the signal mask each time.

#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace shim {

// Saves the registers that a callee must keep on the running stack and its top in *save, goes on with stack `load`.
extern "C" void shim_switch(void** save, void* load);

#if defined(__x86_64__)
constexpr int SAVED_WORDS = 6;  // rbp rbx r12 r13 r14 r15
constexpr int RETURN_WORD = 6;
#elif defined(__aarch64__)
constexpr int SAVED_WORDS = 20;  // x19 to x30 and d8 to d15
constexpr int RETURN_WORD = 11;  // x30
#else
#error "the fibers of tests/cuda_on_cpu are written for x86-64 and AArch64: add the switch of this processor to fibers.h"
#endif

// One stack, with a page without access below it so that running off its end is seen.
class Stack {
  public:
    static constexpr std::size_t BYTES = 128 * 1024;
    static constexpr std::size_t PAGE = 4096;

    Stack()
    {
        void* got = mmap(nullptr, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (got == MAP_FAILED)
            throw std::bad_alloc();
        memory = static_cast<unsigned char*>(got);
        mprotect(memory, PAGE, PROT_NONE);
    }
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    ~Stack() { munmap(memory, BYTES); }

    // What to load so that `start` runs from its beginning. `start` must never return. `colour` shifts the stack's top,
    // because stacks that all begin at the same offset meet in the same few sets of the cache.
    void* begin(void (*start)(), unsigned colour)
    {
        auto top = reinterpret_cast<void**>(memory + BYTES - 64 - colour % 61 * 64);
#if defined(__x86_64__)
        *--top = nullptr;  // where `start` would return to; keeps its frame at 8 modulo 16 as after a call
        *--top = reinterpret_cast<void*>(start);
        for (int word = 0; word < SAVED_WORDS; ++word)
            *--top = nullptr;
#else
        top -= SAVED_WORDS;
        for (int word = 0; word < SAVED_WORDS; ++word)
            top[word] = nullptr;
        top[RETURN_WORD] = reinterpret_cast<void*>(start);
#endif
        return top;
    }

    const unsigned char* end() const { return memory + BYTES; }

  private:
    unsigned char* memory;
};

}  // namespace shim
