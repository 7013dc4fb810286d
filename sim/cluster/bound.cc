#include "sim/cluster/bound.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/latency/step_model.h"

namespace baton::sim {
namespace {

using latency::StepCosts;

constexpr double kNever = std::numeric_limits<double>::infinity();

bool computes_prompts(const WorkerGroup& g, uint32_t tokens, uint32_t most_local) {
  return g.auto_role || g.role != proto::ROLE_DECODE || tokens <= most_local;
}
bool decodes(const WorkerGroup& g) { return g.auto_role || g.role != proto::ROLE_PREFILL; }

// What requests cost in one group, at one λ. Seconds of a worker.
class GroupCosts {
 public:
  // `share` in [0, 1]: of the greatest λ there is.
  GroupCosts(const WorkerGroup& group, double share, double tpot)
      : costs_(group.profile.step), tpot_(tpot) {
    const double most = costs_.ridge_rows > 0
                            ? std::min(costs_.row_beyond, costs_.fixed / costs_.ridge_rows)
                            : costs_.row_beyond;
    lambda_ = share * most;
    per_step_ = costs_.fixed - lambda_ * costs_.ridge_rows;
    const double rows = most_rows(group);
    if (!decodes(group)) per_prompt_row_ = per_step_ / rows;
  }

  double prompt(uint32_t tokens) const {
    const double n = tokens;
    return (costs_.row + lambda_ + per_prompt_row_ + costs_.context_token) * n +
           costs_.attended_pair * n * (n + 1) / 2 + costs_.output;
  }

  // Of all tokens after the first.
  double decode(uint32_t prompt, double output) const {
    const double n = output - 1;
    if (n <= 0) return 0;
    const double row = costs_.row + costs_.output;
    const double read = costs_.context_token + costs_.attended_pair;
    const double least = row + read * (prompt + 1.0);
    const double spare = tpot_ - costs_.fixed;
    if (least > spare) return kNever;
    const double context = n * prompt + n * (n + 1) / 2;
    return n * (row + lambda_) + read * context + per_step_ * n * least / spare;
  }

 private:
  static double most_rows(const WorkerGroup& g) {
    if (g.step_tokens != 0) return g.step_tokens;
    const double context = g.max_context != 0 ? g.max_context : static_cast<double>(g.kv_tokens);
    return (g.chunk_tokens != 0 ? g.chunk_tokens : context) + g.max_sequences;
  }

  const StepCosts& costs_;
  double tpot_, lambda_ = 0, per_step_ = 0, per_prompt_row_ = 0;
};

struct Request {
  double prompt_by = 0, tokens_by = 0;  // seconds
  // [groups]: what they cost there; kNever where they cannot be served.
  std::vector<double> prompt, tokens;
};

class Search {
 public:
  Search(const ClusterSpec& spec, const Traffic& traffic, const BoundOptions& options)
      : spec_(spec), traffic_(traffic), options_(options), prices_(spec.groups.size()) {
    requests_.resize(traffic.size());
    double outputs = 0;
    for (size_t i = 0; i < traffic.size(); ++i) outputs += traffic.output_tokens(i);
    mean_output_ = outputs / static_cast<double>(traffic.size());
  }

  Bound run() {
    best_.requests = kNever;
    for (const double share : {0.0, 0.5, 1.0}) {
      price_requests(share);
      for (const double until : ends()) {
        until_ = until;
        descend();
      }
    }
    return std::move(best_);
  }

 private:
  void price_requests(double share) {
    const double ttft = to_seconds(options_.slo.ttft), tpot = to_seconds(options_.slo.tpot);
    std::vector<GroupCosts> costs;
    for (const WorkerGroup& g : spec_.groups) costs.emplace_back(g, decodes(g) ? share : 1.0, tpot);
    for (size_t i = 0; i < requests_.size(); ++i) {
      const uint32_t input = traffic_.shares_prompts() ? 1 : traffic_.input_tokens(i);
      const double output = options_.known_outputs ? traffic_.output_tokens(i) : mean_output_;
      Request& r = requests_[i];
      r.prompt_by = to_seconds(traffic_.at(i)) + ttft;
      r.tokens_by = r.prompt_by + tpot * (output - 1);
      r.prompt.assign(costs.size(), kNever);
      r.tokens.assign(costs.size(), kNever);
      for (size_t g = 0; g < costs.size(); ++g) {
        const WorkerGroup& group = spec_.groups[g];
        const Duration alone =
            latency::prompt_time(group.profile.step, input, 0, group.chunk_tokens);
        if (computes_prompts(group, input, options_.most_local_tokens) &&
            alone <= options_.slo.ttft) {
          r.prompt[g] = costs[g].prompt(input);
        }
        if (decodes(group) || output <= 1) r.tokens[g] = costs[g].decode(input, output);
      }
    }
  }

