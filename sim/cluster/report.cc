#include "sim/cluster/report.h"

#include <fmt/format.h>

namespace baton::sim {
namespace {

std::string percent(const Estimate& e) {
  const std::string mean = fmt::format("{:.1f}", 100 * e.mean);
  return e.half_width == 0 ? mean : fmt::format("{}±{:.1f}", mean, 100 * e.half_width);
}

std::string plain(const Estimate& e, int digits) {
  return e.half_width == 0 ? fmt::format("{:.{}f}", e.mean, digits)
                           : fmt::format("{:.{}f}±{:.{}f}", e.mean, digits, e.half_width, digits);
}

std::string three(const SweepPoint& p, Quantiles Measures::*which) {
  const auto ms = [&](double Quantiles::*q) { return 1000 * p.of(which, q).mean; };
  return fmt::format("{:.0f}/{:.0f}/{:.0f}", ms(&Quantiles::p50), ms(&Quantiles::p90),
                     ms(&Quantiles::p99));
}

std::string fine(const SweepPoint& p, Quantiles Measures::*which) {
  const auto ms = [&](double Quantiles::*q) { return 1000 * p.of(which, q).mean; };
  return fmt::format("{:.1f}/{:.1f}/{:.1f}", ms(&Quantiles::p50), ms(&Quantiles::p90),
                     ms(&Quantiles::p99));
}

uint64_t sum(const SweepPoint& p, uint64_t Measures::*what) {
  uint64_t all = 0;
  for (const Measures& m : p.runs) all += m.*what;
  return all;
}

// Columns counted in characters, not bytes: ± is two.
size_t width_of(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return n;
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  out += '"';
  return out;
}

std::string json_of(const Estimate& e) {
  return fmt::format(R"({{"mean": {:.9g}, "half_width_95": {:.9g}}})", e.mean, e.half_width);
}

std::string json_of(const Quantiles& q) {
  return fmt::format(
      R"({{"mean": {:.9g}, "p50": {:.9g}, "p90": {:.9g}, "p99": {:.9g}, "max": {:.9g}}})", q.mean,
      q.p50, q.p90, q.p99, q.most);
}

std::string json_of(const Measures& m) {
  return fmt::format(
      R"({{"requests": {}, "answered": {}, "refused": {}, "failed": {}, "rate": {:.9g}, )"
      R"("ttft_met": {:.9g}, "tpot_met": {:.9g}, "joint_met": {:.9g}, "goodput": {:.9g}, )"
      R"("bound": {:.9g}, "blind_bound": {:.9g}, "output_tokens_per_second": {:.9g}, )"
      R"("ttft_s": {}, "tpot_s": {}, "worst_gap_s": {}}})",
      m.requests, m.answered, m.refused, m.failed, m.rate, m.ttft_met, m.tpot_met, m.joint_met,
      m.goodput, m.bound, m.blind_bound, m.tokens_a_second, json_of(m.ttft), json_of(m.tpot),
      json_of(m.worst_gap));
}

std::string json_of(std::span<const Moment> moments) {
  if (moments.empty()) return "{}";
  const Swing swing = swing_of(moments);
  std::string out = fmt::format(
      R"({{"swing": {{"mean": {:.9g}, "variation": {:.9g}, "period_s": {:.9g}, )"
      R"("regularity": {:.9g}}}, "every_s": {:.9g})",
      swing.mean, swing.variation, swing.period, swing.regularity, to_seconds(moments.front().at));
  const auto list = [&](std::string_view name, uint64_t Moment::*what) {
    out += fmt::format(R"(, "{}": [)", name);
    for (size_t i = 0; i < moments.size(); ++i) {
      out += fmt::format("{}{}", i == 0 ? "" : ",", moments[i].*what);
    }
    out += ']';
  };
  list("prompts", &Moment::prompts);
  list("sequences", &Moment::sequences);
  list("came", &Moment::came);
  list("refused", &Moment::refused);
  return out + '}';
}

std::string json_of(const SweepPoint& p, uint32_t gpus) {
  const Estimate goodput = p.of(&Measures::goodput);
  std::string out = fmt::format(
      R"({{"rate": {:.9g}, "ttft_met": {}, "tpot_met": {}, "joint_met": {}, "goodput": {}, )"
      R"("bound": {}, "blind_bound": {}, "goodput_per_gpu": {:.9g}, "worker_failures": {}, "retries": {}, "preemptions": {}, )"
      R"("events": {}, "tokens": {}, "simulated_s": {:.9g}, "runs": [)",
      p.of(&Measures::rate).mean, json_of(p.of(&Measures::ttft_met)),
      json_of(p.of(&Measures::tpot_met)), json_of(p.of(&Measures::joint_met)), json_of(goodput),
      json_of(p.of(&Measures::bound)), json_of(p.of(&Measures::blind_bound)),
      gpus == 0 ? 0 : goodput.mean / gpus, p.failures, p.retries, p.preemptions, p.events, p.tokens,
      p.simulated_seconds);
  for (size_t i = 0; i < p.runs.size(); ++i) {
    out += (i == 0 ? "\n      " : ",\n      ") + json_of(p.runs[i]);
  }
  out += "]";
  if (!p.moments.empty() && !p.moments.front().empty()) {
    out += R"(, "moments": [)";
    for (size_t i = 0; i < p.moments.size(); ++i) {
      out += (i == 0 ? "\n      " : ",\n      ") + json_of(p.moments[i]);
    }
    out += "]";
  }
  return out + "}";
}

}  // namespace

std::string table(const ReportHead& head, std::span<const SweepPoint> points) {
  std::vector<std::vector<std::string>> rows{
      {"rate/s", "TTFT met %", "TPOT met %", "both %", "goodput/s", "per GPU", "TTFT ms 50/90/99",
       "TPOT ms 50/90/99", "worst gap 50/90/99", "refused", "failed"}};
  for (const SweepPoint& p : points) {
    const Estimate goodput = p.of(&Measures::goodput);
    rows.push_back({fmt::format("{:.3g}", p.of(&Measures::rate).mean),
                    percent(p.of(&Measures::ttft_met)), percent(p.of(&Measures::tpot_met)),
                    percent(p.of(&Measures::joint_met)), plain(goodput, 2),
                    head.gpus == 0 ? "-" : fmt::format("{:.3f}", goodput.mean / head.gpus),
                    three(p, &Measures::ttft), fine(p, &Measures::tpot),
                    three(p, &Measures::worst_gap), fmt::format("{}", sum(p, &Measures::refused)),
                    fmt::format("{}", sum(p, &Measures::failed))});
  }
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string out = fmt::format("{}, {} ({}), policy {}; met within TTFT {:g} s and TPOT {:g} s\n",
                                head.cluster, head.trace, head.arrivals, head.policy,
                                to_seconds(head.slo.ttft), to_seconds(head.slo.tpot));
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      out += std::string(widths[c] - width_of(row[c]) + (c == 0 ? 0 : 2), ' ') + row[c];
    }
    out += '\n';
  }
  return out;
}

std::string to_json(const ReportHead& head, std::span<const SweepPoint> points, int best) {
  std::string out = fmt::format(
      "{{\n  \"cluster\": {}, \"trace\": {}, \"policy\": {}, \"arrivals\": {}, \"gpus\": {},\n"
      "  \"slo\": {{\"ttft_s\": {:.9g}, \"tpot_s\": {:.9g}}},\n",
      in_quotes(head.cluster), in_quotes(head.trace), in_quotes(head.policy),
      in_quotes(head.arrivals), head.gpus, to_seconds(head.slo.ttft), to_seconds(head.slo.tpot));
  if (head.share > 0) {
    out += fmt::format("  \"share\": {:.9g}, \"best_rate\": {},\n", head.share,
                       best < 0 ? "null" : fmt::format("{:.9g}", points[best].rate));
  }
  out += "  \"points\": [";
  for (size_t i = 0; i < points.size(); ++i) {
    out += (i == 0 ? "\n    " : ",\n    ") + json_of(points[i], head.gpus);
  }
  return out + "\n  ]\n}\n";
}

}  // namespace baton::sim
