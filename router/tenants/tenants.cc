#include "router/tenants/tenants.h"

#include <algorithm>

namespace baton::router {
namespace {

bool equal(const KeyDigest& a, const KeyDigest& b) {
  uint8_t difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<uint8_t>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace

void Tenants::replace(std::vector<TenantConfig> configs, TimePoint now) {
  auto before = std::exchange(by_name_, {});
  keys_.clear();
  for (TenantConfig& config : configs) {
    const std::string name = config.name;
    std::shared_ptr<Tenant>& tenant = by_name_[name];
    if (const auto known = before.find(name); known != before.end()) {
      tenant = known->second;
      tenant->configure(std::move(config), now);
    } else {
      tenant = std::make_shared<Tenant>(std::move(config), now);
    }
    for (const KeyDigest& key : tenant->config().keys) keys_.emplace_back(key, tenant.get());
  }
  for (auto& [name, tenant] : before) {
    if (!by_name_.contains(name)) gone_.push_back(std::exchange(tenant, nullptr));
  }
  std::erase_if(gone_, [](const auto& tenant) { return tenant.expired(); });
}

bool Tenants::is_there(std::string_view name) const {
  return by_name_.contains(name) || std::ranges::any_of(gone_, [&](const auto& one) {
           const auto tenant = one.lock();
           return tenant && tenant->config().name == name;
         });
}

std::shared_ptr<Tenant> Tenants::find(const KeyDigest& key) const {
  Tenant* found = nullptr;
  for (const auto& [known, tenant] : keys_) {
    if (equal(known, key)) found = tenant;
  }
  return found == nullptr ? nullptr : found->shared_from_this();
}

}  // namespace baton::router
