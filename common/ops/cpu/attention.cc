#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/attention.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include <atomic>

#include "common/ops/cpu/attention_dot.h"
#include "common/ops/cpu/attention_plan.h"
#include "common/ops/cpu/attention_tile-inl.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"

#ifndef BATON_OPS_CPU_ATTENTION_TYPES_
#define BATON_OPS_CPU_ATTENTION_TYPES_
namespace baton::ops {

// Where an item writes the records of its rows; base is null if it merges them itself.
struct RecordMap {
  float* base = nullptr;  // of its first row, first query head, first tile
  uint32_t first_tile = 0;
  size_t row_stride = 0, head_stride = 0, tile_stride = 0;  // in floats

  float* at(uint32_t row, uint32_t head, uint32_t tile) const {
    return base + row * row_stride + head * head_stride + (tile - first_tile) * tile_stride;
  }
};

}  // namespace baton::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

// Tokens of the tile at `first` that a row of the item sees: those up to its own position.
uint32_t tokens_seen(const AttentionArgs& args, const AttentionItem& item, uint32_t row,
                     uint32_t first) {
  const uint32_t seen = args.sequences.host[item.sequence].position + row + 1;
  return seen <= first ? 0 : std::min(seen - first, kAttentionTile);
}

KvTile item_tile(const AttentionArgs& args, const AttentionItem& item, uint32_t index) {
  const uint32_t first = index * kAttentionTile;
  return {args.kv, args.sequences.host[item.sequence], item.kv_head, first,
          tokens_seen(args, item, item.row_end - 1, first)};
}

void finish_state(const float* state, uint32_t head_dim, const Tensor& out, int64_t row,
                  uint32_t head) {
  if (out.dtype == DType::kF32) {
    finish_record(state, head_dim, out.row<float>(row) + head * head_dim);
  } else {
    finish_record(state, head_dim, out.row<uint16_t>(row) + head * head_dim);
  }
}

// One item in work: its scratch and what it knows of its queries. A query is one row's one head;
// queries of a row are neighbours.
template <class Products>
struct ItemRun {
  const AttentionArgs& args;
  const AttentionItem& item;
  const AttentionItem* after;  // what this thread does next, or null
  const RecordMap& records;
  const SequenceRows& seq = args.sequences.host[item.sequence];
  uint32_t head_dim = args.kv.head_dim;
  uint32_t group = args.num_heads / args.kv.num_kv_heads;
  uint32_t queries = (item.row_end - item.row_begin) * group;
  Products products = {};
  float* scores = nullptr;    // [kMaxRows][256]
  float* partials = nullptr;  // [kMaxRows][head_dim + 2]
  float* states = nullptr;    // [queries][head_dim + 2], where the item merges

  static constexpr int kMaxRows = Products::kMaxRows;
  static constexpr size_t align(size_t floats) { return (floats + 15) / 16 * 16; }

  void take_scratch(device::Scratch& scratch) {
    const size_t record = head_dim + 2;
    const size_t product_floats = align(Products::scratch_bytes(head_dim) / sizeof(float));
    const size_t score_floats = size_t{kMaxRows} * kAttentionTile;
    const size_t partial_floats = align(kMaxRows * record);
    const size_t state_floats = align(queries * record);
    float* p = scratch.get<float>(product_floats + score_floats + partial_floats + state_floats);
    products.take_scratch(reinterpret_cast<std::byte*>(p), head_dim);
    scores = p + product_floats;
    partials = scores + score_floats;
    states = partials + partial_floats;
    std::fill(states, states + state_floats, 0.0f);
  }

  float* record(uint32_t query, uint32_t tile, int slot) const {
    if (records.base == nullptr) return partials + static_cast<size_t>(slot) * (head_dim + 2);
    return records.at(query / group, query % group, tile);
  }

  // Tokens of the tile at `first` that the query sees.
  uint32_t seen(uint32_t query, uint32_t first) const {
    return tokens_seen(args, item, item.row_begin + query / group, first);
  }

  // What comes after tile `index`: its keys are brought into cache meanwhile.
  KvTile next_tile(uint32_t index) const {
    if (index + 1 < item.tile_end) return item_tile(args, item, index + 1);
    if (after != nullptr) return item_tile(args, *after, after->tile_begin);
    return {args.kv, seq, item.kv_head, 0, 0};
  }

  void all_tiles() {
    for (uint32_t t = item.tile_begin; t < item.tile_end; ++t) one_tile(t);
  }

  void one_tile(uint32_t index) {
    const KvTile tile = item_tile(args, item, index);
    products.begin_tile(queries > kMaxRows);
    uint32_t q = 0;
    for (; seen(q, tile.first) == 0; ++q) {
      // Nothing of this tile is for the query: an empty record, whatever lay there before.
      if (records.base != nullptr) record(q, index, 0)[head_dim + 1] = 0.0f;
    }
    // The first group brings in what comes next; the others have nothing left to bring.
    const KvTile next = next_tile(index);
    q = some_queries(tile, q, &next);
    while (q < queries) q = some_queries(tile, q, nullptr);
  }

