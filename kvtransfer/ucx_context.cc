#include "kvtransfer/ucx_context.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <ucp/api/ucp.h>
#include <ucs/debug/debug.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace baton::kvtransfer {
namespace {

// UCX 1.13 takes the settings of a transport without the transport's name before them, and says
// nothing if it has no such setting; later versions want the name.
bool names_transports() {
  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  return std::pair(major, minor) > std::pair(1u, 13u);
}

status set(ucp_config_t* config, const std::string& key, const std::string& value) {
  const ucs_status_t s = ucp_config_modify(config, key.c_str(), value.c_str());
  if (s == UCS_OK) return {};
  return error(Errc::kInvalidArgument,
               fmt::format("UCX: {}={}: {}", key, value, ucs_status_string(s)));
}
status set_tcp(ucp_config_t* config, const std::string& key, const std::string& value) {
  return set(config, names_transports() ? "TCP_" + key : key, value);
}

status configure(ucp_config_t* config, const UcxOptions& options) {
  BATON_CHECK_OK(set(config, "TLS", options.tls));
  BATON_CHECK_OK(set(config, "NET_DEVICES", options.net_devices));
  // Memory that a peer of this host maps; posix first, because its file needs no limit raised.
  BATON_CHECK_OK(set(config, "ALLOC_PRIO", "md:posix,md:sysv,huge,thp,md:*,mmap,heap"));
  // With UCX's own segments (8 and 64 KiB), TCP reads at a fifth to a third of this speed.
  BATON_CHECK_OK(set_tcp(config, "TX_SEG_SIZE", "128k"));
  BATON_CHECK_OK(set_tcp(config, "RX_SEG_SIZE", "256k"));
  BATON_CHECK_OK(set_tcp(config, "CONN_NB", "y"));  // a host that is away must not block us
  if (!options.tcp_port_range.empty()) {
    BATON_CHECK_OK(set_tcp(config, "PORT_RANGE", options.tcp_port_range));
  }
  return {};
}

// UCX takes over fatal signals when it is loaded; they are the process's own business.
void give_signals_back() {
  for (const int number : {SIGILL, SIGSEGV, SIGBUS, SIGFPE}) {
    struct sigaction action {};
    Dl_info info{};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_DFL &&
        dladdr(reinterpret_cast<void*>(action.sa_sigaction), &info) != 0 &&
        std::strstr(info.dli_fname, "libucs") != nullptr) {
      ucs_debug_disable_signal(number);
    }
  }
}

}  // namespace

result<ucp_context*> open_ucx_context(const UcxOptions& options) {
  ucp_config_t* config = nullptr;
  ucs_status_t s = ucp_config_read(nullptr, nullptr, &config);
  if (s != UCS_OK) {
    return error(Errc::kUnavailable,
                 fmt::format("UCX does not read its configuration: {}", ucs_status_string(s)));
  }
  const status configured = configure(config, options);
  ucp_context_h context = nullptr;
  if (configured) {
    ucp_params_t params{};
    params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
    params.features = UCP_FEATURE_AM | UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP;
    params.name = options.name.c_str();
    s = ucp_init(&params, config, &context);
  }
  ucp_config_release(config);
  give_signals_back();
  if (!configured) return configured.error();
  if (s != UCS_OK) {
    return error(Errc::kUnavailable,
                 fmt::format("UCX does not start with transports '{}' and devices '{}': {}",
                             options.tls, options.net_devices, ucs_status_string(s)));
  }
  return context;
}

void close_ucx_context(ucp_context* context) { ucp_cleanup(context); }

result<std::string> address_of(ucp_worker* worker) {
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  const ucs_status_t s = ucp_worker_get_address(worker, &address, &bytes);
  if (s != UCS_OK) {
    return error(Errc::kUnavailable, fmt::format("UCX: no address: {}", ucs_status_string(s)));
  }
  std::string copy(reinterpret_cast<const char*>(address), bytes);
  ucp_worker_release_address(worker, address);
  return copy;
}

result<UcxMemory> allocate_ucx_memory(ucp_context* context, size_t bytes) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.address = nullptr;
  params.length = bytes;
  params.flags = UCP_MEM_MAP_ALLOCATE;
  UcxMemory memory;
  ucs_status_t s = ucp_mem_map(context, &params, &memory.handle);
  if (s != UCS_OK) {
    return error(
        Errc::kResourceExhausted,
        fmt::format("UCX allocates no {} bytes for the KV cache: {}", bytes, ucs_status_string(s)));
  }
  ucp_mem_attr_t attributes{};
  attributes.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  s = ucp_mem_query(memory.handle, &attributes);
  void* key = nullptr;
  size_t key_bytes = 0;
  if (s == UCS_OK) s = ucp_rkey_pack(context, memory.handle, &key, &key_bytes);
  if (s != UCS_OK) {
    ucp_mem_unmap(context, memory.handle);
    return error(Errc::kUnavailable,
                 fmt::format("UCX: memory without a key: {}", ucs_status_string(s)));
  }
  memory.bytes = {static_cast<std::byte*>(attributes.address), bytes};
  memory.key.assign(static_cast<const char*>(key), key_bytes);
  ucp_rkey_buffer_release(key);
  return memory;
}

// UCX 1.13 tells this only in the text that it prints for people: "lane[0]:  2:sysv/memory.0 ...".
std::vector<std::string> transports_of(ucp_ep* ep) {
  char* text = nullptr;
  size_t bytes = 0;
  FILE* file = open_memstream(&text, &bytes);
  if (file == nullptr) return {};
  ucp_ep_print_info(ep, file);
  std::fclose(file);
  const std::string info(text, bytes);
  std::free(text);

  std::vector<std::string> transports;
  for (size_t at = info.find(" lane["); at != std::string::npos; at = info.find(" lane[", at + 1)) {
    const size_t begin = info.find(':', info.find(':', at) + 1) + 1;
    const size_t end = info.find('/', begin);
    if (begin == 0 || end == std::string::npos) break;
    transports.push_back(info.substr(begin, end - begin));
  }
  return transports;
}

bool is_shared_memory(std::string_view transport) {
  static constexpr std::array<std::string_view, 5> kShared = {"posix", "sysv", "cma", "xpmem",
                                                              "knem"};
  return std::ranges::find(kShared, transport) != kShared.end();
}

}  // namespace baton::kvtransfer
