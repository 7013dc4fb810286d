#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>

#include "common/base/result.h"

namespace boost::asio::ssl {
class context;
}

// Mutual TLS between routers and workers: TLS 1.3 alone, and either side shows a certificate. One
// is believed if it chains to the authority, is valid now, and carries the DNS name of what it
// speaks for: "baton-worker" of whoever listens; "baton-router" or "baton-worker" of whoever dials.
// Not the host's name: workers are dialled by addresses that come and go.
namespace baton::net {

inline constexpr const char* kTlsRouterName = "baton-router";
inline constexpr const char* kTlsWorkerName = "baton-worker";

// PEM. A certificate may be followed by its chain; the authority may be several.
struct TlsFiles {
  std::filesystem::path cert, key, ca;
};

// This side's certificate and whom it believes. On the thread of one io_context.
class Tls {
 public:
  // No Tls if no file is named. `name`: what this side speaks for. An error names the flag or the
  // file: also if peers would refuse the certificate, or if everybody may read the key.
  static result<std::shared_ptr<Tls>> load(const TlsFiles& files, const char* name);

  // For a new connection: read again if the files have changed. If they then cannot be used, what
  // was there stays in use, and a warning says so.
  std::shared_ptr<boost::asio::ssl::context> context();

 private:
  // What changes with a file, also where a link to it is turned.
  struct Mark {
    uint64_t device = 0, inode = 0, bytes = 0;
    int64_t changed_ns = 0;
    bool operator==(const Mark&) const = default;
  };
  using Marks = std::array<Mark, 3>;

  Tls(TlsFiles files, const char* name) : files_(std::move(files)), name_(name) {}
  Marks read_marks() const;

  const TlsFiles files_;
  const char* const name_;
  Marks marks_;
  std::shared_ptr<boost::asio::ssl::context> context_;
};

}  // namespace baton::net
