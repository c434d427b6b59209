// faults.cpp: a thread that touches memory it may not, or that the compiler's checks stop, ends the launch with an
// error instead of killing the process.

#include <unistd.h>

#include <csignal>
#include <mutex>

#include "crew.h"

namespace shim {

namespace {

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGPROF};
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

void caught(int signal, siginfo_t* info, void* context)
{
    Thread* me = current;
    if (signal == SIGPROF && !(me && me->block->launch->body.holds(instruction(context))))
        return;  // the next tick finds the body: what is ours may hold a lock here
    if (!me) {  // not ours: the former handler gets it when the instruction is tried again
        for (std::size_t i = 0; i < std::size(SIGNALS); ++i)
            if (SIGNALS[i] == signal)
                sigaction(signal, &former[i], nullptr);
        return;
    }
    me->block->error = fault(*me, signal, instruction(context), signal == SIGPROF ? nullptr : info->si_addr);
    me->block->give_way();
}

timer_t ticking(double limit_s)
{
    struct sigevent event {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGPROF;
    event._sigev_un._tid = gettid();
    timer_t timer{};
    timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
    auto whole_s = static_cast<time_t>(limit_s);
    struct itimerspec ticks {{0, 10'000'000}, {whole_s, static_cast<long>((limit_s - static_cast<double>(whole_s)) * 1e9)}};
    timer_settime(timer, 0, &ticks, nullptr);
    return timer;
}

}  // namespace

// faults.py reads "fault SIGNAL at INSTRUCTION on ADDRESS shared START after LAST PLACE" and says it in words.
std::string fault(const Thread& thread, int signal, const void* instruction, const void* address)
{
    return where(*thread.block, thread) + ": fault " + std::to_string(signal) + " at " + hexadecimal(instruction) + " on " +
           hexadecimal(address) + " shared " + hexadecimal(thread.block->shared) + " after " +
           (thread.place.what ? text(thread.place) : "its start");
}

FaultsCaught::FaultsCaught(double limit_s) : stack(new unsigned char[STACK_BYTES])
{
    stack_t mine{};
    mine.ss_sp = stack.get();
    mine.ss_size = STACK_BYTES;
    sigaltstack(&mine, &former_stack);
    std::lock_guard hold(guard);
    if (!users++) {
        struct sigaction action {};
        action.sa_sigaction = caught;
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        for (std::size_t i = 0; i < std::size(SIGNALS); ++i)
            sigaction(SIGNALS[i], &action, &former[i]);
    }
    timer = ticking(limit_s);
}

FaultsCaught::~FaultsCaught()
{
    timer_delete(timer);
    sigaltstack(&former_stack, nullptr);
    std::lock_guard hold(guard);
    if (--users)
        return;
    for (std::size_t i = 0; i < std::size(SIGNALS); ++i)
        sigaction(SIGNALS[i], &former[i], nullptr);
}

}  // namespace shim
