#pragma once

#include <filesystem>

#include "common/base/clock.h"
#include "common/net/name_lookup.h"
#include "common/net/rpc.h"

namespace baton::router {

// Where the API server is and who asks it. The files are read again for each connection: tokens
// rotate.
struct KubernetesApi {
  net::HostPort server;              // TLS; its certificate must have that host
  std::filesystem::path token_file;  // of a service account
  std::filesystem::path ca_file;     // PEM
  // To look its name up; and again, to connect and to answer: all of a list, the head of a watch.
  Duration answer_timeout = seconds(30);
  net::NameLookup lookup = net::ask_system;
};

}  // namespace baton::router
