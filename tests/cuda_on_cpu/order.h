// order.h: which thread of a block runs next.
//
// Ascending and descending let one warp run as far ahead of the others as barriers allow, in both directions. A seeded
// order draws warps and lanes anew at every barrier, and draws whether warps run ahead or take turns.

#pragma once

#include <cstdint>
#include <utility>

#include "block.h"

namespace shim {

class Order {
  public:
    static constexpr std::int64_t ASCENDING = -1, DESCENDING = -2;  // anything else is a seed

    void reset(std::int64_t asked, int warps_of_block, std::uint64_t block)
    {
        kind = asked;
        turns = false;
        warps = warps_of_block;
        state = static_cast<std::uint64_t>(asked) * 0x9e3779b97f4a7c15u + block * 0xd1342543de82ef95u + 1;
        for (int i = 0; i < WARP; ++i)
            lane_at[i] = static_cast<unsigned char>(kind == DESCENDING ? WARP - 1 - i : i);
        for (int i = 0; i < warps; ++i)
            warp_at[i] = static_cast<unsigned char>(kind == DESCENDING ? warps - 1 - i : i);
        redraw();
    }

    // After every barrier of the block.
    void redraw()
    {
        if (!seeded())
            return;
        shuffle(warp_at, warps);
        turns = random() & 1;
        redraw_lanes();
    }

    // After every barrier of a warp.
    void redraw_lanes()
    {
        if (seeded())
            shuffle(lane_at, WARP);
    }

    // The number of the thread to run, or -1 when none can.
    int next(const Warp* of_block)
    {
        int first = turns ? static_cast<int>(random() % static_cast<unsigned>(warps)) : 0;
        for (int i = 0; i < warps; ++i) {
            int warp = warp_at[(first + i) % warps];
            if (of_block[warp].ready)
                return warp * WARP + lane(of_block[warp].ready);
        }
        return -1;
    }

    std::uint64_t random()  // splitmix64
    {
        std::uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }

  private:
    bool seeded() const { return kind >= 0; }

    int lane(unsigned ready) const
    {
        if (kind == ASCENDING)
            return __builtin_ctz(ready);
        if (kind == DESCENDING)
            return 31 - __builtin_clz(ready);
        for (int i = 0;; ++i)
            if (ready >> lane_at[i] & 1)
                return lane_at[i];
    }

    void shuffle(unsigned char* at, int count)
    {
        for (int i = count - 1; i > 0; --i)
            std::swap(at[i], at[random() % static_cast<unsigned>(i + 1)]);
    }

    std::int64_t kind = ASCENDING;
    int warps = 0;
    std::uint64_t state = 0;
    bool turns = false;
    unsigned char warp_at[WARP] = {}, lane_at[WARP] = {};
};

}  // namespace shim
