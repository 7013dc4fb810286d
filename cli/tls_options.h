#pragma once

#include <memory>
#include <string>

#include "common/base/config.h"
#include "common/base/result.h"
#include "common/net/tls.h"

namespace baton::cli {

struct TlsPaths {
  std::string cert, key, ca;  // none, or all
};

void add_tls_options(Options& options, TlsPaths& paths);

// Nothing without paths. `name`: as Tls::load.
result<std::shared_ptr<net::Tls>> read_tls(const TlsPaths& paths, const char* name);

}  // namespace baton::cli
