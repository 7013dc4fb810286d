#include "common/net/rpc.h"
#include "worker/compute.h"
#include "worker/worker.h"

namespace baton::worker {
namespace {

Error bad(std::string what) { return error(Errc::kInvalidArgument, std::move(what)); }

std::string host_of(const std::string& address) {
  const auto where = net::split_host_port(address);
  return where ? where->host : std::string();
}

status check_addresses(const WorkerConfig& config) {
  for (const auto& address : {config.listen, config.metrics_listen}) {
    if (net::is_loopback(host_of(address))) continue;
    if (!config.trusted_network) {
      return error(Errc::kInvalidArgument,
                   "will not listen on " + address +
                       ": whoever reaches a worker can read its memory; set trusted_network if "
                       "only routers and workers can");
    }
  }
  if (config.secrets.empty() && !config.tls && !net::is_loopback(host_of(config.listen))) {
    return error(Errc::kInvalidArgument,
                 "will not listen on " + config.listen +
                     " without a secret that routers and workers share: set secret_file, the same "
                     "for all of them, or give each a certificate: tls_cert");
  }
  return {};
}

status check_kv_from(const WorkerConfig& config) {
  if (config.kv_from == "host") return {};
  const auto refuse = [&](Errc code, const std::string& why) {
    return error(code, "kv_from '" + config.kv_from + "' " + why);
  };
  if (config.kv_from != "device") return refuse(Errc::kInvalidArgument, "is none of host, device");
  if (config.device != "cuda") {
    return refuse(Errc::kUnsupported, "is offered on device cuda alone, not on " + config.device);
  }
  if (config.tensor_parallel > 1) {
    return refuse(Errc::kUnsupported, "is not offered with tensor_parallel yet");
  }
  return {};
}

}  // namespace

status check_config(const WorkerConfig& config) {
  BATON_CHECK_OK(check_addresses(config));
  BATON_CHECK_OK(check_kv_from(config));
  if (config.transport != "auto" && config.transport != "shm" && config.transport != "tcp") {
    return bad("transport '" + config.transport + "' is none of auto, shm, tcp");
  }
  if (config.device == "emulated") return {};
  if (config.device != "cpu" && config.device != "cuda") {
    return bad("device '" + config.device + "' is none of cpu, cuda, emulated");
  }
  BATON_CHECK_OK(parse_dtype(config.dtype, config.device));
  return {};
}

}  // namespace baton::worker
