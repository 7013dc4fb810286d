#pragma once

#include <optional>
#include <string>

#include "common/base/clock.h"
#include "router/openai/error.h"
#include "router/placement/slo_config.h"

// What one request is promised, by its class and by what it asks for itself.
namespace baton::router {

// Headers as they were sent. Nothing: not sent.
struct SloHeaders {
  std::optional<std::string> slo_class;               // x-baton-slo-class
  std::optional<std::string> ttft_ms, tpot_ms;        // x-baton-slo-ttft-ms, x-baton-slo-tpot-ms
  std::optional<std::string> ttft_alias, tpot_alias;  // x-slo-ttft-ms, x-slo-tpot-ms
};

// Where a class has no target for TTFT, a request is due so long after its receipt.
inline constexpr Duration kDueWithoutTarget = seconds(2), kDueBestEffort = seconds(60);

// The class: by `service_tier` (the request's JSON field) or by header, which may not name two
// different ones. A class by its name; "auto" and "default" are the default class (and "auto"
// leaves the choice to the header); "flex" the first best-effort class, or else the default one.
//
// The targets: the class's, or the headers' instead. Its place in queues, `due`, is receipt + the
// class's TTFT (or one of the above): a header can only make it later.
//
// Errors: 400 naming the field or header.
api_result<RequestSlo> choose_slo(const SloClasses& classes, const SloHeaders& headers,
                                  const std::optional<std::string>& service_tier,
                                  TimePoint received);

}  // namespace baton::router
