#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "common/device/device.h"
#include "common/model/pass_inputs.h"

namespace baton::model {

// Recorded passes of decode rows, by shape. Batches are filled up to a shape, so that a few
// recordings serve them all: the host then launches one graph in place of hundreds of kernels.
// Used by one thread.
class PassGraphs {
 public:
  static constexpr uint32_t kMaxRows = 512;  // larger steps gain nothing

  struct Shape {
    uint32_t rows = 0;
    uint32_t max_tokens = 0;  // of the longest sequence
    bool resolves = false;    // tokens that were drawn on the device
    friend auto operator<=>(const Shape&, const Shape&) = default;
  };

  // The shape that a batch of one row a sequence is filled up to, of at most `max_rows` rows: rows
  // by bucket, tokens to the next power of two.
  static Shape shape_of(const ForwardBatch& batch, uint32_t max_rows);

  // What so many rows are filled up to where there is room: 1, 2, 4, 8, then by 8 to 64, by 16 to
  // 128, by 32 to 256, by 64.
  static uint32_t bucket(uint32_t rows);

  // The shapes of batches of up to `rows` rows whose sequences have up to `tokens` tokens, short
  // sequences first, and of those few rows first. At most kMostLikely, and only where all rows
  // together could see kMostLikelyTokens: that bounds what recordings of them, and the operations'
  // intermediates, take of the device's memory.
  static std::vector<Shape> likely_shapes(uint32_t rows, uint32_t tokens, uint32_t max_rows,
                                          bool resolves);
  static constexpr uint32_t kMostLikely = 96;
  static constexpr uint32_t kMostLikelyTokens = 1 << 20;

  // Runs `enqueue`, in the first pass of a shape as it is (which also lets the operations take the
  // memory they need); from the second on recorded, once, and launched.
  template <class Enqueue>
  void run(device::Stream& stream, const Shape& shape, Enqueue&& enqueue) {
    const auto [at, is_first] = entries_.try_emplace(shape);
    Entry& entry = at->second;
    if (!is_first && entry.graph == nullptr && !entry.failed) {
      stream.begin_capture();
      enqueue();
      entry.graph = stream.end_capture();
      entry.failed = entry.graph == nullptr;
    }
    if (entry.graph == nullptr) {
      enqueue();
    } else {
      stream.launch(*entry.graph);
    }
  }

 private:
  struct Entry {
    std::unique_ptr<device::Graph> graph;
    bool failed = false;  // the device could not record it: runs as it is
  };
  std::map<Shape, Entry> entries_;
};

}  // namespace baton::model
