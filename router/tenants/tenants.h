#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "router/tenants/tenant.h"

namespace baton::router {

// All tenants of a router, by their keys. One thread.
class Tenants {
 public:
  // From now on these, and no others; no key is there twice. One that was there keeps what it has
  // used, by its name. None: there are no tenants.
  void replace(std::vector<TenantConfig> configs, TimePoint now);

  bool any() const { return !by_name_.empty(); }
  size_t size() const { return by_name_.size(); }
  // Whether there is one of that name, or requests of one that was.
  bool is_there(std::string_view name) const;
  // Null: nobody's. Takes the same time whichever it is.
  std::shared_ptr<Tenant> find(const KeyDigest& key) const;

 private:
  std::map<std::string, std::shared_ptr<Tenant>, std::less<>> by_name_;
  std::vector<std::weak_ptr<Tenant>> gone_;  // while requests of theirs run
  std::vector<std::pair<KeyDigest, Tenant*>> keys_;
};

}  // namespace baton::router
