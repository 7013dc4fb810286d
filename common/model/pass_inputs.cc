#include "common/model/pass_inputs.h"

#include <algorithm>
#include <cassert>

namespace baton::model {
namespace {

constexpr uint32_t kSmallestBlock = 16;

constexpr size_t align(size_t bytes) { return (bytes + 63) / 64 * 64; }

uint32_t blocks_for(uint32_t tokens, uint32_t block_tokens) {
  return (tokens + block_tokens - 1) / block_tokens;
}

}  // namespace

bool outputs_are_rows(const ForwardBatch& batch) {
  if (batch.outputs.size() != batch.sequences.size()) return false;
  for (uint32_t i = 0; i < batch.outputs.size(); ++i) {
    const OutputRows& o = batch.outputs[i];
    if (o.sequence != i || o.first != 0 || o.count != batch.sequences[i].num_rows) return false;
  }
  return true;
}

// Where each part of a batch stands, in bytes from the start. Tables come last: all before them is
// of the same size in batches of one shape.
struct PassInputs::Layout {
  size_t tokens = 0, positions, out_rows, sequences, out_sequences, tables;

  Layout(size_t rows, size_t num_sequences, size_t outputs, size_t ranges) {
    positions = align(rows * sizeof(TokenId));
    out_rows = positions + align(rows * sizeof(uint32_t));
    sequences = out_rows + align(outputs * sizeof(uint32_t));
    out_sequences = sequences + align(num_sequences * sizeof(ops::SequenceRows));
    tables = out_sequences + align(ranges * sizeof(ops::SequenceRows));
  }
};

result<PassInputs> PassInputs::create(device::Device& device, const Limits& limits) {
  PassInputs inputs;
  inputs.device_ = &device;
  inputs.limits_ = limits;
  const Layout most(limits.rows, limits.sequences, limits.outputs, limits.output_ranges);
  const size_t table = blocks_for(limits.max_context, kSmallestBlock) * sizeof(BlockId);
  const size_t bytes = most.tables + limits.sequences * table;
  const bool direct = device.info().host_addressable;
  const auto stream = device.make_stream();
  for (size_t i = 0; i < (direct ? 1 : kRing); ++i) {
    BATON_TRY(inputs.slots_[i].memory, device.allocate_host(bytes));
    inputs.slots_[i].copied = stream->make_event();
  }
  if (!direct) {
    BATON_TRY(inputs.memory_, device.allocate(bytes));
  }
  return inputs;
}

Pass PassInputs::upload(device::Stream& stream, const ForwardBatch& batch, uint32_t block_tokens,
                        uint32_t pad_rows, uint32_t pad_tokens) {
  const bool direct = memory_.data() == nullptr;
  Slot& slot = slots_[direct ? 0 : slot_ = (slot_ + 1) % kRing];
  if (slot.in_use) slot.copied->wait();
  std::byte* const host = slot.memory.data();
  std::byte* const device = direct ? host : memory_.data();

  const bool whole = outputs_are_rows(batch);
  const auto num_rows = static_cast<uint32_t>(batch.tokens.size());
  const uint32_t padding = pad_rows > num_rows ? pad_rows - num_rows : 0;
  assert(padding == 0 || (whole && batch.sequences.size() == num_rows));
  const size_t rows = num_rows + padding, num_sequences = batch.sequences.size() + padding;
  size_t outputs = 0;
  for (const OutputRows& o : batch.outputs) outputs += o.count;
  // A padded batch stands where a full one would.
  const Layout at(rows, num_sequences, whole ? rows : outputs,
                  whole ? num_sequences : batch.outputs.size());
  assert(rows <= limits_.rows && num_sequences <= limits_.sequences && outputs <= limits_.outputs &&
         batch.outputs.size() <= limits_.output_ranges);

  auto* tokens = reinterpret_cast<TokenId*>(host + at.tokens);
  auto* positions = reinterpret_cast<uint32_t*>(host + at.positions);
  auto* out_rows = reinterpret_cast<uint32_t*>(host + at.out_rows);
  auto* sequences = reinterpret_cast<ops::SequenceRows*>(host + at.sequences);
  auto* out_sequences = reinterpret_cast<ops::SequenceRows*>(host + at.out_sequences);
  std::fill(std::copy(batch.tokens.begin(), batch.tokens.end(), tokens), tokens + rows, 0);
  std::fill(std::copy(batch.positions.begin(), batch.positions.end(), positions), positions + rows,
            0);

  Pass pass;
  size_t table = at.tables;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const ops::SequenceRows& s = batch.sequences[i];
    const uint32_t seen = s.position + s.num_rows, blocks = blocks_for(seen, block_tokens);
    assert(seen <= limits_.max_context);
    std::copy_n(s.block_table, blocks, reinterpret_cast<BlockId*>(host + table));
    sequences[i] = {s.first_row, s.num_rows, s.position,
                    reinterpret_cast<const BlockId*>(device + table)};
    table += blocks * sizeof(BlockId);
    pass.sequences.max_tokens = std::max(pass.sequences.max_tokens, seen);
  }
  for (uint32_t i = 0; i < padding; ++i) {
    sequences[batch.sequences.size() + i] = {num_rows + i, 0, 0, nullptr};
  }
  uint32_t output = 0;
  for (size_t i = 0; i < batch.outputs.size(); ++i) {
    const OutputRows& o = batch.outputs[i];
    const ops::SequenceRows& s = sequences[o.sequence];
    assert(o.first + o.count <= s.num_rows);
    out_sequences[i] = {output, o.count, s.position + o.first, s.block_table};
    for (uint32_t r = 0; r < o.count; ++r) out_rows[output++] = s.first_row + o.first + r;
  }

  if (!direct) {
    device_->copy(stream, device, host, table);
    stream.record(*slot.copied);
    slot.in_use = true;
  }
  if (padding > 0 || pad_tokens > 0) {
    pass.sequences.max_tokens = std::max(pass.sequences.max_tokens, pad_tokens);
  }
  pass.tokens = {reinterpret_cast<TokenId*>(device + at.tokens), rows};
  pass.positions = {reinterpret_cast<const uint32_t*>(device + at.positions), rows};
  pass.out_rows = {reinterpret_cast<const uint32_t*>(device + at.out_rows), outputs};
  pass.sequences.host = {sequences, num_sequences};
  pass.sequences.device = reinterpret_cast<const ops::SequenceRows*>(device + at.sequences);
  pass.out_sequences.host = {out_sequences, batch.outputs.size()};
  pass.out_sequences.device = reinterpret_cast<const ops::SequenceRows*>(device + at.out_sequences);
  pass.out_sequences.max_tokens = pass.sequences.max_tokens;
  pass.outputs_are_rows = whole;
  pass.drawn = batch.drawn;
  return pass;
}

}  // namespace baton::model
