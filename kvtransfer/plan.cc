#include "kvtransfer/plan.h"

#include <algorithm>
#include <cassert>

namespace baton::kvtransfer {
namespace {

void push(std::vector<Segment>& segments, size_t first, const Segment& s) {
  if (segments.size() > first) {
    Segment& last = segments.back();
    if (last.source_offset + last.bytes == s.source_offset &&
        last.sink_offset + last.bytes == s.sink_offset) {
      last.bytes += s.bytes;
      return;
    }
  }
  segments.push_back(s);
}

// One side's place of a position.
struct Place {
  BlockId block;
  uint32_t token;  // within the block
};
Place find(const kvcache::KvLayout& layout, const BlockRun& run, uint32_t position) {
  assert(position >= run.first_token);
  const uint32_t i = (position - run.first_token) / layout.block_tokens;
  assert(i < run.blocks.size());
  return {run.blocks[i], (position - run.first_token) % layout.block_tokens};
}

// Tokens [at, at + count) of one block on each side.
struct Part {
  Place source, sink;
  uint32_t count;
};

// All of a block that lies alike on both sides: its layers are one run.
void copy_layers(const kvcache::KvLayout& layout, const Part& part, const KvRange& range,
                 size_t first, std::vector<Segment>& segments) {
  push(segments, first,
       {layout.offset(part.source.block, range.layer_begin),
        layout.offset(part.sink.block, range.layer_begin),
        (range.layer_end - range.layer_begin) * layout.layer_bytes()});
}

// Head by head; whole heads that lie alike merge in push().
void copy_heads(const kvcache::KvLayout& source, const kvcache::KvLayout& sink, const Part& part,
                const KvRange& range, size_t first, std::vector<Segment>& segments) {
  const uint32_t head_begin = std::max(source.head_begin, sink.head_begin);
  const uint32_t head_end =
      std::min(source.head_begin + source.num_heads(), sink.head_begin + sink.num_heads());
  for (uint32_t layer = range.layer_begin; layer < range.layer_end; ++layer) {
    for (uint32_t plane = 0; plane < source.num_planes(); ++plane) {
      for (uint32_t head = head_begin; head < head_end; ++head) {
        push(segments, first,
             {source.offset(part.source.block, layer, plane, head - source.head_begin,
                            part.source.token),
              sink.offset(part.sink.block, layer, plane, head - sink.head_begin, part.sink.token),
              part.count * source.vector_bytes()});
      }
    }
  }
}

}  // namespace

bool lie_alike(const kvcache::KvLayout& a, const kvcache::KvLayout& b) {
  return a.block_tokens == b.block_tokens && a.head_begin == b.head_begin &&
         a.num_heads() == b.num_heads();
}

void plan_transfer(const kvcache::KvLayout& source, BlockRun source_blocks,
                   const kvcache::KvLayout& sink, BlockRun sink_blocks, const KvRange& range,
                   std::vector<Segment>& segments) {
  const size_t first = segments.size();  // what the caller had is not touched
  const bool alike = lie_alike(source, sink);
  const uint32_t small = std::min(source.block_tokens, sink.block_tokens);
  const uint32_t end = (range.token_end + small - 1) / small * small;
  for (uint32_t at = range.token_begin; at < end;) {
    const Part part = [&] {
      const Place from = find(source, source_blocks, at), to = find(sink, sink_blocks, at);
      return Part{
          from, to,
          std::min({end - at, source.block_tokens - from.token, sink.block_tokens - to.token})};
    }();
    if (alike && part.count == source.block_tokens) {
      copy_layers(source, part, range, first, segments);
    } else {
      copy_heads(source, sink, part, range, first, segments);
    }
    at += part.count;
  }
}

}  // namespace baton::kvtransfer
