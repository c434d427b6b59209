// block.cpp: runs the threads of a block from barrier to barrier, and says what is wrong when none can go on.

#include "block.h"

#include <map>
#include <string_view>

#include "crew.h"

namespace shim {

thread_local constinit Thread* current = nullptr;

const Shape& shape() { return current->block->launch->shape; }
Index block_index() { return current->block->index; }
unsigned char* dynamic_shared() { return current->block->shared; }

namespace {

bool same(const Place& a, const Place& b)
{
    auto equal = [](const char* one, const char* other) { return one == other || std::string_view(one) == other; };
    return a.line == b.line && equal(a.what, b.what) && equal(a.file, b.file);
}

std::string text(const Index& at)
{
    return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

// Lets the lanes of a warp go when all that have not ended wait at one place.
void release_warp(Block& block, Warp& warp)
{
    if (!warp.waiting || (warp.waiting | warp.ended) != ALL)
        return;
    const Thread* first = &block.members[static_cast<std::size_t>(&warp - block.warps.data()) * WARP];
    unsigned leader = static_cast<unsigned>(__builtin_ctz(warp.waiting));
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (warp.waiting >> lane & 1 && !same(first[lane].place, first[leader].place))
            return;
    warp.ready = warp.waiting;
    warp.waiting = 0;
    warp.left = warp.ended;
    ++warp.exchanges;
    warp.syncs += warp.at_sync;
    warp.at_sync = false;
    block.order.redraw_lanes();
}

void thread_main()
{
    Thread* me = current;
    me->block->launch->entry(me->block->launch->arguments);
    me->warp->ended |= 1u << me->lane;
    ++me->block->ended;
    release_warp(*me->block, *me->warp);
    me->block->give_way();
    __builtin_unreachable();
}

}  // namespace

std::string text(const Place& place)
{
    return std::string(place.what) + " (" + place.file + ":" + std::to_string(place.line) + ")";
}

std::string hexadecimal(const void* address)
{
    std::string digits;
    for (auto value = reinterpret_cast<std::uintptr_t>(address); value || digits.empty(); value /= 16)
        digits.insert(digits.begin(), "0123456789abcdef"[value % 16]);
    return digits;
}

std::string where(const Block& block, const Thread& thread)
{
    return "block " + text(block.index) + ", thread " + text(thread.index);
}

bool Block::lends(const unsigned char* at) const
{
    auto within = [at](const void* start, std::size_t bytes) {
        return at >= start && at < static_cast<const unsigned char*>(start) + bytes;
    };
    return within(&current, sizeof(current)) || within(members.data(), members.size() * sizeof(Thread)) ||
           within(&launch->shape, sizeof(Shape)) || within(warps.data(), warps.size() * sizeof(Warp)) ||
           launch->body.holds(at);
}

void Block::give_way()
{
    Thread* me = current;
    shim_switch(&me->stack, scheduler);
}

void block_barrier(Place place)
{
    Thread* me = current;
    me->place = place;
    me->at_block_barrier = true;
    me->warp->ready &= ~(1u << me->lane);
    ++me->block->at_barrier;
    me->block->give_way();
}

void warp_barrier(unsigned mask, Place place, bool whole)
{
    Thread* me = current;
    if (mask != ALL)
        stop(place, "the mask is not 0xffffffff: bodies here use whole warps");
    if (whole && me->warp->ended)
        stop(place, "needs all 32 lanes of the warp, but some have ended or the block has no whole warps");
    me->place = place;
    me->warp->ready &= ~(1u << me->lane);
    me->warp->waiting |= 1u << me->lane;
    release_warp(*me->block, *me->warp);
    me->block->give_way();
    if (whole && me->warp->left)
        stop(place, "needs all 32 lanes of the warp, but some have ended");
}

void warp_sync(unsigned mask, Place place)
{
    current->warp->at_sync = true;
    warp_barrier(mask, place);
}

void stop(Place place, const char* reason)
{
    Thread* me = current;
    me->block->error = where(*me->block, *me) + ": " + text(place) + ": " + reason;
    me->block->give_way();
    __builtin_unreachable();
}

void Crew::assemble(Launch& launch, std::uint64_t number)
{
    const Index& grid = launch.shape.grid;
    const Index& size = launch.shape.block;
    block.launch = &launch;
    block.index = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                   static_cast<unsigned>(number / grid.x / grid.y)};
    block.threads = size.x * size.y * size.z;
    block.ended = block.at_barrier = block.barriers = 0;
    block.serial = launch.next_serial++;
    block.error.clear();
    unsigned warps = (block.threads + WARP - 1) / WARP;
    block.order.reset(launch.order, static_cast<int>(warps), number);
    block.warps.assign(warps, Warp{});
    block.members.resize(block.threads);
    copies.resize(block.threads);
    while (stacks.size() < block.threads)
        stacks.push_back(std::make_unique<Stack>());
    for (unsigned i = 0; i < block.threads; ++i) {
        copies[i].clear();
        Warp* warp = &block.warps[i / WARP];
        warp->ready |= 1u << i % WARP;
        Index index{i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        block.members[i] = {&block, warp, &copies[i], i % WARP, i, index, stacks[i]->begin(thread_main, i), stacks[i]->end(), false, {}};
    }
    block.warps.back().ended = ~block.warps.back().ready;
    block.shared = shared.fresh(launch.shared_bytes);
    dynamic_room.resize(block.shared, launch.shared_bytes);
    StaticShared arrays = fresh_static_shared(reinterpret_cast<const void*>(launch.entry));
    static_room.resize(arrays.start, arrays.bytes);
    block.rooms = {&dynamic_room, &static_room};
    for (Room& tensor : launch.tensors)
        block.rooms.push_back(&tensor);
}

void Crew::resume(Thread& thread)
{
    current = &thread;
    shim_switch(&block.scheduler, thread.stack);
    current = nullptr;
    if (thread.warp->ended >> thread.lane & 1)
        thread.warp->ready &= ~(1u << thread.lane);
}

// Lets all threads go on when each of them waits at the same barrier of the block.
bool Crew::release()
{
    if (block.at_barrier != block.threads)
        return false;
    for (const Thread& thread : block.members)
        if (!same(thread.place, block.members[0].place))
            return false;
    for (Thread& thread : block.members) {
        thread.at_block_barrier = false;
        thread.warp->ready |= 1u << thread.lane;
    }
    block.at_barrier = 0;
    ++block.barriers;
    block.order.redraw();
    return true;
}

std::string Crew::divergence() const
{
    std::map<std::string, unsigned> waiting;
    for (const Thread& thread : block.members)
        if (!(thread.warp->ended >> thread.lane & 1))
            ++waiting[text(thread.place)];
    std::string said = "block " + text(block.index) + ": threads wait for each other in vain: ";
    for (const auto& [place, threads] : waiting)
        said += std::to_string(threads) + " of " + std::to_string(block.threads) + " at " + place + ", ";
    return said + std::to_string(block.ended) + " ended; all threads must reach the same barrier";
}

std::string Crew::run(Launch& launch, std::uint64_t number)
{
    assemble(launch, number);
    while (block.ended < block.threads) {
        int next = block.order.next(block.warps.data());
        if (next >= 0)
            resume(block.members[static_cast<std::size_t>(next)]);
        else if (!release())
            return divergence();
        if (!block.error.empty())
            return block.error;
    }
    if (!shared.untouched())
        return "block " + text(block.index) + ": wrote past the end of its dynamic shared memory of " +
               std::to_string(launch.shared_bytes) + " bytes";
    return "";
}

}  // namespace shim
