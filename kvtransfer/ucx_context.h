#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "kvtransfer/ucx_transport.h"

struct ucp_context;
struct ucp_ep;
struct ucp_mem;
struct ucp_worker;

// What the UCX transport needs to know about UCX's versions and words.
namespace baton::kvtransfer {

// A context configured from `options`; close_ucx_context() ends it.
result<ucp_context*> open_ucx_context(const UcxOptions& options);
void close_ucx_context(ucp_context* context);

// What a peer needs to know to reach this worker.
result<std::string> address_of(ucp_worker* worker);

// Memory that UCX allocates, so that a peer of this host maps it and copies directly. Unmapped by
// the caller.
struct UcxMemory {
  ucp_mem* handle = nullptr;
  std::span<std::byte> bytes;
  std::string key;
};
result<UcxMemory> allocate_ucx_memory(ucp_context* context, size_t bytes);

// The transports of an endpoint's lanes, in UCX's order and words ("posix", "tcp", ...).
std::vector<std::string> transports_of(ucp_ep* ep);
bool is_shared_memory(std::string_view transport);

}  // namespace baton::kvtransfer
