// watch.cpp: see watch.h.

#include "watch.h"

#include "crew.h"

namespace shim {

namespace {

bool ordered(const Access& past, const Access& now, std::uint32_t first)
{
    if (past.block < first)
        return true;  // never touched in this launch
    if (past.block != now.block || past.thread == MANY_BLOCKS)
        return false;
    if (past.barriers < now.barriers || past.thread == now.thread)
        return true;
    return past.thread != MANY_WARPS && past.warp == now.warp && past.syncs < now.syncs;
}

void add_read(Access& reads, const Access& now)
{
    if (reads.block != now.block || reads.thread == MANY_BLOCKS)
        reads.thread = MANY_BLOCKS;
    else if (reads.warp != now.warp || reads.thread == MANY_WARPS)
        reads.thread = MANY_WARPS;
    else
        reads.thread = MANY_LANES;
    reads.block = now.block;
}

std::string who(const Access& past, const Access& now)
{
    if (past.thread == MANY_BLOCKS || past.block != now.block)
        return "another block";
    if (past.thread == MANY_WARPS)
        return "several warps";
    return past.thread == MANY_LANES ? "several lanes" : "thread " + std::to_string(past.thread);
}

std::string race(const char* doing, const char* did, const Access& past, const Access& now)
{
    return std::string(doing) + " what " + who(past, now) + " " + did + " with no barrier between at " +
           hexadecimal(past.code);
}

// Ends the launch: no tensor, no shared memory and nothing else of this thread lies there.
void stray(const Thread& thread, const void* address, const void* code)
{
    thread.block->error = fault(thread, SIGSEGV, static_cast<const unsigned char*>(code) - 1, address);
    thread.block->give_way();
}

}  // namespace

bool Room::note(const unsigned char* at, std::size_t size, bool writes, const Access& now, std::uint32_t first)
{
    auto offset = static_cast<std::size_t>(at - start);
    if (offset + size > bytes)
        return false;
    if (shared)
        first = now.block;
    if (pairs.size() < (bytes + 1) / 2)
        pairs.resize((bytes + 1) / 2);
    for (Pair *pair = &pairs[offset / 2], *end = &pairs[0] + (offset + size + 1) / 2; pair < end; ++pair) {
        if (!ordered(pair->write, now, first) || (shared && !writes && pair->write.block != now.block))
            return false;
        bool after_reads = ordered(pair->reads, now, first);
        if (writes && !after_reads)
            return false;
        if (writes)
            pair->write = now;
        else if (after_reads)
            pair->reads = now;
        else
            add_read(pair->reads, now);
    }
    return true;
}

std::string Room::complaint(const unsigned char* at, std::size_t size, bool writes, const Access& now,
                            std::uint32_t first) const
{
    auto offset = static_cast<std::size_t>(at - start);
    if (offset + size > bytes)
        return std::string(writes ? "writes " : "reads ") + std::to_string(offset + size - bytes) + " bytes beyond the end";
    if (shared)
        first = now.block;
    for (std::size_t i = offset / 2; i < (offset + size + 1) / 2; ++i) {
        if (!ordered(pairs[i].write, now, first))
            return race(writes ? "overwrites" : "reads", "wrote", pairs[i].write, now);
        if (shared && !writes && pairs[i].write.block != now.block)
            return "reads what nobody wrote";
        if (writes && !ordered(pairs[i].reads, now, first))
            return race("overwrites", "read", pairs[i].reads, now);
    }
    return "";
}

void watch(const void* address, std::size_t size, bool writes, const void* code)
{
    Thread* me = current;
    if (!me)
        return;
    auto at = static_cast<const unsigned char*>(address);
    if (at >= __builtin_frame_address(0) && at < me->stack_end)
        return;  // on the thread's own stack, the usual case
    Block& block = *me->block;
    for (Room* room : block.rooms) {
        if (!room->holds(at))
            continue;
        Access now{block.serial, block.barriers, me->warp->syncs, static_cast<std::int16_t>(me->number),
                   static_cast<std::int16_t>(me->number / WARP), code};
        if (room->note(at, size, writes, now, block.launch->first_serial))
            return;
        std::string wrong = room->complaint(at, size, writes, now, block.launch->first_serial);
        block.error = where(block, *me) + ": access at " + hexadecimal(code) + " after " +
                      (me->place.what ? text(me->place) : "its start") + " in " + room->name + ": " + wrong;
        block.give_way();
    }
    if (!block.lends(at))
        stray(*me, address, code);
}

void watch_atomic(const void* address, std::size_t size, const void* code)
{
    auto at = static_cast<const unsigned char*>(address);
    for (const Room* room : current->block->rooms)
        if (room->holds_all(at, size))
            return;
    stray(*current, address, code);
}

}  // namespace shim

// What g++ -fsanitize=thread calls.
#define SHIM_WATCHED(bytes)                                                                                       \
    extern "C" void __tsan_read##bytes(void* at) { shim::watch(at, bytes, false, __builtin_return_address(0)); }  \
    extern "C" void __tsan_write##bytes(void* at) { shim::watch(at, bytes, true, __builtin_return_address(0)); }  \
    extern "C" void __tsan_unaligned_read##bytes(void* at)                                                        \
    {                                                                                                             \
        shim::watch(at, bytes, false, __builtin_return_address(0));                                               \
    }                                                                                                             \
    extern "C" void __tsan_unaligned_write##bytes(void* at)                                                       \
    {                                                                                                             \
        shim::watch(at, bytes, true, __builtin_return_address(0));                                                \
    }
SHIM_WATCHED(1)
SHIM_WATCHED(2)
SHIM_WATCHED(4)
SHIM_WATCHED(8)
SHIM_WATCHED(16)

extern "C" void __tsan_read_range(void* at, std::size_t bytes) { shim::watch(at, bytes, false, __builtin_return_address(0)); }
extern "C" void __tsan_write_range(void* at, std::size_t bytes) { shim::watch(at, bytes, true, __builtin_return_address(0)); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
