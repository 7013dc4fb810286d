#include "kvtransfer/read_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace baton::kvtransfer {

ReadList::ReadList(uint32_t num_layers, uint32_t first_block, uint32_t end_block)
    : num_layers_(num_layers),
      first_block_(first_block),
      end_block_(end_block),
      announced_(size_t{num_layers} * (end_block - first_block)),
      blocks_(end_block - first_block),
      known_(end_block - first_block) {}

result<uint64_t> ReadList::add(const Announce& announce, TimePoint now) {
  const std::vector<BlockId>& ids = announce.parts[0].blocks;
  const uint32_t begin = announce.first_block;
  const uint32_t end = begin + static_cast<uint32_t>(ids.size());
  for (uint32_t block = begin; block < end; ++block) {
    const uint32_t i = block - first_block_;
    if (known_[i] && blocks_[i] != ids[block - begin]) {
      return error(Errc::kDataCorrupt,
                   fmt::format("announce: block {} of the sequence is {} now and was {}", block,
                               ids[block - begin].value, blocks_[i].value));
    }
    known_[i] = true;
    blocks_[i] = ids[block - begin];
  }
  const uint64_t before = announced_cells_;
  bool all_new = true;
  for (uint32_t layer = announce.layer_begin; layer < announce.layer_end && all_new; ++layer) {
    for (uint32_t block = begin; block < end && all_new; ++block) {
      all_new = !announced_[cell(layer, block)];
    }
  }
  if (all_new) {
    add_new(announce, announce.layer_begin, announce.layer_end, begin, end, now);
    return announced_cells_ - before;
  }
  // A repetition: take the runs that are new, layer by layer.
  for (uint32_t layer = announce.layer_begin; layer < announce.layer_end; ++layer) {
    for (uint32_t block = begin; block < end;) {
      const uint32_t run = block;
      while (block < end && !announced_[cell(layer, block)]) ++block;
      if (block > run) add_new(announce, layer, layer + 1, run, block, now);
      while (block < end && announced_[cell(layer, block)]) ++block;
    }
  }
  return announced_cells_ - before;
}

void ReadList::add_new(const Announce& announce, uint32_t layer_begin, uint32_t layer_end,
                       uint32_t block_begin, uint32_t block_end, TimePoint now) {
  Unread unread{layer_begin, layer_end, block_begin, block_end, block_begin, layer_begin, {}, now};
  const RankPart& part = announce.parts[0];
  for (uint32_t layer = layer_begin; layer < layer_end; ++layer) {
    const size_t row = size_t{layer - announce.layer_begin} * part.blocks.size();
    for (uint32_t block = block_begin; block < block_end; ++block) {
      unread.digests.push_back(part.digests[row + (block - announce.first_block)]);
      announced_[cell(layer, block)] = true;
    }
  }
  announced_cells_ += unread.digests.size();
  unread_.push_back(std::move(unread));
}

void ReadList::add_again(Read read) { again_.push_back(std::move(read)); }

std::optional<Read> ReadList::next(uint64_t max_cells, uint64_t max_blocks) {
  if (!again_.empty()) {
    Read read = again_.front();
    again_.pop_front();
    return read;
  }
  if (unread_.empty()) return std::nullopt;
  Unread& u = unread_.front();
  const uint32_t layers = u.layer_end - u.layer_begin;
  Read read;
  read.announced = u.announced;
  read.layer_begin = u.next_layer;
  read.block_begin = u.next_block;
  // Whole columns where they fit: what is announced of a block is one run, and stays one
  // descriptor.
  const bool whole = u.next_layer == u.layer_begin && max_cells >= layers;
  const uint64_t columns =
      whole ? std::min(std::max<uint64_t>(std::min(max_cells / layers, max_blocks), 1),
                       uint64_t{u.block_end - u.next_block})
            : 1;
  read.layer_end =
      u.next_layer + static_cast<uint32_t>(std::min(std::max<uint64_t>(max_cells, 1),
                                                    uint64_t{u.layer_end - u.next_layer}));
  read.block_end = u.next_block + static_cast<uint32_t>(columns);
  for (uint32_t layer = read.layer_begin; layer < read.layer_end; ++layer) {
    const size_t row = size_t{layer - u.layer_begin} * (u.block_end - u.block_begin);
    for (uint32_t block = read.block_begin; block < read.block_end; ++block) {
      read.digest += u.digests[row + (block - u.block_begin)];
    }
  }
  u.next_layer = read.layer_end == u.layer_end ? u.layer_begin : read.layer_end;
  if (u.next_layer == u.layer_begin) u.next_block = read.block_end;
  if (u.next_block == u.block_end) unread_.pop_front();
  return read;
}

std::span<const BlockId> ReadList::source_blocks(uint32_t begin, uint32_t end) const {
  return std::span(blocks_).subspan(begin - first_block_, end - begin);
}

}  // namespace baton::kvtransfer
