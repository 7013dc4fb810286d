#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "router/openai/error.h"
#include "router/tenants/token_bucket.h"

// Those who share a router: who they are, what they may ask for and how much. Pure; one thread.
namespace baton::router {

using KeyDigest = std::array<uint8_t, 32>;  // SHA-256 of a key

// 0: no bound.
struct TenantLimits {
  uint64_t requests_per_minute = 0;
  uint64_t tokens_per_minute = 0;  // of prompts and outputs
  uint32_t max_concurrent = 0;     // requests
};

struct TenantConfig {
  static constexpr int kMostPriority = 3;

  std::string name;  // 1 to 32 of a-z, 0-9, _ and -
  std::vector<KeyDigest> keys;
  std::vector<uint32_t> classes;  // of the router's, the first by default; none: all of them
  int priority = 0;               // -kMostPriority .. kMostPriority; higher is due earlier
  TenantLimits limits;

  bool may_use(uint32_t class_index) const;
  // In front of what its requests say themselves: what one tenant has in a prefix cache is not
  // found, nor its time measured, by another.
  std::string salt(std::string_view own) const { return "tenant/" + name + "/" + std::string(own); }
};

enum class Quota : uint8_t { kRequests, kTokens, kConcurrent };
// As the file of tenants calls it.
std::string_view name(Quota quota);

struct QuotaRefusal {
  Quota quota = Quota::kRequests;
  Duration retry_after{};
};

class Admission;

// One tenant and what it has used.
class Tenant : public std::enable_shared_from_this<Tenant> {
 public:
  Tenant(TenantConfig config, TimePoint now);

  const TenantConfig& config() const { return config_; }
  uint32_t in_flight() const { return in_flight_; }

  // Another configuration of the same name; what was used stays used.
  void configure(TenantConfig config, TimePoint now);
  // Which quota one more request would break, if any.
  std::optional<QuotaRefusal> refusal(TimePoint now) const;
  // Counts one more. It is in flight until the admission ends, which may outlive the tenant's
  // entry.
  std::shared_ptr<Admission> admit(TimePoint now);

 private:
  friend class Admission;

  TenantConfig config_;
  TokenBucket requests_, tokens_;
  uint32_t in_flight_ = 0;
};

// A request's place among those of its tenant.
class Admission {
 public:
  explicit Admission(std::shared_ptr<Tenant> tenant);
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  const TenantConfig& tenant() const { return tenant_->config(); }
  // It is `answers` requests, not one: each of several prompts, and each of `n`. Which quota that
  // would break, if any; then it is still one.
  std::optional<QuotaRefusal> widen(uint32_t answers, TimePoint now);
  // Tokens that it uses; below 0: gives back.
  void charge(int64_t tokens, TimePoint now);

 private:
  const std::shared_ptr<Tenant> tenant_;
  uint32_t places_ = 1;
};

// 429 that names the quota and says when to come back.
ApiError from_quota(const TenantConfig& tenant, const QuotaRefusal& refusal);

}  // namespace baton::router
