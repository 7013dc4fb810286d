#include "router/tenants/tenant.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace baton::router {
namespace {

constexpr Duration kRetryPlace = seconds(1);  // when one of its requests ends nobody knows

std::string allowance(const TenantLimits& limits, Quota quota) {
  switch (quota) {
    case Quota::kRequests:
      return fmt::format("make {} requests a minute", limits.requests_per_minute);
    case Quota::kTokens:
      return fmt::format("use {} tokens a minute", limits.tokens_per_minute);
    case Quota::kConcurrent:
      return fmt::format("have {} requests at once", limits.max_concurrent);
  }
  return {};
}

}  // namespace

bool TenantConfig::may_use(uint32_t class_index) const {
  return classes.empty() || std::ranges::find(classes, class_index) != classes.end();
}

std::string_view name(Quota quota) {
  switch (quota) {
    case Quota::kRequests:
      return "requests_per_minute";
    case Quota::kTokens:
      return "tokens_per_minute";
    case Quota::kConcurrent:
      return "max_concurrent";
  }
  return "unknown";
}

Tenant::Tenant(TenantConfig config, TimePoint now)
    : config_(std::move(config)),
      requests_(config_.limits.requests_per_minute, now),
      tokens_(config_.limits.tokens_per_minute, now) {}

void Tenant::configure(TenantConfig config, TimePoint now) {
  config_ = std::move(config);
  requests_.set_rate(config_.limits.requests_per_minute, now);
  tokens_.set_rate(config_.limits.tokens_per_minute, now);
}

std::optional<QuotaRefusal> Tenant::refusal(TimePoint now) const {
  const uint32_t most = config_.limits.max_concurrent;
  if (most > 0 && in_flight_ >= most) return QuotaRefusal{Quota::kConcurrent, kRetryPlace};
  if (const Duration wait = requests_.wait(1, now); wait > Duration::zero()) {
    return QuotaRefusal{Quota::kRequests, wait};
  }
  if (const Duration wait = tokens_.wait(1, now); wait > Duration::zero()) {
    return QuotaRefusal{Quota::kTokens, wait};
  }
  return std::nullopt;
}

std::shared_ptr<Admission> Tenant::admit(TimePoint now) {
  requests_.take(1, now);
  return std::make_shared<Admission>(shared_from_this());
}

Admission::Admission(std::shared_ptr<Tenant> tenant) : tenant_(std::move(tenant)) {
  ++tenant_->in_flight_;
}

Admission::~Admission() { tenant_->in_flight_ -= places_; }

// As with tokens, requests a minute that are known late are owed.
std::optional<QuotaRefusal> Admission::widen(uint32_t answers, TimePoint now) {
  if (answers <= places_) return std::nullopt;
  const uint32_t more = answers - places_, most = tenant_->config_.limits.max_concurrent;
  if (most > 0 && tenant_->in_flight_ + more > most) {
    return QuotaRefusal{Quota::kConcurrent, kRetryPlace};
  }
  tenant_->requests_.take(more, now);
  tenant_->in_flight_ += more;
  places_ = answers;
  return std::nullopt;
}

void Admission::charge(int64_t tokens, TimePoint now) {
  tenant_->tokens_.take(static_cast<double>(tokens), now);
}

ApiError from_quota(const TenantConfig& tenant, const QuotaRefusal& refusal) {
  constexpr Duration kLeast = milliseconds(1), kMost = std::chrono::hours(1);
  const Duration after = std::clamp(refusal.retry_after, kLeast, kMost);
  const auto ms = std::chrono::ceil<milliseconds>(after);
  return {
      .status = HttpStatus::kTooManyRequests,
      .message = fmt::format("The tenant '{}' may {} and has; the next can come in {:g} s",
                             tenant.name, allowance(tenant.limits, refusal.quota), to_seconds(ms)),
      .type = "rate_limit_error",
      .param = std::string(name(refusal.quota)),
      .code = "rate_limit_exceeded",
      .retry_after_seconds = static_cast<uint32_t>(std::chrono::ceil<seconds>(after).count()),
      .retry_after_ms = static_cast<uint32_t>(ms.count())};
}

}  // namespace baton::router