  // A group from query `q0` on; returns where it ends.
  uint32_t some_queries(const KvTile& tile, uint32_t q0, const KvTile* next) {
    const uint32_t index = tile.first / kAttentionTile;
    QueryGroup g;
    uint32_t query = q0;
    for (; query < queries && g.count < kMaxRows; ++query, ++g.count) {
      const uint32_t row = seq.first_row + item.row_begin + query / group;
      g.q[g.count] = args.q.row<float>(row) + (item.kv_head * group + query % group) * head_dim;
      g.seen[g.count] = seen(query, tile.first);
      g.records[g.count] = record(query, index, g.count);
    }
    attend(products, tile, g, args.scale, next, scores);
    if (records.base == nullptr) {
      for (int i = 0; i < g.count; ++i) {
        merge_record(g.records[i], head_dim,
                     states + (q0 + static_cast<uint32_t>(i)) * (head_dim + 2));
      }
    }
    return query;
  }

  void finish() {
    for (uint32_t query = 0; query < queries; ++query) {
      const uint32_t row = seq.first_row + item.row_begin + query / group;
      const uint32_t head = item.kv_head * group + query % group;
      finish_state(states + query * (head_dim + 2), head_dim, args.out, row, head);
    }
  }
};

template <class Products>
void run_item(const AttentionArgs& args, const AttentionItem& item, const AttentionItem* after,
              const RecordMap& records, device::Scratch& scratch) {
  ItemRun<Products> run{.args = args, .item = item, .after = after, .records = records};
  run.take_scratch(scratch);
  run.all_tiles();
  if (records.base == nullptr) run.finish();
}

void item_bf16(const AttentionArgs& args, const AttentionItem& item, const AttentionItem* after,
               const RecordMap& records, device::Scratch& scratch) {
  run_item<FmaProducts<uint16_t>>(args, item, after, records, scratch);
}

void item_f32(const AttentionArgs& args, const AttentionItem& item, const AttentionItem* after,
              const RecordMap& records, device::Scratch& scratch) {
  run_item<FmaProducts<float>>(args, item, after, records, scratch);
}

void item_dot(const AttentionArgs& args, const AttentionItem& item, const AttentionItem* after,
              const RecordMap& records, device::Scratch& scratch) {
  run_item<DotProducts>(args, item, after, records, scratch);
}

