// copies.cpp: cp.async with the freedom that the hardware has.
//
// A copy may land at any moment between its start and the wait for it. Here its target is full of 0xff from its start
// (as if it had landed early, on top of what another thread still reads) and holds the data only after the wait (as if
// it had landed late), so a missing wait and a buffer reused too soon both show.

#include <cstring>

#include "crew.h"

namespace shim {

void Copies::clear()
{
    begun.clear();
    groups.clear();
    committed = 0;
}

void begin_copy(void* to, const void* from, int bytes, int take, Place place)
{
    current->place = place;
    if (reinterpret_cast<std::uintptr_t>(to) % static_cast<unsigned>(bytes))
        stop(place, "the shared address is not a multiple of the copy's size");
    if (reinterpret_cast<std::uintptr_t>(from) % static_cast<unsigned>(bytes))
        stop(place, "the global address is not a multiple of the copy's size");
    if (take < 0 || take > bytes)
        stop(place, "takes less than nothing or more than its size");
    const void* code = __builtin_return_address(0);
    auto source = static_cast<const volatile unsigned char*>(from);
    if (take) {  // so that an address out of bounds faults here and not at the wait
        (void)source[0];
        (void)source[take - 1];
        watch(from, static_cast<std::size_t>(take), false, code);
    }
    watch(to, static_cast<std::size_t>(bytes), true, code);
    std::memset(to, 0xff, static_cast<std::size_t>(bytes));
    current->copies->begun.push_back({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes, take, code});
}

void commit_copies()
{
    Copies& mine = *current->copies;
    mine.groups.push_back(mine.begun.size() - mine.committed);
    mine.committed = mine.begun.size();
}

void wait_copies(int pending)
{
    Copies& mine = *current->copies;
    while (mine.groups.size() > static_cast<std::size_t>(pending)) {
        std::size_t count = mine.groups.front();
        for (std::size_t i = 0; i < count; ++i) {
            const Copies::Copy& copy = mine.begun[i];
            watch(copy.to, static_cast<std::size_t>(copy.bytes), true, copy.code);
            std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.take));
            std::memset(copy.to + copy.take, 0, static_cast<std::size_t>(copy.bytes - copy.take));
        }
        mine.begun.erase(mine.begun.begin(), mine.begun.begin() + static_cast<std::ptrdiff_t>(count));
        mine.groups.erase(mine.groups.begin());
        mine.committed -= count;
    }
}

int add_atomically(int* to, int value)
{
    watch_atomic(to, sizeof(*to), __builtin_return_address(0));
    int old = *to;
    *to = old + value;
    return old;
}

float add_atomically(float* to, float value)
{
    watch_atomic(to, sizeof(*to), __builtin_return_address(0));
    float old = *to;
    *to = old + value;
    return old;
}

}  // namespace shim
