#include "common/net/auth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/base/secret_lines.h"

namespace baton::net {
namespace {

constexpr size_t kMaxSecrets = 4, kMinSecretChars = 32, kKeyIdBytes = 8;
constexpr std::string_view kListener = "baton listener 1", kDialler = "baton dialler 1";

std::string_view text(const Nonce& nonce) {
  return {reinterpret_cast<const char*>(nonce.data()), nonce.size()};
}

std::string hmac(const std::string& secret, std::string_view message) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), out, &length);
  return {reinterpret_cast<const char*>(out), length};
}

struct Parts {
  std::string_view dialler, listener;  // nonces
  std::string_view id, binding;
};

// Every part has a fixed size but for the label, which no other begins with, and the last.
std::string proof(const std::string& secret, std::string_view label, const Parts& parts) {
  std::string message(label);
  message.append(parts.dialler).append(parts.listener).append(parts.id).append(parts.binding);
  return hmac(secret, message);
}

bool equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

Error denied(std::string why) { return error(Errc::kPermissionDenied, std::move(why)); }

const std::string* find(const Secrets& secrets, std::string_view id) {
  const auto found = std::ranges::find_if(
      secrets, [&](const std::string& secret) { return key_id(secret) == id; });
  return found == secrets.end() ? nullptr : &*found;
}

}  // namespace

result<Nonce> random_nonce() {
  Nonce nonce;
  if (RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) != 1) {
    return error(Errc::kInternal, "no random numbers to be had");
  }
  return nonce;
}

std::string key_id(const std::string& secret) {
  return hmac(secret, "baton key id").substr(0, kKeyIdBytes);
}

proto::AuthHello AuthDialler::hello() const {
  proto::AuthHello hello;
  hello.set_nonce(std::string(text(nonce_)));
  for (const std::string& secret : secrets_) hello.add_key_ids(key_id(secret));
  return hello;
}

result<proto::AuthProof> AuthDialler::answer(const proto::AuthChallenge& challenge) const {
  const std::string* secret = find(secrets_, challenge.key_id());
  if (secret == nullptr || challenge.nonce().size() != Nonce().size()) {
    return denied("its challenge is for a secret that we did not offer");
  }
  const auto made = [&](std::string_view label) {
    return proof(*secret, label, {text(nonce_), challenge.nonce(), challenge.key_id(), binding_});
  };
  if (!equal(challenge.proof(), made(kListener))) return denied("it does not know the secret");
  proto::AuthProof answer;
  answer.set_proof(made(kDialler));
  return answer;
}

result<proto::AuthChallenge> AuthListener::challenge(const proto::AuthHello& hello) {
  if (hello.nonce().size() != nonce_.size() ||
      hello.key_ids_size() > static_cast<int>(kMaxSecrets) || !expected_.empty()) {
    return denied("malformed");
  }
  const auto& offered = hello.key_ids();
  for (const std::string& secret : secrets_) {
    const std::string id = key_id(secret);
    if (std::find(offered.begin(), offered.end(), id) == offered.end()) continue;
    const Parts parts{hello.nonce(), text(nonce_), id, binding_};
    expected_ = proof(secret, kDialler, parts);
    proto::AuthChallenge challenge;
    challenge.set_nonce(std::string(text(nonce_)));
    challenge.set_key_id(id);
    challenge.set_proof(proof(secret, kListener, parts));
    return challenge;
  }
  return denied("its secret is not ours");
}

status AuthListener::check(const proto::AuthProof& proof) const {
  if (expected_.empty() || !equal(proof.proof(), expected_)) {
    return denied("it does not know the secret");
  }
  return {};
}

result<Secrets> read_secrets(const std::filesystem::path& path) {
  if (path.empty()) return Secrets();
  const auto bad = [&](const std::string& why) {
    return error(Errc::kInvalidArgument, "secret file '" + path.string() + "': " + why);
  };
  // Ranks and later starts read it again: a pipe would have nothing for them.
  std::error_code missing;
  if (!std::filesystem::is_regular_file(path, missing)) return bad("cannot be read");
  auto secrets = read_secret_lines(path);
  if (!secrets) return bad(secrets.error().message);
  for (const std::string& secret : *secrets) {
    if (secret.size() < kMinSecretChars || secret.size() > 1024) {
      return bad("a secret is not of 32 to 1024 characters; `openssl rand -hex 32` makes one");
    }
  }
  if (secrets->empty()) return bad("no secret in it");
  if (secrets->size() > kMaxSecrets) return bad("more than 4 secrets in it");
  return std::move(*secrets);
}

}  // namespace baton::net
