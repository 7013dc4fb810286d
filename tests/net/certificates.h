#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/net/tls.h"

namespace baton::net {

// Makes certificates as an operator's authority would, each with a key of its own.
class Authority {
 public:
  explicit Authority(const std::string& name);

  struct Asked {
    std::vector<std::string> dns_names = {kTlsRouterName, kTlsWorkerName};
    std::chrono::seconds from{-3600}, until{3600};  // of now
  };
  // Writes NAME.crt, NAME.key and ca.crt below `folder`.
  TlsFiles issue(const std::filesystem::path& folder, const std::string& name,
                 const Asked& asked) const;
  TlsFiles issue(const std::filesystem::path& folder, const std::string& name) const {
    return issue(folder, name, {});
  }

 private:
  std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_;
  std::unique_ptr<X509, void (*)(X509*)> cert_;
};

}  // namespace baton::net
