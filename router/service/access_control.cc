#include "router/service/access_control.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace baton::router {
namespace {

// What "Bearer KEY" brings.
std::optional<KeyDigest> bearer_key(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer =
      authorization.size() > kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), [](char want, char have) {
        return want == (have >= 'A' && have <= 'Z' ? have + ('a' - 'A') : have);
      });
  if (!bearer) return std::nullopt;
  std::string_view key = authorization.substr(kScheme.size());
  key.remove_prefix(std::min(key.find_first_not_of(' '), key.size()));
  return key_digest(key);
}

}  // namespace

KeyDigest key_digest(std::string_view key) {
  KeyDigest out;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), out.data());
  return out;
}

KeySet::KeySet(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(key_digest(key));
}

bool KeySet::has(const KeyDigest& key) const {
  bool found = false;
  for (const KeyDigest& known : digests_) {
    found |= CRYPTO_memcmp(known.data(), key.data(), known.size()) == 0;
  }
  return found;
}

AccessControl::AccessControl(const AccessConfig& config, TimePoint now) { set(config, now); }

void AccessControl::set(const AccessConfig& config, TimePoint now) {
  keys_ = KeySet(config.api_keys);
  admin_keys_ = KeySet(config.admin_keys);
  tenants_.replace(config.tenants, now);
}

bool AccessControl::allows(Door door, std::string_view authorization) const {
  if (door == Door::kOpen) return true;
  if (door != Door::kAdmin && is_open()) return true;
  const auto key = bearer_key(authorization);
  if (!key) return false;
  if (door == Door::kAdmin) return admin_keys_.has(*key);
  if (door == Door::kView) return keys_.has(*key) || admin_keys_.has(*key);
  return keys_.has(*key) || tenants_.find(*key) != nullptr;
}

bool AccessControl::sees_details(std::string_view authorization) const {
  return (is_open() && admin_keys_.empty()) || allows(Door::kAdmin, authorization);
}

api_status AccessControl::check(Door door, std::string_view authorization) const {
  if (allows(door, authorization)) return {};
  return unknown_key(door);
}

ApiError AccessControl::unknown_key(Door door) {
  return {.status = HttpStatus::kUnauthorized,
          .message = fmt::format("The Authorization header must be 'Bearer KEY' with a valid {}",
                                 door == Door::kAdmin ? "admin key" : "API key"),
          .code = "invalid_api_key"};
}

std::shared_ptr<Tenant> AccessControl::tenant_of(std::string_view authorization) const {
  if (!tenants_.any()) return nullptr;
  const auto key = bearer_key(authorization);
  return key ? tenants_.find(*key) : nullptr;
}

}  // namespace baton::router
