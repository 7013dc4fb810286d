#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace baton::router {

// How many tokens a request will put out: a distribution of each class, learnt online. Only what
// has ended teaches it; the length that a request is going to have is nowhere to be asked for.
//
// An estimate of the survival function S(k) = P(length > k) after Kaplan and Meier, in buckets: one
// token wide up to 40, at most 5 % wide beyond, up to kMaxTokens. A bucket's hazard is
// ended in it / were at risk in it, both forgetful: with each one that follows in its class, an
// observation counts 1 - 1/kMemory of what it did. An answer that was cut off (by max_tokens, or
// the client) was at risk as far as it came and ended nowhere, so that short max_tokens do not make
// answers look short. Within a bucket ends are spread evenly. Where little was seen the prior
// speaks, which counts as kPriorWeight more requests at risk in every bucket: the class that it is
// a part of, or a geometric length of mean kPriorMean.
//
// Short answers end first: a burst teaches its short ones before its long ones, until these have
// ended, too.
//
// Pure: no clock. Allocates only when constructed. One thread at a time.
class LengthModel {
 public:
  static constexpr uint32_t kMaxTokens = 1u << 20;  // longer counts as that
  static constexpr double kMemory = 2048;           // requests
  static constexpr double kPriorMean = 256;         // tokens
  static constexpr double kPriorWeight = 4;         // requests

  enum class End : uint8_t {
    kOwn,  // an end token or a stop string
    kCut,  // it would have gone on: max_tokens, a cancel, a failure
  };

  // `parts`: that each class has, with a distribution of its own; they are the classes that follow
  // it: 0, its parts, then 1 + parts and so on.
  explicit LengthModel(uint32_t num_classes, uint32_t parts = 0);

  // A choice is over, with `output_tokens` delivered. O(1), and every 16th time (more often while
  // little is known) O(buckets): what is below may lag by so many.
  void observe(uint32_t class_index, uint32_t output_tokens, End end);

  // Of a request not begun: its mean length, at most max_tokens.
  double mean(uint32_t class_index, uint32_t max_tokens) const {
    return mean_left(class_index, 0, max_tokens);
  }
  // Of one that has delivered so many and goes on: the mean of what is to come, at most max_tokens
  // - delivered; 0 if there is no more to come.
  double mean_left(uint32_t class_index, uint32_t delivered, uint32_t max_tokens) const;
  // P(length > delivered + more | length > delivered): that it is still there so much later.
  double survival(uint32_t class_index, uint32_t delivered, uint32_t more) const;

  // Observations that count, the older ones by what is left of them.
  double seen(uint32_t class_index) const { return classes_[class_index].seen; }

  static constexpr size_t kBuckets = 254;
  // Bucket b holds the lengths in (edge(b), edge(b + 1)].
  static uint32_t edge(size_t bucket);

 private:
  struct Class {
    // Weights, by bucket of the length.
    std::array<double, kBuckets> ended{}, passed{}, partly{};
    double seen = 0;
    uint32_t pending = 0;  // observations since refresh()
    // What follows from them.
    std::array<double, kBuckets> hazard{};            // P(ends in it | comes to it)
    std::array<double, kBuckets + 1> log_survival{};  // at its lower edge
    std::array<double, kBuckets + 1> left{};          // mean tokens still to come there, no cap
  };
  // A length in a bucket.
  struct Place {
    size_t bucket;
    double share;  // of those who came to the bucket, who are left
  };

  void refresh(uint32_t index);
  double prior_hazard(uint32_t index, size_t bucket) const;
  static Place place_of(const Class& c, uint32_t tokens);
  static double left_at(const Class& c, uint32_t tokens);
  static double survival_between(const Class& c, uint32_t from, uint32_t to);

  const uint32_t parts_;
  std::vector<Class> classes_;
};

}  // namespace baton::router
