#pragma once

// A fiber: a stack, and the registers that a call preserves.

#include <cstddef>

#if defined(__x86_64__) && !defined(MARFAST_UCONTEXT)

namespace marfast::emulation {

struct Fiber {
  void* stack_pointer = nullptr;
};

__attribute__((naked, noinline)) inline void switch_stacks(void**, void*) {
  asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
      "mov %rsp, (%rdi)\n"
      "mov %rsi, %rsp\n"
      "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
      "ret");
}

inline void switch_fibers(Fiber& from, const Fiber& to) {
  switch_stacks(&from.stack_pointer, to.stack_pointer);
}

inline void start_fiber(Fiber& fiber, unsigned char* stack, size_t bytes, void (*run)()) {
  auto** top = reinterpret_cast<void**>(stack + bytes);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(run);
  fiber.stack_pointer = top - 8;
}

}  // namespace marfast::emulation

#else  // any other Linux; several times slower, as each switch is two system calls

#include <ucontext.h>

namespace marfast::emulation {

struct Fiber {
  ucontext_t context;
};

inline void switch_fibers(Fiber& from, const Fiber& to) { swapcontext(&from.context, &to.context); }

inline void start_fiber(Fiber& fiber, unsigned char* stack, size_t bytes, void (*run)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run, 0);
}

}  // namespace marfast::emulation

#endif
