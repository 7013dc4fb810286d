#include "router/placement/length_model.h"

#include <algorithm>
#include <cmath>

namespace baton::router {
namespace {

constexpr size_t kBuckets = LengthModel::kBuckets;
constexpr uint32_t kRefreshEvery = 16;
constexpr double kFew = 64;  // while no more were seen, each is taken in at once

// Bucket b is (kEdges[b], kEdges[b + 1]].
constexpr auto kEdges = [] {
  std::array<uint32_t, kBuckets + 1> edges{};
  for (size_t b = 0; b < kBuckets; ++b) {
    edges[b + 1] = std::min(edges[b] + std::max(edges[b] / 20, 1u), LengthModel::kMaxTokens);
  }
  return edges;
}();
static_assert(kEdges[kBuckets - 1] < LengthModel::kMaxTokens);
static_assert(kEdges[kBuckets] == LengthModel::kMaxTokens);

uint32_t width(size_t b) { return kEdges[b + 1] - kEdges[b]; }

// The bucket in which `tokens` + 1 falls: that of an answer which has so many and goes on.
size_t next_bucket(uint32_t tokens) {
  const auto above = std::upper_bound(kEdges.begin(), kEdges.end(), tokens);
  return static_cast<size_t>(above - kEdges.begin()) - 1;
}

double geometric_hazard(size_t b) {
  static const auto kHazards = [] {
    std::array<double, kBuckets> hazards;
    for (size_t i = 0; i < kBuckets; ++i) {
      hazards[i] = -std::expm1(width(i) * std::log1p(-1 / LengthModel::kPriorMean));
    }
    return hazards;
  }();
  return kHazards[b];
}

}  // namespace

LengthModel::LengthModel(uint32_t num_classes, uint32_t parts)
    : parts_(parts), classes_(num_classes * (1 + parts)) {
  for (uint32_t i = 0; i < classes_.size(); ++i) refresh(i);
}

double LengthModel::prior_hazard(uint32_t index, size_t bucket) const {
  const uint32_t part = index % (1 + parts_);
  return part == 0 ? geometric_hazard(bucket) : classes_[index - part].hazard[bucket];
}

uint32_t LengthModel::edge(size_t bucket) { return kEdges[bucket]; }

void LengthModel::observe(uint32_t class_index, uint32_t output_tokens, End end) {
  Class& c = classes_[class_index];
  const uint32_t tokens = std::min(output_tokens, kMaxTokens);
  if (end == End::kOwn) {
    c.ended[tokens == 0 ? 0 : next_bucket(tokens - 1)] += 1;
  } else {
    // It passed all buckets below, and went a part of the way through this one.
    const size_t b = next_bucket(tokens);
    if (b > 0) c.passed[b - 1] += 1;
    if (b < kBuckets) c.partly[b] += static_cast<double>(tokens - kEdges[b]) / width(b);
  }
  ++c.pending;
  if (c.pending >= kRefreshEvery || c.seen < kFew) refresh(class_index);
}

// The weights decay, and what follows from them is worked out from the longest bucket down.
void LengthModel::refresh(uint32_t index) {
  Class& c = classes_[index];
  const double keep = std::pow(1 - 1 / kMemory, c.pending);
  c.seen = (c.seen + c.pending) * keep;
  c.pending = 0;
  double beyond = 0;  // came past the bucket
  c.left[kBuckets] = kPriorMean;
  for (size_t b = kBuckets; b-- > 0;) {
    c.ended[b] *= keep;
    c.passed[b] *= keep;
    c.partly[b] *= keep;
    beyond += c.passed[b];
    const double at_risk = beyond + c.ended[b] + c.partly[b];
    const double hazard =
        (c.ended[b] + kPriorWeight * prior_hazard(index, b)) / (at_risk + kPriorWeight);
    c.hazard[b] = std::min(hazard, 1 - 1e-9);
    c.left[b] = width(b) - c.hazard[b] * (width(b) - 1) / 2 + (1 - c.hazard[b]) * c.left[b + 1];
    beyond += c.ended[b];
  }
  for (size_t b = 0; b < kBuckets; ++b) {
    c.log_survival[b + 1] = c.log_survival[b] + std::log1p(-c.hazard[b]);
  }
}

LengthModel::Place LengthModel::place_of(const Class& c, uint32_t tokens) {
  const size_t b = next_bucket(tokens);
  if (b == kBuckets) return {b, 1};
  return {b, 1 - c.hazard[b] * (tokens - kEdges[b]) / width(b)};
}

// The sum of S(k) / S(tokens) over k = tokens, tokens + 1, ...: linear within each bucket.
double LengthModel::left_at(const Class& c, uint32_t tokens) {
  const auto [b, share] = place_of(c, tokens);
  if (b == kBuckets) return c.left[b];
  const double first = tokens - kEdges[b], last = width(b) - 1;
  const double terms = last - first + 1;
  const double here = terms - c.hazard[b] / width(b) * (first + last) / 2 * terms;
  return (here + (1 - c.hazard[b]) * c.left[b + 1]) / share;
}

double LengthModel::survival_between(const Class& c, uint32_t from, uint32_t to) {
  const Place start = place_of(c, from), end = place_of(c, to);
  const double buckets = c.log_survival[end.bucket] - c.log_survival[start.bucket];
  return std::exp(buckets) * end.share / start.share;
}

double LengthModel::mean_left(uint32_t class_index, uint32_t delivered, uint32_t max_tokens) const {
  if (delivered >= max_tokens) return 0;
  const Class& c = classes_[class_index];
  const uint32_t from = std::min(delivered, kMaxTokens), to = std::min(max_tokens, kMaxTokens);
  const double most = max_tokens - delivered;
  if (from == to) return std::min(c.left[kBuckets], most);
  const double left = left_at(c, from) - survival_between(c, from, to) * left_at(c, to);
  return std::clamp(left, 0.0, most);
}

double LengthModel::survival(uint32_t class_index, uint32_t delivered, uint32_t more) const {
  const uint32_t from = std::min(delivered, kMaxTokens);
  const uint32_t to = from + std::min(more, kMaxTokens - from);
  return std::min(survival_between(classes_[class_index], from, to), 1.0);
}

}  // namespace baton::router