// out = the merged records, `tiles` of them, head_dim + 2 floats apart; `state` is scratch.
void merge_records(const float* records, uint32_t tiles, uint32_t head_dim, float* state) {
  for (uint32_t t = 0; t < tiles; ++t) merge_record(records + t * (head_dim + 2), head_dim, state);
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {
namespace {

HWY_EXPORT(item_bf16);
HWY_EXPORT(item_f32);
HWY_EXPORT(item_dot);
HWY_EXPORT(merge_records);
HWY_EXPORT(finish_state);

using RunItem = void (*)(const AttentionArgs&, const AttentionItem&, const AttentionItem* after,
                         const RecordMap&, device::Scratch&);

RunItem runner(const AttentionArgs& args, bool dot) {
  if (args.kv.dtype == DType::kF32) return HWY_DYNAMIC_DISPATCH(item_f32);
  return dot ? HWY_DYNAMIC_DISPATCH(item_dot) : HWY_DYNAMIC_DISPATCH(item_bf16);
}

void check(const AttentionArgs& args) {
  assert(args.kv.head_dim % 16 == 0 && args.kv.head_dim <= kMaxHeadDim);
  assert(args.kv.block_tokens >= 16 && kAttentionTile % args.kv.block_tokens == 0);
  assert(args.num_heads % args.kv.num_kv_heads == 0);
  (void)args;
}

uint32_t heads_per_kv(const AttentionArgs& args) { return args.num_heads / args.kv.num_kv_heads; }

// A split item's records: [row][head][tile] from its first record on.
RecordMap split_records(const AttentionArgs& args, const AttentionItem& item, float* records) {
  if (!item.split()) return {};
  const size_t record = args.kv.head_dim + 2;
  const size_t tiles = item.tiles;
  return {.base = records + item.first_record * record,
          .row_stride = heads_per_kv(args) * tiles * record,
          .head_stride = tiles * record,
          .tile_stride = record};
}

// What the parts of a split item have left, merged in tile order into the output.
void merge_split(const AttentionArgs& args, const AttentionItem& item, const RecordMap& records) {
  const uint32_t head_dim = args.kv.head_dim, group = heads_per_kv(args);
  const SequenceRows& seq = args.sequences.host[item.sequence];
  for (uint32_t r = 0; r < item.row_end - item.row_begin; ++r) {
    const uint32_t row = seq.first_row + item.row_begin + r;
    for (uint32_t g = 0; g < group; ++g) {
      float state[kMaxHeadDim + 2] = {};
      HWY_DYNAMIC_DISPATCH(merge_records)(records.at(r, g, 0), item.tiles, head_dim, state);
      HWY_DYNAMIC_DISPATCH(finish_state)
      (state, head_dim, args.out, row, item.kv_head * group + g);
    }
  }
}

void attention(Stream& stream, const AttentionArgs& args, bool dot) {
  check(args);
  device::CpuStream& cpu = cpu_stream(stream);
  device::ThreadPool& pool = cpu.pool();
  AttentionPlan plan(args, pool.size());
  AttentionItem* items = cpu.shared_scratch(0).get<AttentionItem>(plan.max_items());
  const size_t count = plan.fill(items);
  const size_t record = args.kv.head_dim + 2;
  float* records = cpu.shared_scratch(1).get<float>(plan.num_records() * record);
  const RunItem run = runner(args, dot);
  // A thread claims its next item before it begins one, whose work hides how long that one's keys
  // take to come.
  std::atomic<size_t> claimed{0};
  pool.parallel_for(std::min<size_t>(count, pool.size()), [&](size_t, unsigned thread) {
    for (size_t i = claimed++, next = 0; i < count; i = next) {
      next = claimed++;
      run(args, items[i], next < count ? &items[next] : nullptr,
          split_records(args, items[i], records), cpu.scratch(thread));
    }
  });
  if (plan.num_records() == 0) return;
  for (size_t i = 0; i < count; ++i) {
    const AttentionItem& item = items[i];
    if (item.split() && item.tile_begin == 0) {
      merge_split(args, item, split_records(args, item, records));
    }
  }
}

void attention_partials(Stream& stream, const AttentionArgs& args,
                        const AttentionPartials& partials, bool dot) {
  check(args);
  device::CpuStream& cpu = cpu_stream(stream);
  device::ThreadPool& pool = cpu.pool();
  AttentionPlan plan(args, 1);  // whole items: every one has all its rows' tiles
  AttentionItem* items = cpu.shared_scratch(0).get<AttentionItem>(plan.max_items());
  const size_t count = plan.fill(items);
  const size_t record = args.kv.head_dim + 2, group = heads_per_kv(args);
  const size_t head_stride = partials.num_tiles * record;
  const Tensor& out = partials.records;
  for (int64_t r = 0; r < out.rows; ++r) std::fill_n(out.row<float>(r), out.cols, 0.0f);
  const RunItem run = runner(args, dot);
  pool.parallel_for(count, [&](size_t i, unsigned thread) {
    AttentionItem item = items[i];
    item.tile_begin = partials.first_tile;
    item.tile_end = std::min(item.tile_end, partials.first_tile + partials.num_tiles);
    const uint32_t row = args.sequences.host[item.sequence].first_row + item.row_begin;
    const RecordMap map = {.base = out.row<float>(row) + item.kv_head * group * head_stride,
                           .first_tile = partials.first_tile,
                           .row_stride = static_cast<size_t>(out.row_stride),
                           .head_stride = head_stride,
                           .tile_stride = record};
    run(args, item, nullptr, map, cpu.scratch(thread));
  });
}

}  // namespace

void cpu_attention(Stream& stream, const AttentionArgs& args) { attention(stream, args, false); }

void cpu_attention_dot(Stream& stream, const AttentionArgs& args) { attention(stream, args, true); }

void cpu_attention_partials(Stream& stream, const AttentionArgs& args,
                            const AttentionPartials& partials) {
  attention_partials(stream, args, partials, false);
}

void cpu_attention_partials_dot(Stream& stream, const AttentionArgs& args,
                                const AttentionPartials& partials) {
  attention_partials(stream, args, partials, true);
}

void cpu_merge_partials(Stream& stream, std::span<const AttentionPartials> parts,
                        uint32_t num_heads, const Tensor& out) {
  const uint32_t head_dim = static_cast<uint32_t>(out.cols) / num_heads;
  assert(head_dim <= kMaxHeadDim);
  parallel_rows(stream, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (uint32_t h = 0; h < num_heads; ++h) {
        float state[kMaxHeadDim + 2] = {};
        for (const AttentionPartials& part : parts) {
          const size_t head_stride = size_t{part.num_tiles} * (head_dim + 2);
          HWY_DYNAMIC_DISPATCH(merge_records)
          (part.records.row<float>(r) + h * head_stride, part.num_tiles, head_dim, state);
        }
        HWY_DYNAMIC_DISPATCH(finish_state)(state, head_dim, out, r, h);
      }
    }
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
