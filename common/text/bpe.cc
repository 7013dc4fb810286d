#include "common/text/bpe.h"

#include <algorithm>
#include <bit>

#include "common/text/utf8.h"

namespace baton::text {
namespace {

uint64_t pair_of(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(Options options, std::span<const std::string_view> texts,
         const std::array<TokenId, 256>& byte_tokens, std::span<const Merge> merges)
    : options_(options), bytes_(byte_tokens), table_(std::bit_ceil(2 * merges.size() + 2)) {
  ids_.reserve(texts.size());
  for (size_t id = 0; id < texts.size(); ++id) {
    if (!texts[id].empty()) ids_.try_emplace(texts[id], static_cast<TokenId>(id));
  }
  for (const Merge& merge : merges) insert(merge);
}

size_t Bpe::slot_of(uint64_t pair) const {
  return (pair * 0x9e3779b97f4a7c15ull) >> 20 & (table_.size() - 1);
}

void Bpe::insert(const Merge& merge) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  size_t at = slot_of(pair);
  while (table_[at].pair != kEmpty && table_[at].pair != pair) at = (at + 1) & (table_.size() - 1);
  table_[at] = {pair, {merge.rank, merge.merged}};
}

const Bpe::Found* Bpe::find(TokenId left, TokenId right) const {
  const uint64_t pair = pair_of(left, right);
  for (size_t at = slot_of(pair); table_[at].pair != kEmpty; at = (at + 1) & (table_.size() - 1)) {
    if (table_[at].pair == pair) return &table_[at].found;
  }
  return nullptr;
}

// The symbols before any merge.
void Bpe::start(std::string_view piece, std::vector<Scratch::Symbol>& symbols) const {
  symbols.clear();
  bool unknown_before = false;
  const auto add = [&](TokenId id) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1, true});
    unknown_before = false;
  };
  while (!piece.empty()) {
    const std::string_view part = piece.substr(0, options_.byte_level ? 1 : utf8_length(piece[0]));
    piece.remove_prefix(part.size());
    const auto byte_token = [this](char c) { return bytes_[static_cast<uint8_t>(c)]; };
    TokenId id = -1;
    if (options_.byte_level) {
      id = byte_token(part[0]);
    } else if (const auto found = ids_.find(part); found != ids_.end()) {
      id = found->second;
    }
    if (id >= 0) {
      add(id);
    } else if (options_.byte_fallback &&
               std::ranges::all_of(part, [&](char c) { return byte_token(c) >= 0; })) {
      for (char c : part) add(byte_token(c));
    } else if (options_.unknown && !(unknown_before && options_.fuse_unknown)) {
      add(*options_.unknown);
      unknown_before = true;
    }
  }
  if (!symbols.empty()) symbols.back().next = -1;
}

void Bpe::push(Scratch& scratch, int32_t left, int32_t right) const {
  const Found* found = find(scratch.symbols[static_cast<size_t>(left)].id,
                            scratch.symbols[static_cast<size_t>(right)].id);
  if (found == nullptr) return;
  const uint64_t order = static_cast<uint64_t>(found->rank) << 32 | static_cast<uint32_t>(left);
  scratch.heap.push_back({order, found->merged});
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const {
  if (options_.ignore_merges) {
    if (const auto whole = ids_.find(piece); whole != ids_.end()) {
      out.push_back(whole->second);
      return;
    }
  }
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  start(piece, symbols);
  heap.clear();
  for (size_t i = 1; i < symbols.size(); ++i) {
    push(scratch, static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
  }
  const auto later = [](const auto& a, const auto& b) { return a.order > b.order; };
  std::ranges::make_heap(heap, later);
  const auto push_sorted = [&](int32_t left, int32_t right) {
    const size_t before = heap.size();
    push(scratch, left, right);
    if (heap.size() > before) std::ranges::push_heap(heap, later);
  };
  while (!heap.empty()) {
    std::ranges::pop_heap(heap, later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    const auto at = static_cast<int32_t>(best.order & 0xffffffffu);
    auto& left = symbols[static_cast<size_t>(at)];
    // A candidate of before another merge took one of its two.
    if (!left.alive || left.next < 0) continue;
    auto& right = symbols[static_cast<size_t>(left.next)];
    const Found* now = find(left.id, right.id);
    if (now == nullptr || now->merged != best.merged) continue;
    left.id = best.merged;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = at;
      push_sorted(at, left.next);
    }
    if (left.previous >= 0) push_sorted(left.previous, at);
  }
  for (int32_t at = symbols.empty() ? -1 : 0; at >= 0; at = symbols[static_cast<size_t>(at)].next) {
    out.push_back(symbols[static_cast<size_t>(at)].id);
  }
}

}  // namespace baton::text
