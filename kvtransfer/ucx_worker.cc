#include "kvtransfer/ucx_worker.h"

#include <fmt/format.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "kvtransfer/shared_segment.h"
#include "kvtransfer/ucx_signals.h"

namespace baton::kvtransfer {
namespace {

Error failed(std::string_view what, ucs_status_t s) {
  return error(Errc::kUnavailable, fmt::format("UCX: {}: {}", what, ucs_status_string(s)));
}

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

status configure(ucp_config_t* config, const UcxWorkerOptions& options) {
  BATON_CHECK_OK(set(config, "TLS", options.tls));
  // Memory that a peer maps, or else any.
  BATON_CHECK_OK(set(config, "ALLOC_PRIO", "md:sysv,md:posix,huge,thp,md:*,mmap,heap"));
  if (!options.network) return {};
  BATON_CHECK_OK(set(config, "NET_DEVICES", options.net_devices));
  // With UCX's own segments (8 and 64 KiB), TCP moves a fifth to a third of this.
  BATON_CHECK_OK(set_tcp(config, "TX_SEG_SIZE", "128k"));
  BATON_CHECK_OK(set_tcp(config, "RX_SEG_SIZE", "256k"));
  BATON_CHECK_OK(set_tcp(config, "CONN_NB", "y"));  // a host that is away must not block us
  if (options.tcp_port_range.empty()) return {};
  return set_tcp(config, "PORT_RANGE", options.tcp_port_range);
}

result<ucp_context*> open_context(const UcxWorkerOptions& options) {
  ucp_config_t* config = nullptr;
  ucs_status_t s = ucp_config_read(nullptr, nullptr, &config);
  if (s != UCS_OK) return failed("its configuration cannot be read", s);
  const status configured = configure(config, options);
  ucp_context_h context = nullptr;
  if (configured) {
    ucp_params_t params{};
    params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
    // Without the feature, UCX answers no remote read or write: its port cannot be used as one.
    params.features = UCP_FEATURE_WAKEUP | (options.one_sided ? UCP_FEATURE_RMA : UCP_FEATURE_AM);
    params.name = options.name.c_str();
    s = ucp_init(&params, config, &context);
  }
  ucp_config_release(config);
  give_signals_back();
  if (!configured) return configured.error();
  if (s != UCS_OK) {
    return failed(fmt::format("no start with transports '{}' on devices '{}'", options.tls,
                              options.net_devices),
                  s);
  }
  return context;
}

}  // namespace

result<std::unique_ptr<UcxWorker>> UcxWorker::create(const UcxWorkerOptions& options) {
  std::unique_ptr<UcxWorker> worker(new UcxWorker);
  BATON_TRY(worker->context_, open_context(options));
  BATON_CHECK_OK(worker->start());
  return worker;
}

status UcxWorker::start() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;  // made by one thread, then used by another
  ucs_status_t s = ucp_worker_create(context_, &params, &worker_);
  if (s != UCS_OK) return failed("no worker", s);
  s = ucp_worker_get_efd(worker_, &event_fd_);
  if (s != UCS_OK) return failed("no event descriptor", s);
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  s = ucp_worker_get_address(worker_, &address, &bytes);
  if (s != UCS_OK) return failed("no address", s);
  address_.assign(reinterpret_cast<const char*>(address), bytes);
  ucp_worker_release_address(worker_, address);
  return {};
}

UcxWorker::~UcxWorker() {
  if (memory_ != nullptr) ucp_mem_unmap(context_, memory_);
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

bool UcxWorker::progress(int max_calls) {
  for (int i = 0; i < max_calls; ++i) {
    if (ucp_worker_progress(worker_) == 0) return false;
  }
  return true;
}

result<bool> UcxWorker::arm() {
  const ucs_status_t s = ucp_worker_arm(worker_);
  if (s == UCS_OK) return true;
  if (s == UCS_ERR_BUSY) return false;
  return failed("no wait for events", s);
}

result<std::span<std::byte>> UcxWorker::allocate(size_t bytes) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.address = nullptr;
  params.length = bytes;
  params.flags = UCP_MEM_MAP_ALLOCATE;
  ucs_status_t s = ucp_mem_map(context_, &params, &memory_);
  if (s != UCS_OK) return failed(fmt::format("no {} bytes of memory", bytes), s);
  ucp_mem_attr_t attributes{};
  attributes.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  s = ucp_mem_query(memory_, &attributes);
  if (s != UCS_OK) return failed("memory without an address", s);
  keep_to_owner(attributes.address);
  void* key = nullptr;
  size_t key_bytes = 0;
  s = ucp_rkey_pack(context_, memory_, &key, &key_bytes);
  if (s != UCS_OK) return failed("memory without a key", s);
  memory_key_.assign(static_cast<const char*>(key), key_bytes);
  ucp_rkey_buffer_release(key);
  return std::span(static_cast<std::byte*>(attributes.address), bytes);
}

std::string ucx_software() {
  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  return fmt::format("ucx {}.{}", major, minor);
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

// Of what copies between processes of one host only posix and sysv are used: over cma, UCX 1.13
// never ends a read of a process that died, and then asserts when its worker is destroyed.
result<SplitTls> split_tls(std::string_view tls) {
  if (tls == "all") return SplitTls{"sysv,posix", "^shm"};
  SplitTls split;
  const auto add = [](std::string& list, std::string_view tl) {
    if (!list.empty()) list += ',';
    list += tl;
  };
  for (std::string_view rest = tls; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view tl = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    if (tl == "posix" || tl == "sysv") {
      add(split.shared_memory, tl);
    } else if (tl == "shm") {
      split.shared_memory = "sysv,posix";
    } else if (tl.empty() || tl.front() == '^' || tl == "cma" || tl == "xpmem" || tl == "knem") {
      return error(Errc::kUnsupported,
                   fmt::format("UCX transports '{}': '{}' is not offered", tls, tl));
    } else {
      add(split.network, tl);
    }
  }
  return split;
}

}  // namespace baton::kvtransfer
