#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/result.h"
#include "common/proto/worker.pb.h"

// Proof that both ends of a connection know a secret, by challenge and response with HMAC-SHA-256:
//
//   dialler   AuthHello{nonce, ids of its secrets}
//   listener  AuthChallenge{nonce, id, HMAC(secret, "listener" | both nonces | id | binding)}
//   dialler   AuthProof{HMAC(secret, "dialler" | both nonces | id | binding)}
//
// The listener proves first, so a dialler says nothing of itself to a stranger. Nonces of both
// sides make a recorded exchange useless, the direction a reflected one. The secret itself never
// travels. It is the start of a connection that is proven, not each message on it: against somebody
// who can alter packets on the way, use TLS (tls.h) or run an encrypted network below. Over TLS the
// HMACs take in the connection's channel binding, so that nobody who ends TLS between the two can
// pass a proof on.
//
// Pure but for random_nonce().
namespace baton::net {

// The secrets that one side knows. More than one while they change: a dialler offers all, the
// listener takes the first of its own that is offered.
using Secrets = std::vector<std::string>;

using Nonce = std::array<uint8_t, 32>;
result<Nonce> random_nonce();

// What tells secrets apart: eight bytes that say nothing of them.
std::string key_id(const std::string& secret);

// `binding`: what only this connection has, the same on both ends; empty without TLS.
class AuthDialler {
 public:
  AuthDialler(const Secrets& secrets, const Nonce& nonce, std::string binding = {})
      : secrets_(secrets), nonce_(nonce), binding_(std::move(binding)) {}
  proto::AuthHello hello() const;
  // What proves us, if the challenge proves the listener; else kPermissionDenied.
  result<proto::AuthProof> answer(const proto::AuthChallenge& challenge) const;

 private:
  const Secrets secrets_;
  const Nonce nonce_;
  const std::string binding_;
};

class AuthListener {
 public:
  AuthListener(const Secrets& secrets, const Nonce& nonce, std::string binding = {})
      : secrets_(secrets), nonce_(nonce), binding_(std::move(binding)) {}
  // Once. kPermissionDenied if no secret is known to both.
  result<proto::AuthChallenge> challenge(const proto::AuthHello& hello);
  // kPermissionDenied if the dialler does not know the secret.
  status check(const proto::AuthProof& proof) const;

 private:
  const Secrets secrets_;
  const Nonce nonce_;
  const std::string binding_;
  std::string expected_;  // empty until challenged
};

// The secrets in a file: one a line, at least 32 characters; blank lines and those that start with
// '#' are none. None if `path` is empty. An error names the file: also one that others than its
// owner's group may read.
result<Secrets> read_secrets(const std::filesystem::path& path);

}  // namespace baton::net
