#include "router/service/request_record.h"

#include <fmt/format.h>

#include <optional>
#include <string>

namespace baton::router {
namespace {

// Empty where there is nothing to say.
std::string seconds_or_empty(const std::optional<Duration>& d) {
  return d ? fmt::format("{:.6f}", to_seconds(*d)) : std::string();
}

}  // namespace

void RequestRecord::add(const Request& r) {
  const auto& placed = r.trail.placed;
  const auto placed_after = placed ? std::optional<Duration>(*placed - begun_) : std::nullopt;
  file_.add(fmt::format("{:.6f},{},{},{},{},{},{},{},{}", to_seconds(r.received - begun_),
                        seconds_or_empty(placed_after), r.prompt_tokens, r.output_tokens,
                        r.trail.prefill_worker, r.trail.decode_worker,
                        seconds_or_empty(r.measured.ttft), seconds_or_empty(r.measured.tpot),
                        r.outcome));
}

}  // namespace baton::router
