// Decoding in the steady state takes no memory from the heap, on any thread.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/engine/driver.h"
#include "tests/model/goldens.h"

namespace {
std::atomic<uint64_t> allocations{0};

void* count_and_allocate(size_t bytes, size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  const size_t size = (bytes + alignment - 1) / alignment * alignment;
  void* p = alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, size)
                                                  : std::malloc(bytes == 0 ? 1 : bytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace

void* operator new(size_t bytes) { return count_and_allocate(bytes, 1); }
void* operator new[](size_t bytes) { return count_and_allocate(bytes, 1); }
void* operator new(size_t bytes, std::align_val_t a) {
  return count_and_allocate(bytes, static_cast<size_t>(a));
}
void* operator new[](size_t bytes, std::align_val_t a) {
  return count_and_allocate(bytes, static_cast<size_t>(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace baton::engine {
namespace {

constexpr uint32_t kSequences = 4;

ops::SamplingParams params_of(uint32_t sequence) {
  switch (sequence) {
    case 0:
      return {.temperature = 0};
    case 1:
      return {.temperature = 1, .top_k = 40, .top_p = 0.9f, .seed = 5};
    case 2:
      return {.repetition_penalty = 1.2f, .presence_penalty = 0.5f, .frequency_penalty = 0.5f};
    default:
      return {.min_p = 0.05f, .min_tokens = 50, .logprobs = 20, .want_logprobs = true};
  }
}

// One decode row for each sequence, at `position`.
void plan(uint32_t position, const std::vector<std::vector<BlockId>>& tables, StepBatch& batch) {
  batch.clear();
  for (uint32_t i = 0; i < kSequences; ++i) {
    StepSequence& s = batch.add_sequence();
    s.position = position;
    s.num_rows = 1;
    s.last_of = SlotId{i};
    s.block_table.assign(tables[i].begin(), tables[i].end());
    batch.samples.push_back({.sequence = i, .slot = SlotId{i}});
  }
}

void finish_one(Driver& d) { ASSERT_EQ(d.wait().kind, EngineEvent::Kind::kStepDone); }

TEST(Allocation, NoneInAHundredDecodeSteps) {
  Driver d(model::data_dir() / "llama3", {});
  std::vector<std::vector<BlockId>> tables;
  for (uint32_t i = 0; i < kSequences; ++i) tables.push_back(d.allocate(40));
  StepBatch batches[2];
  constexpr uint32_t kWarmUp = 290, kCounted = 100;  // the warm-up passes an attention tile
  uint64_t before = 0;
  for (uint32_t step = 0; step < kWarmUp + kCounted; ++step) {
    StepBatch& batch = batches[step % 2];
    if (step >= 2) finish_one(d);
    if (step == kWarmUp) before = allocations.load();
    plan(step, tables, batch);
    if (step == 0) {
      for (uint32_t i = 0; i < kSequences; ++i) {
        batch.opens.push_back({.slot = SlotId{i},
                               .params = params_of(i),
                               .logit_bias = {{3, 1.5f}},
                               .banned_until_min = {257},
                               .tokens = {static_cast<TokenId>(i)},
                               .prompt_tokens = 1});
      }
    }
    ASSERT_TRUE(d.engine().submit(&batch));
  }
  finish_one(d);
  finish_one(d);
  EXPECT_EQ(allocations.load() - before, 0u);
  EXPECT_GT(before, 0u);  // the count counts
}

}  // namespace
}  // namespace baton::engine
