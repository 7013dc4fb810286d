#include "router/service/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace baton::router {

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(digest(key));
}

ApiKeys::Digest ApiKeys::digest(std::string_view key) {
  Digest out;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), out.data());
  return out;
}

bool ApiKeys::allow(std::string_view authorization) const {
  if (!required()) return true;
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer =
      authorization.size() > kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), [](char want, char have) {
        return want == (have >= 'A' && have <= 'Z' ? have + ('a' - 'A') : have);
      });
  if (!bearer) return false;
  std::string_view key = authorization.substr(kScheme.size());
  key.remove_prefix(std::min(key.find_first_not_of(' '), key.size()));
  const Digest given = digest(key);
  bool allowed = false;
  for (const Digest& known : digests_) {
    allowed |= CRYPTO_memcmp(known.data(), given.data(), known.size()) == 0;
  }
  return allowed;
}

}  // namespace baton::router
