#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "router/openai/error.h"
#include "router/service/config.h"
#include "router/tenants/tenants.h"

namespace baton::router {

KeyDigest key_digest(std::string_view key);

// Some keys. Holds digests; a comparison takes the same time whatever is wrong.
class KeySet {
 public:
  explicit KeySet(const std::vector<std::string>& keys = {});
  bool empty() const { return digests_.empty(); }
  bool has(const KeyDigest& key) const;

 private:
  std::vector<KeyDigest> digests_;
};

// Who may pass a path: everybody, who has a key, who has an admin's key. What is to be seen of the
// whole cluster (kView) is for who has a key or an admin's key, but no tenant is shown the others.
enum class Door : uint8_t { kOpen, kKey, kView, kAdmin };

// Who is let in, and how much of it. On the io_context's thread.
class AccessControl {
 public:
  AccessControl(const AccessConfig& config, TimePoint now);

  // From now on so. What tenants have used stays used; what runs goes on.
  void set(const AccessConfig& config, TimePoint now);

  // False: without admin keys nobody may pass there, and it is as if it were not.
  bool exists(Door door) const {
    const bool admins_only = door == Door::kAdmin || (door == Door::kView && tenants_.any());
    return !admins_only || !admin_keys_.empty();
  }
  // `authorization`: the header's value, "Bearer KEY".
  api_status check(Door door, std::string_view authorization) const;
  // Whether of what kView shows the details are shown, too: to admins, and where nobody has a key.
  bool sees_details(std::string_view authorization) const;
  static ApiError unknown_key(Door door);
  // Whose request it is. Null: nobody's, or there are no tenants.
  std::shared_ptr<Tenant> tenant_of(std::string_view authorization) const;
  bool has_tenants() const { return tenants_.any(); }
  // Whether there is one of that name, or requests of one that was.
  bool has_tenant(std::string_view name) const { return tenants_.is_there(name); }
  // Nobody needs a key, but for what is an admin's.
  bool is_open() const { return keys_.empty() && !tenants_.any(); }

 private:
  bool allows(Door door, std::string_view authorization) const;

  KeySet keys_, admin_keys_;
  Tenants tenants_;
};

}  // namespace baton::router
