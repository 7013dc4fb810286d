#include "sim/cluster/traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/base/mix.h"
#include "sim/cluster/draw.h"
#include "sim/timeline.h"

namespace baton::sim {
namespace {

constexpr double kMostVariation = 100;

// Of one arrival after another, from 0 on.
class Gaps {
 public:
  Gaps(const Arrivals& arrivals, double rate, Random random)
      : arrivals_(arrivals), rate_(rate), random_(random) {}
  double next() {
    const double gap = arrivals_.kind == Arrivals::Kind::kGamma ? gamma_of(random_, arrivals_.cv)
                                                                : exponential(random_);
    return at_ += gap / rate_;
  }

 private:
  const Arrivals arrivals_;
  const double rate_;
  Random random_;
  double at_ = 0;
};

// A trace's own, `entry` of round `round`; a round follows the last as one request the other.
double own_time(const TraceFile& trace, uint32_t entry, uint32_t round) {
  const double span = to_seconds(trace.entries.back().at);
  const double n = static_cast<double>(trace.entries.size());
  const double period = n > 1 ? span * n / (n - 1) : 1;
  return to_seconds(trace.entries[entry].at) + period * round;
}

}  // namespace

std::string Arrivals::to_string() const {
  switch (kind) {
    case Kind::kTrace:
      return "trace";
    case Kind::kPoisson:
      return "poisson";
    case Kind::kGamma:
      return fmt::format("gamma:{:g}", cv);
  }
  return {};
}

result<Arrivals> parse_arrivals(std::string_view text) {
  if (text == "trace") return Arrivals{Arrivals::Kind::kTrace};
  if (text == "poisson") return Arrivals{Arrivals::Kind::kPoisson};
  Arrivals a{Arrivals::Kind::kGamma};
  const std::string_view number = text.starts_with("gamma:") ? text.substr(6) : "";
  const auto [end, ec] = std::from_chars(number.data(), number.data() + number.size(), a.cv);
  if (number.empty() || ec != std::errc() || end != number.data() + number.size() || !(a.cv > 0) ||
      a.cv > kMostVariation) {
    return error(Errc::kInvalidArgument,
                 fmt::format("arrivals '{}' are not trace, poisson or gamma:CV", text));
  }
  return a;
}

result<Traffic> Traffic::make(const TraceFile& trace, const TrafficOptions& options) {
  const bool own = options.arrivals.kind == Arrivals::Kind::kTrace;
  if (own && !trace.has_arrivals) {
    return error(
        Errc::kInvalidArgument,
        fmt::format("{} has no times of arrival: they must be poisson or gamma:CV", trace.name));
  }
  const auto n = static_cast<uint32_t>(trace.entries.size());
  const double span = to_seconds(trace.entries.back().at);
  const double own_rate = trace.has_arrivals && span > 0 ? (n - 1) / span : 0;
  const double rate = options.rate > 0 ? options.rate : own_rate;
  if (own && !(own_rate > 0) && options.rate > 0) {
    return error(
        Errc::kInvalidArgument,
        fmt::format("{} has all its requests at one time, which no rate stretches: they must "
                    "be poisson or gamma:CV",
                    trace.name));
  }
  if (!(rate > 0)) {
    return error(Errc::kInvalidArgument,
                 fmt::format("{} has no rate: one must be given", trace.name));
  }
  const bool in_order = own || trace.block_tokens > 0 || trace.has_arrivals;
  Traffic traffic;
  traffic.trace_ = &trace;
  traffic.longest_output_ = trace.longest_output();
  Random random(mix(options.seed) ^ 0x7ca55);
  Gaps gaps(options.arrivals, rate, random.fork());
  const uint64_t count = options.count > 0 ? options.count : n;
  traffic.items_.reserve(count);
  const double stretch = own_rate > 0 ? own_rate / rate : 1;
  for (uint64_t i = 0; i < count; ++i) {
    Item item;
    item.entry = static_cast<uint32_t>(in_order ? i % n : random.pick(n));
    item.round = static_cast<uint32_t>(i / n);
    item.at = from_seconds(own ? own_time(trace, item.entry, item.round) * stretch : gaps.next());
    traffic.items_.push_back(item);
  }
  return traffic;
}

double Traffic::rate() const {
  const double span = to_seconds(items_.back().at - items_.front().at);
  return span > 0 ? static_cast<double>(items_.size() - 1) / span : 0;
}

// Of a block that its seed names. Two streams in turn: that both of two blocks are equal does not
// happen by chance.
void Traffic::fill(uint64_t seed, TokenId first, uint32_t count, std::span<TokenId> out) {
  uint64_t even = mix(seed), odd = mix(seed ^ kGolden);
  const auto draw = [&](uint64_t& stream) {
    stream += kGolden;
    return first + static_cast<TokenId>((stream >> 32) * count >> 32);
  };
  size_t t = 0;
  for (; t + 1 < out.size(); t += 2) {
    out[t] = draw(even);
    out[t + 1] = draw(odd);
  }
  if (t < out.size()) out[t] = draw(even);
}

void Traffic::prompt(size_t i, TokenId first, uint32_t count, std::vector<TokenId>& out) const {
  const TraceFile::Entry& e = entry(i);
  out.resize(e.input_tokens);
  const std::span all(out);
  const uint32_t block = trace_->block_tokens;
  if (block == 0) return fill(i + 1, first, count, all);
  for (uint32_t b = 0; b * block < e.input_tokens; ++b) {
    const uint64_t seed = trace_->blocks[e.first_block + b] ^ mix(items_[i].round + 1);
    fill(seed, first, count, all.subspan(b * block, std::min(block, e.input_tokens - b * block)));
  }
}

}  // namespace baton::sim
