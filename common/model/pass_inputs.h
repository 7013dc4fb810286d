#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/device/device.h"
#include "common/ops/ops.h"

namespace baton::model {

// Rows of one sequence whose logits are wanted: its rows [first, first + count).
struct OutputRows {
  uint32_t sequence = 0;  // index into ForwardBatch::sequences
  uint32_t first = 0;
  uint32_t count = 0;
};

// Rows are tokens, sequence after sequence. In host memory, the caller's, read while the pass is
// enqueued.
struct ForwardBatch {
  // [rows], each below vocab_size: checked by the caller. Below 0: the token that stands in
  // `drawn`, see Ops::resolve_drawn.
  std::span<const TokenId> tokens;
  std::span<const uint32_t> positions;  // [rows]
  std::span<const ops::SequenceRows> sequences;
  // Outputs are numbered in this order, row by row. A row may be wanted twice.
  std::span<const OutputRows> outputs;
  const TokenId* drawn = nullptr;  // where the device reads; null: none is below 0
};

// Whether output i is row i, for all rows.
bool outputs_are_rows(const ForwardBatch& batch);

// A batch where the device reads it.
struct Pass {
  std::span<TokenId> tokens;            // [rows]
  std::span<const uint32_t> positions;  // [rows]
  ops::Sequences sequences;
  std::span<const uint32_t> out_rows;  // [outputs], the row of each
  ops::Sequences out_sequences;        // one for each OutputRows
  bool outputs_are_rows = false;
  const TokenId* drawn = nullptr;  // as the batch's
};

// Brings batches to the device, each in one copy, always to the same place: a recorded pass finds
// the next batch of its shape where it found the last. Used by one thread; no allocation after
// construction.
class PassInputs {
 public:
  struct Limits {
    uint32_t rows = 0, sequences = 0, outputs = 0, output_ranges = 0;
    uint32_t max_context = 0;  // tokens of a sequence
  };

  PassInputs() = default;
  static result<PassInputs> create(device::Device& device, const Limits& limits);

  // Enqueues the copy. With `pad_rows` above the batch's rows, rows and sequences (one row each)
  // are filled up to that number with ones that mean nothing; max_tokens is then `pad_tokens`. Good
  // until the next call but kRing.
  Pass upload(device::Stream& stream, const ForwardBatch& batch, uint32_t block_tokens,
              uint32_t pad_rows = 0, uint32_t pad_tokens = 0);

 private:
  struct Layout;
  static constexpr size_t kRing = 3;  // batches the host may be ahead, and the one it writes

  struct Slot {
    device::Buffer memory;  // host
    std::unique_ptr<device::Event> copied;
    bool in_use = false;
  };

  device::Device* device_ = nullptr;
  Limits limits_;
  device::Buffer memory_;  // the device's; empty where it reads the host's
  std::array<Slot, kRing> slots_;
  size_t slot_ = 0;
};

}  // namespace baton::model
