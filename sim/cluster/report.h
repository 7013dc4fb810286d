#pragma once

#include <span>
#include <string>

#include "sim/cluster/sweep.h"

// What came out of a sweep, for people, for programs, and as a picture. Pure.
namespace baton::sim {

struct ReportHead {
  std::string cluster, trace, policy, arrivals;
  uint32_t gpus = 0;  // 0: not told
  Slo slo;
  double share = 0;  // of requests that goodput asks for; 0: none was asked
};

std::string table(const ReportHead& head, std::span<const SweepPoint> points);
std::string to_json(const ReportHead& head, std::span<const SweepPoint> points, int best);
// Attainment of TTFT, TPOT and both against the rate, with 95 % intervals. Complete in itself.
std::string to_svg(const ReportHead& head, std::span<const SweepPoint> points);

}  // namespace baton::sim
