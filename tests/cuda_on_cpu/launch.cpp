// launch.cpp: what toolchain.py calls: all blocks of a grid, one after the other.

#include <atomic>
#include <cstring>
#include <utility>

#include "crew.h"

namespace shim {

namespace {

std::uint64_t common_divisor(std::uint64_t a, std::uint64_t b)
{
    while (b)
        a = std::exchange(b, a % b);
    return a;
}

// Blocks may run in any order: up, down, or from a place that the seed says in strides that meet each block once.
std::uint64_t number_at(std::uint64_t step, std::uint64_t blocks, std::int64_t order)
{
    if (order == Order::ASCENDING)
        return step;
    if (order == Order::DESCENDING)
        return blocks - 1 - step;
    std::uint64_t stride = blocks / 2 | 1;
    while (common_divisor(stride, blocks) != 1)
        ++stride;
    return (step * stride + static_cast<std::uint64_t>(order)) % blocks;
}

std::vector<Room> tensors_of(int count, void* const* starts, const std::size_t* sizes, const int* numbers)
{
    std::vector<Room> rooms;
    for (int i = 0; i < count; ++i)
        rooms.emplace_back("argument " + std::to_string(numbers[i]), starts[i], sizes[i], false);
    return rooms;
}

}  // namespace

// `starts`, `sizes` and `numbers` are the tensors among the arguments. Writes what went wrong to `said`, "" if nothing.
extern "C" void shim_launch(void (*entry)(void**), const unsigned* grid, const unsigned* block, void** arguments,
                            int tensors, void* const* starts, const std::size_t* sizes, const int* numbers,
                            std::size_t shared_bytes, std::int64_t order, double limit_s, char* said, std::size_t room)
{
    static std::atomic<std::uint32_t> serial{1};
    static thread_local Crew crew;
    std::uint64_t blocks = std::uint64_t{grid[0]} * grid[1] * grid[2];
    Shape shape{{grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}};
    auto first_serial = serial.fetch_add(static_cast<std::uint32_t>(blocks));
    Launch launch{entry, arguments, shape, image_of(reinterpret_cast<const void*>(entry)), shared_bytes, order, first_serial, first_serial,
                  tensors_of(tensors, starts, sizes, numbers)};
    std::string error;
    {
        FaultsCaught caught(limit_s);
        for (std::uint64_t step = 0; step < blocks && error.empty(); ++step)
            error = crew.run(launch, number_at(step, blocks, order));
    }
    std::strncpy(said, error.c_str(), room - 1);
    said[room - 1] = 0;
}

// Bytes of the __shared__ arrays of a body.
extern "C" std::size_t shim_static_shared(void (*entry)(void**))
{
    return fresh_static_shared(reinterpret_cast<const void*>(entry)).bytes;
}

}  // namespace shim
