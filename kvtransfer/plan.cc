#include "kvtransfer/plan.h"

#include <algorithm>
#include <cassert>
#include <span>

namespace baton::kvtransfer {
namespace {

// Appends one part's segments after the other. Parts that repeat the one before some steps further
// on, as neighbouring blocks do, only count its segments up.
class Merger {
 public:
  explicit Merger(std::vector<Segment>& segments) : segments_(segments), run_(segments.size()) {}

  // Of the part that is being added.
  void push(uint64_t source_offset, uint64_t sink_offset, uint64_t bytes) {
    if (!part_.empty()) {
      Segment& last = part_.back();
      if (last.source_offset + last.bytes == source_offset &&
          last.sink_offset + last.bytes == sink_offset) {
        last.bytes += bytes;
        return;
      }
    }
    part_.push_back({source_offset, sink_offset, bytes});
  }

  void end_part() {
    if (!repeats()) {
      end_run();
      segments_.insert(segments_.end(), part_.begin(), part_.end());
    }
    part_.clear();
  }

  // After the last part.
  void end_run() {
    // What is without gaps on both sides is one piece.
    for (size_t i = run_; i < segments_.size(); ++i) {
      Segment& s = segments_[i];
      if (s.count > 1 && s.source_stride == s.bytes && s.sink_stride == s.bytes) {
        s = {s.source_offset, s.sink_offset, s.total_bytes()};
      }
    }
    run_ = segments_.size();
  }

 private:
  // Whether the part goes on where the run's segments stand; then it has been added to them.
  bool repeats() {
    const std::span<Segment> run = std::span(segments_).subspan(run_);
    if (run.size() != part_.size() || run.empty()) return false;
    const uint64_t count = run[0].count;
    const uint64_t source_stride = (part_[0].source_offset - run[0].source_offset) / count;
    const uint64_t sink_stride = (part_[0].sink_offset - run[0].sink_offset) / count;
    for (size_t i = 0; i < run.size(); ++i) {
      const Segment &s = run[i], &p = part_[i];
      // Backwards wraps around, and is too much.
      if (s.bytes != p.bytes || source_stride < s.bytes || sink_stride < s.bytes ||
          p.source_offset != s.source_offset + count * source_stride ||
          p.sink_offset != s.sink_offset + count * sink_stride ||
          p.source_offset < s.source_offset || p.sink_offset < s.sink_offset ||
          (count > 1 && (s.source_stride != source_stride || s.sink_stride != sink_stride))) {
        return false;
      }
    }
    for (Segment& s : run) {
      s.count = count + 1;
      s.source_stride = source_stride;
      s.sink_stride = sink_stride;
    }
    return true;
  }

  std::vector<Segment>& segments_;
  size_t run_;                 // where the run begins in segments_, whose segments may still grow
  std::vector<Segment> part_;  // plain
};

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

// All of a block that lies alike on both sides: a shard's layers are one run.
void copy_layers(const kvcache::KvLayout& layout, const Part& part, const KvRange& range,
                 Merger& out) {
  uint32_t head = 0;
  for (uint32_t shard = 0; shard < layout.num_shards(); ++shard) {
    const uint32_t heads = layout.heads_of_shard(shard);
    out.push(
        layout.offset(part.source.block, range.layer_begin, 0, head),
        layout.offset(part.sink.block, range.layer_begin, 0, head),
        (range.layer_end - range.layer_begin) * layout.num_planes() * heads * layout.head_bytes());
    head += heads;
  }
}

// Head by head; neighbours that lie alike merge in push().
void copy_heads(const kvcache::KvLayout& source, const kvcache::KvLayout& sink, const Part& part,
                const KvRange& range, Merger& out) {
  const uint32_t head_begin = std::max(source.head_begin, sink.head_begin);
  const uint32_t head_end =
      std::min(source.head_begin + source.num_heads(), sink.head_begin + sink.num_heads());
  for (uint32_t layer = range.layer_begin; layer < range.layer_end; ++layer) {
    for (uint32_t plane = 0; plane < source.num_planes(); ++plane) {
      for (uint32_t head = head_begin; head < head_end; ++head) {
        out.push(
            source.offset(part.source.block, layer, plane, head - source.head_begin,
                          part.source.token),
            sink.offset(part.sink.block, layer, plane, head - sink.head_begin, part.sink.token),
            part.count * source.vector_bytes());
      }
    }
  }
}

}  // namespace

bool lie_alike(const kvcache::KvLayout& a, const kvcache::KvLayout& b) {
  return a.block_tokens == b.block_tokens && a.head_begin == b.head_begin &&
         a.num_heads() == b.num_heads() && a.shard_heads == b.shard_heads;
}

void plan_transfer(const kvcache::KvLayout& source, BlockRun source_blocks,
                   const kvcache::KvLayout& sink, BlockRun sink_blocks, const KvRange& range,
                   std::vector<Segment>& segments) {
  Merger merger(segments);
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
      copy_layers(source, part, range, merger);
    } else {
      copy_heads(source, sink, part, range, merger);
    }
    merger.end_part();
    at += part.count;
  }
  merger.end_run();
}

}  // namespace baton::kvtransfer
