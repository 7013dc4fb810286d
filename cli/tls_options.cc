#include "cli/tls_options.h"

namespace baton::cli {

void add_tls_options(Options& options, TlsPaths& paths) {
  options.add("tls-cert", &paths.cert,
              "PEM certificate, with its chain, for TLS between routers and workers; empty: none");
  options.add("tls-key", &paths.key, "PEM key of that certificate");
  options.add("tls-ca", &paths.ca, "PEM certificates that the others' must chain to");
}

result<std::shared_ptr<net::Tls>> read_tls(const TlsPaths& paths, const char* name) {
  return net::Tls::load({paths.cert, paths.key, paths.ca}, name);
}

}  // namespace baton::cli
