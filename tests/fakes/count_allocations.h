#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

// Counts what the test's own thread takes from the heap. Replaces operator new: for one source file
// of a program.
namespace {
thread_local uint64_t allocations = 0;
}

void* operator new(size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
