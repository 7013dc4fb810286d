#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;

namespace baton::kvcache {

using Sha256Digest = std::array<std::byte, 32>;

// SHA-256 over bytes that come in pieces. Used by one thread at a time; allocates only when made.
class Sha256 {
 public:
  Sha256();  // throws std::runtime_error where the library offers no SHA-256
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void update(std::span<const std::byte> bytes);
  Sha256Digest finish();  // of everything since the last finish(); starts anew

 private:
  void restart();

  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string to_hex(std::span<const std::byte> bytes);

}  // namespace baton::kvcache