  // Times from which on nothing need be paid, to be tried.
  std::vector<double> ends() const {
    std::vector<double> by;
    for (const Request& r : requests_) by.push_back(r.tokens_by);
    std::ranges::sort(by);
    const double last = to_seconds(traffic_.at(traffic_.size() - 1));
    const double ttft = to_seconds(options_.slo.ttft);
    std::vector<double> out{last / 2, last * 0.8, last * 0.9, last, last + ttft, by.back()};
    for (const double share : {0.9, 0.97, 0.99}) {
      out.push_back(by[static_cast<size_t>(share * static_cast<double>(by.size() - 1))]);
    }
    return out;
  }

  double paid(const Request& r) const {
    double prompt = kNever, tokens = kNever;
    for (size_t g = 0; g < prices_.size(); ++g) {
      const auto price = [&](double by) { return by <= until_ ? prices_[g] : 0.0; };
      if (r.prompt[g] < kNever) prompt = std::min(prompt, price(r.prompt_by) * r.prompt[g]);
      if (r.tokens[g] < kNever) tokens = std::min(tokens, price(r.tokens_by) * r.tokens[g]);
    }
    return prompt + tokens;
  }

  double bound() const {
    double sum = 0;
    for (size_t g = 0; g < prices_.size(); ++g) {
      sum += until_ * prices_[g] * spec_.groups[g].count;
    }
    for (const Request& r : requests_) sum += std::max(0.0, 1 - paid(r));
    return sum;
  }

  // The bound is convex in the prices: one after the other is brought to its best.
  void descend() {
    std::ranges::fill(prices_, 0.0);
    const int rounds = prices_.size() > 1 ? 3 : 1;
    for (int round = 0; round < rounds; ++round) {
      for (double& price : prices_) take_best(price);
    }
    const double found = bound();
    if (!(found < best_.requests)) return;
    best_.requests = found;
    best_.costs.clear();
    for (const Request& r : requests_) best_.costs.push_back(paid(r));
  }

  // Golden section, in [0, what makes all the seconds there are worth all requests]: beyond it the
  // bound is above the number of requests.
  void take_best(double& price) {
    const size_t g = static_cast<size_t>(&price - prices_.data());
    constexpr double kGolden = 0.6180339887498949;
    double low = 0;
    double high = static_cast<double>(requests_.size()) / (until_ * spec_.groups[g].count);
    const auto at = [&](double p) {
      price = p;
      return bound();
    };
    double a = high - kGolden * (high - low), b = low + kGolden * (high - low);
    double of_a = at(a), of_b = at(b);
    for (int i = 0; i < 30; ++i) {
      if (of_a <= of_b) {
        high = b;
        b = std::exchange(a, b - kGolden * (b - low));
        of_b = std::exchange(of_a, at(a));
      } else {
        low = a;
        a = std::exchange(b, a + kGolden * (high - a));
        of_a = std::exchange(of_b, at(b));
      }
    }
    const double middle = (low + high) / 2;
    price = at(middle) <= at(0) ? middle : 0;
  }

  const ClusterSpec& spec_;
  const Traffic& traffic_;
  const BoundOptions options_;
  double mean_output_ = 1, until_ = 0;
  std::vector<Request> requests_;
  std::vector<double> prices_;  // [groups]: of a second of a worker
  Bound best_;
};

}  // namespace

Bound most_met(const ClusterSpec& spec, const Traffic& traffic, const BoundOptions& options) {
  return Search(spec, traffic, options).run();
}

}  // namespace baton::sim
