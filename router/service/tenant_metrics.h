#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "common/base/metrics.h"
#include "router/openai/answer_format.h"
#include "router/tenants/tenant.h"

namespace baton::router {

// The series of each tenant that has asked for something. One thread.
class TenantMetrics {
 public:
  explicit TenantMetrics(Metrics& metrics) : metrics_(metrics) {}  // which outlives this

  // What a request used, and one that was refused for a quota.
  void used(const std::string& tenant, const Usage& usage);
  void over_quota(const std::string& tenant, Quota quota);

  // Ends the series of all others: names come and go, and would add up for as long as the router
  // lives. One that comes back begins at zero.
  void keep(const std::function<bool(std::string_view tenant)>& is_there);

 private:
  static constexpr std::array kKinds = {"prompt", "cached", "output"};
  static constexpr size_t kNumQuotas = static_cast<size_t>(Quota::kConcurrent) + 1;

  // Null: has not counted anything yet.
  struct Series {
    prometheus::Counter* requests = nullptr;
    std::array<prometheus::Counter*, kKinds.size()> tokens{};
    std::array<prometheus::Counter*, kNumQuotas> refused{};
  };
  void end(const Series& series);

  Metrics& metrics_;
  std::map<std::string, Series, std::less<>> series_;
};

}  // namespace baton::router
