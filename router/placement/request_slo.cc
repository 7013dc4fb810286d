#include "router/placement/request_slo.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string_view>

#include "common/formats/utf8.h"

namespace baton::router {
namespace {

constexpr std::string_view kTierField = "service_tier";
constexpr std::string_view kClassHeader = "x-baton-slo-class";

api_result<uint32_t> class_named(const SloClasses& classes, std::string_view field,
                                 std::string_view name) {
  if (const auto found = classes.find(name)) return *found;
  if (name == "auto" || name == "default") return classes.by_default;
  if (name == "flex") {
    const auto found = std::ranges::find(classes.all, true, &SloClass::best_effort);
    if (found == classes.all.end()) return classes.by_default;
    return static_cast<uint32_t>(found - classes.all.begin());
  }
  return bad_field(field, fmt::format("must be auto, default, flex or one of the classes {}, "
                                      "not '{}'",
                                      classes.names(), formats::printable(name)));
}

api_result<uint32_t> choose_class(const SloClasses& classes, const SloHeaders& headers,
                                  const std::optional<std::string>& service_tier) {
  std::optional<uint32_t> by_tier, by_header;
  if (service_tier) {
    BATON_TRY(by_tier, class_named(classes, kTierField, *service_tier));
    if (*service_tier == "auto" && headers.slo_class) by_tier.reset();
  }
  if (headers.slo_class) {
    BATON_TRY(by_header, class_named(classes, kClassHeader, *headers.slo_class));
  }
  if (by_tier && by_header && *by_tier != *by_header) {
    return bad_field(
        kTierField, fmt::format("and the header {} name different classes, {} and {}", kClassHeader,
                                classes[*by_tier].name, classes[*by_header].name));
  }
  return by_tier.value_or(by_header.value_or(classes.by_default));
}

api_result<std::optional<Duration>> parse_target(std::string_view header,
                                                 const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  const auto number = parse_plain_number(*text);
  const auto target = number ? slo_target_of_ms(*number) : std::nullopt;
  if (target) return target;
  using Milliseconds = std::chrono::duration<double, std::milli>;
  return bad_field(
      header, fmt::format("must be a number of milliseconds between {} and {}, not "
                          "'{}'",
                          Milliseconds(kMinSloTarget).count(), Milliseconds(kMaxSloTarget).count(),
                          formats::printable(*text)));
}

struct Names {
  std::string_view header, alias;
};

api_result<std::optional<Duration>> parse_targets(Names names,
                                                  const std::optional<std::string>& header,
                                                  const std::optional<std::string>& alias) {
  BATON_TRY(const auto own, parse_target(names.header, header));
  BATON_TRY(const auto other, parse_target(names.alias, alias));
  if (own && other && *own != *other) {
    return bad_field(names.header,
                     fmt::format("and '{}' must be equal if both are given", names.alias));
  }
  return own ? own : other;
}

}  // namespace

api_result<RequestSlo> choose_slo(const SloClasses& classes, const SloHeaders& headers,
                                  const std::optional<std::string>& service_tier,
                                  TimePoint received) {
  RequestSlo slo;
  BATON_TRY(slo.class_index, choose_class(classes, headers, service_tier));
  BATON_TRY(const auto ttft, parse_targets({"x-baton-slo-ttft-ms", "x-slo-ttft-ms"},
                                           headers.ttft_ms, headers.ttft_alias));
  BATON_TRY(const auto tpot, parse_targets({"x-baton-slo-tpot-ms", "x-slo-tpot-ms"},
                                           headers.tpot_ms, headers.tpot_alias));
  const SloClass& of = classes[slo.class_index];
  slo.best_effort = of.best_effort;
  slo.target.ttft = ttft ? ttft : of.target.ttft;
  slo.target.tpot = tpot ? tpot : of.target.tpot;
  slo.received = received;
  const Duration within =
      of.target.ttft.value_or(of.best_effort ? kDueBestEffort : kDueWithoutTarget);
  slo.due = received + std::max(within, ttft.value_or(Duration::zero()));
  return slo;
}

}  // namespace baton::router
