// memory.cpp: shared memory, dynamic and static, full of 0xff (a NaN in every float format) when a block starts.

#include <link.h>

#include <cstring>

#include "crew.h"

extern "C" void* __tls_get_addr(void*);

namespace shim {

namespace {

constexpr std::size_t PAGE = Stack::PAGE;
constexpr std::size_t MOST = 256 * 1024;  // more than any GPU gives a block

// The thread-local variables of one library: every __shared__ array is one.
struct Statics {
    const void* code;
    std::size_t module = 0, bytes = 0;
    Image image{};
};

int find_statics(dl_phdr_info* library, std::size_t, void* into)
{
    auto wanted = static_cast<Statics*>(into);
    auto code = reinterpret_cast<std::uintptr_t>(wanted->code);
    bool here = false;
    std::size_t bytes = 0;
    std::uintptr_t first = library->dlpi_addr, last = first;
    for (int i = 0; i < library->dlpi_phnum; ++i) {
        const auto& part = library->dlpi_phdr[i];
        std::uintptr_t start = library->dlpi_addr + part.p_vaddr;
        here |= part.p_type == PT_LOAD && code >= start && code < start + part.p_memsz;
        if (part.p_type == PT_LOAD)
            last = start + part.p_memsz;  // they ascend
        if (part.p_type == PT_TLS)
            bytes = part.p_memsz;
    }
    if (here) {
        wanted->module = library->dlpi_tls_modid;
        wanted->bytes = bytes;
        wanted->image = {reinterpret_cast<unsigned char*>(first), reinterpret_cast<unsigned char*>(last)};
    }
    return here;
}

const Statics& statics(const void* code_of_library)
{
    thread_local Statics last{nullptr};
    if (last.code != code_of_library) {
        last = Statics{code_of_library};
        dl_iterate_phdr(find_statics, &last);
    }
    return last;
}

}  // namespace

StaticShared fresh_static_shared(const void* code_of_library)
{
    const Statics& of = statics(code_of_library);
    if (!of.bytes)
        return {nullptr, 0};
    std::size_t index[2] = {of.module, 0};
    auto start = static_cast<unsigned char*>(__tls_get_addr(index));
    std::memset(start, 0xff, of.bytes);
    return {start, of.bytes};
}

Image image_of(const void* code_of_library) { return statics(code_of_library).image; }

SharedMemory::SharedMemory()
{
    void* got = mmap(nullptr, MOST + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED)
        throw std::bad_alloc();
    memory = static_cast<unsigned char*>(got);
    mprotect(memory, PAGE, PROT_NONE);
    mprotect(memory + PAGE + MOST, PAGE, PROT_NONE);
}

SharedMemory::~SharedMemory() { munmap(memory, MOST + 2 * PAGE); }

unsigned char* SharedMemory::fresh(std::size_t bytes)
{
    size = bytes;
    room = memory + PAGE + MOST - (bytes + 15) / 16 * 16;
    std::memset(room, 0xff, static_cast<std::size_t>(memory + PAGE + MOST - room));
    return room;
}

bool SharedMemory::untouched() const
{
    for (const unsigned char* byte = room + size; byte < memory + PAGE + MOST; ++byte)
        if (*byte != 0xff)
            return false;
    return true;
}

}  // namespace shim
