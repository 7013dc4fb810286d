#include "router/service/tenant_metrics.h"

#include <utility>

namespace baton::router {
namespace {

prometheus::Counter& made(Metrics& metrics, prometheus::Counter*& counter, const char* name,
                          const char* help, const Metrics::Labels& labels) {
  if (counter == nullptr) counter = &metrics.counter(name, help, labels);
  return *counter;
}

}  // namespace

void TenantMetrics::used(const std::string& tenant, const Usage& usage) {
  Series& series = series_[tenant];
  made(metrics_, series.requests, "baton_tenant_requests_total",
       "Requests of a tenant that were served.", {{"tenant", tenant}})
      .Increment();
  const std::array<uint32_t, kKinds.size()> tokens = {usage.prompt_tokens, usage.cached_tokens,
                                                      usage.completion_tokens};
  for (size_t i = 0; i < kKinds.size(); ++i) {
    made(metrics_, series.tokens[i], "baton_tenant_tokens_total",
         "Tokens of a tenant's requests; cached ones are among those of prompts.",
         {{"tenant", tenant}, {"kind", kKinds[i]}})
        .Increment(tokens[i]);
  }
}

void TenantMetrics::over_quota(const std::string& tenant, Quota quota) {
  made(metrics_, series_[tenant].refused[static_cast<size_t>(quota)], "baton_tenant_refused_total",
       "Requests of a tenant refused for a quota of it.",
       {{"tenant", tenant}, {"quota", std::string(name(quota))}})
      .Increment();
}

void TenantMetrics::keep(const std::function<bool(std::string_view tenant)>& is_there) {
  std::erase_if(series_, [&](const auto& entry) {
    const bool gone = !is_there(entry.first);
    if (gone) end(entry.second);
    return gone;
  });
}

void TenantMetrics::end(const Series& series) {
  const auto remove = [&](prometheus::Counter* counter, const char* name) {
    if (counter != nullptr) metrics_.remove_counter(name, *counter);
  };
  remove(series.requests, "baton_tenant_requests_total");
  for (auto* counter : series.tokens) remove(counter, "baton_tenant_tokens_total");
  for (auto* counter : series.refused) remove(counter, "baton_tenant_refused_total");
}

}  // namespace baton::router
