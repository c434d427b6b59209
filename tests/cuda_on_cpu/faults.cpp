// faults.cpp: a thread that touches memory it may not, or that the compiler's checks stop, ends the launch with an
// error instead of killing the process.

#include <csignal>
#include <mutex>

#include "crew.h"

namespace shim {

namespace {

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
struct sigaction former[sizeof(SIGNALS) / sizeof(SIGNALS[0])];
std::mutex guard;
int users = 0;

const void* instruction(const void* context)
{
    auto at = static_cast<const ucontext_t*>(context);
#if defined(__x86_64__)
    return reinterpret_cast<const void*>(at->uc_mcontext.gregs[REG_RIP]);
#else
    return reinterpret_cast<const void*>(at->uc_mcontext.pc);
#endif
}

// faults.py reads "fault SIGNAL at INSTRUCTION on ADDRESS shared START after LAST PLACE" and says it in words.
void caught(int signal, siginfo_t* info, void* context)
{
    Thread* me = current;
    if (!me) {  // not ours: the former handler gets it when the instruction is tried again
        for (std::size_t i = 0; i < std::size(SIGNALS); ++i)
            if (SIGNALS[i] == signal)
                sigaction(signal, &former[i], nullptr);
        return;
    }
    me->block->error = where(*me->block, *me) + ": fault " + std::to_string(signal) + " at " +
                       hexadecimal(instruction(context)) + " on " + hexadecimal(info->si_addr) +
                       " shared " + hexadecimal(me->block->shared) + " after " +
                       (me->place.what ? text(me->place) : "its start");
    me->block->give_way();
}

}  // namespace

FaultsCaught::FaultsCaught() : stack(new unsigned char[STACK_BYTES])
{
    stack_t mine{};
    mine.ss_sp = stack.get();
    mine.ss_size = STACK_BYTES;
    sigaltstack(&mine, &former_stack);
    std::lock_guard hold(guard);
    if (users++)
        return;
    struct sigaction action {};
    action.sa_sigaction = caught;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    for (std::size_t i = 0; i < std::size(SIGNALS); ++i)
        sigaction(SIGNALS[i], &action, &former[i]);
}

FaultsCaught::~FaultsCaught()
{
    sigaltstack(&former_stack, nullptr);
    std::lock_guard hold(guard);
    if (--users)
        return;
    for (std::size_t i = 0; i < std::size(SIGNALS); ++i)
        sigaction(SIGNALS[i], &former[i], nullptr);
}

}  // namespace shim
