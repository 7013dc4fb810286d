#include "sim/cluster/cluster_spec.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "sim/cluster/csv.h"
#include "sim/cluster/yaml_keys.h"

namespace baton::sim {
namespace {

constexpr double kBytesPerGbit = 1e9 / 8;
constexpr double kMostWorkers = 100'000;
constexpr std::string_view kWhat = "cluster";  // in errors

class Reader {
 public:
  explicit Reader(const std::filesystem::path& from) : from_(from) {}

  result<ClusterSpec> read(const YAML::Node& root) const {
    if (!root.IsMap()) return bad("is no map of keys");
    ClusterSpec spec;
    YamlKeys keys(root, "", kWhat, from_);
    BATON_TRY(spec.name, keys.text("name", from_.stem().string()));
    BATON_TRY(const uint64_t routers, keys.whole("routers", 1, 1, 64));
    spec.routers = static_cast<uint32_t>(routers);
    BATON_CHECK_OK(network(keys.node("network"), spec));
    BATON_CHECK_OK(failures(keys.node("failures"), spec));
    BATON_CHECK_OK(roles(keys.node("roles"), spec));
    const YAML::Node workers = keys.node("workers");
    if (!workers || !workers.IsSequence() || workers.size() == 0) {
      return keys.bad("workers", "is missing or no list");
    }
    for (size_t i = 0; i < workers.size(); ++i) {
      BATON_TRY(WorkerGroup g, group(workers[i], fmt::format("workers[{}].", i)));
      spec.groups.push_back(std::move(g));
    }
    BATON_CHECK_OK(keys.done());
    BATON_CHECK_OK(check(spec));
    return spec;
  }

  Error bad(std::string_view what) const {
    return error(Errc::kInvalidArgument, fmt::format("cluster {}: {}", from_.string(), what));
  }

 private:
  status network(const YAML::Node& node, ClusterSpec& spec) const {
    if (!node) return {};
    if (!node.IsMap()) return bad("'network' is no map of keys");
    YamlKeys keys(node, "network.", kWhat, from_);
    BATON_TRY(const double latency, keys.number("message_us", 100, 0, 1e6));
    spec.message_latency = latency * 1e-6;
    if (keys.has("spine_gbit")) {
      BATON_TRY(const double gbit, keys.number("spine_gbit", {}, 1e-3, 1e9));
      spec.spine_bytes_per_second = gbit * kBytesPerGbit;
    }
    return keys.done();
  }

  status failures(const YAML::Node& node, ClusterSpec& spec) const {
    if (!node) return {};
    if (!node.IsMap()) return bad("'failures' is no map of keys");
    YamlKeys keys(node, "failures.", kWhat, from_);
    FailureRates rates;
    BATON_TRY(rates.mean_seconds_between, keys.number("mean_seconds_between", {}, 1, 1e9));
    BATON_TRY(rates.restart_seconds, keys.number("restart_seconds", 30, 0, 1e9));
    spec.failures = rates;
    return keys.done();
  }

  status roles(const YAML::Node& node, ClusterSpec& spec) const {
    if (!node) return {};
    if (!node.IsMap()) return bad("'roles' is no map of keys");
    YamlKeys keys(node, "roles.", kWhat, from_);
    const auto least = [&](const char* key, uint32_t& to) -> status {
      BATON_TRY(const uint64_t n, keys.whole(key, to, 0, kMostWorkers));
      to = static_cast<uint32_t>(n);
      return {};
    };
    BATON_CHECK_OK(least("min_prefill", spec.roles.min_prefill));
    BATON_CHECK_OK(least("min_decode", spec.roles.min_decode));
    BATON_CHECK_OK(least("min_mixed", spec.roles.min_mixed));
    return keys.done();
  }

  result<WorkerGroup> group(const YAML::Node& node, const std::string& where) const {
    if (!node.IsMap()) return bad(fmt::format("'{}' is no map of keys", where));
    YamlKeys keys(node, where, kWhat, from_);
    WorkerGroup g;
    BATON_TRY(std::string role, keys.text("role", {}));
    g.auto_role = role == "auto";
    if (g.auto_role) {
      BATON_TRY(role, keys.text("start_role", "mixed"));
    }
    if (role == "prefill") {
      g.role = proto::ROLE_PREFILL;
    } else if (role == "decode") {
      g.role = proto::ROLE_DECODE;
    } else if (role != "mixed") {
      return g.auto_role ? keys.bad("start_role", "is none of prefill, decode and mixed")
                         : keys.bad("role", "is none of prefill, decode, mixed and auto");
    }
    BATON_TRY(g.profile_path, keys.text("profile", {}));
    BATON_TRY(g.profile, latency::read_profile(from_.parent_path() / g.profile_path));
    BATON_TRY(const uint64_t count, keys.whole("count", 1, 1, kMostWorkers));
    BATON_TRY(const uint64_t gpus, keys.whole("gpus", 1, 0, 1024));
    BATON_TRY(g.kv_tokens, keys.whole("kv_tokens", {}, 2, 1e9));
    BATON_TRY(const uint64_t block, keys.whole("block_tokens", 64, 1, 4096));
    BATON_TRY(const uint64_t chunk, keys.whole("chunk_tokens", 2048, 0, 1e8));
    BATON_TRY(const uint64_t step, keys.whole("step_tokens", 0, 0, 1e8));
    BATON_TRY(const uint64_t sequences, keys.whole("max_sequences", 256, 1, 65536));
    BATON_TRY(const uint64_t context, keys.whole("max_context", 0, 0, 1e8));
    BATON_TRY(const uint64_t sharers, keys.whole("workers_per_nic", 1, 1, 1024));
    BATON_TRY(g.prefix_cache, keys.yes("prefix_cache", true));
    BATON_TRY(const double gbit, keys.number("nic_gbit", 0.0, 0, 1e9));
    BATON_TRY(const double latency, keys.number("read_us", g.profile.link.latency * 1e6, 0, 1e9));
    g.count = static_cast<uint32_t>(count);
    g.gpus = static_cast<uint32_t>(gpus);
    g.block_tokens = static_cast<uint32_t>(block);
    g.chunk_tokens = static_cast<uint32_t>(chunk);
    g.step_tokens = static_cast<uint32_t>(step);
    g.max_sequences = static_cast<uint32_t>(sequences);
    g.max_context = static_cast<uint32_t>(context);
    g.workers_per_nic = static_cast<uint32_t>(sharers);
    g.nic_bytes_per_second = gbit > 0 ? gbit * kBytesPerGbit : 1 / g.profile.link.byte;
    g.read_latency = latency * 1e-6;
    if (g.chunk_tokens != 0 && g.chunk_tokens < g.block_tokens) {
      return keys.bad("chunk_tokens", "is less than a block");
    }
    if (g.kv_tokens < 2 * uint64_t{g.block_tokens}) {
      return keys.bad("kv_tokens", "is less than two blocks");
    }
    BATON_CHECK_OK(keys.done());
    return g;
  }

  // Whether what pairs fits together.
  status check(const ClusterSpec& spec) const {
    if (spec.num_workers() > kMostWorkers) return bad("has too many workers");
    const WorkerGroup& first = spec.groups.front();
    bool prefill = false, decode = false, mixed = false;
    for (const WorkerGroup& g : spec.groups) {
      prefill |= g.role == proto::ROLE_PREFILL;
      decode |= g.role == proto::ROLE_DECODE;
      mixed |= g.auto_role || g.role == proto::ROLE_MIXED;
      if (g.profile.kv_bytes_per_token != first.profile.kv_bytes_per_token ||
          g.block_tokens != first.block_tokens) {
        return bad("has workers of different kv_bytes_per_token or block_tokens: they cannot pair");
      }
    }
    if (!mixed && !(prefill && decode)) return bad("has no mixed worker, and no pair");
    return {};
  }

  const std::filesystem::path& from_;
};

}  // namespace

result<ClusterSpec> parse_cluster(std::string_view text, const std::filesystem::path& from) {
  const Reader reader(from);
  try {
    return reader.read(YAML::Load(std::string(text)));
  } catch (const std::exception& e) {  // of YAML
    return reader.bad(e.what());
  }
}

result<ClusterSpec> read_cluster(const std::filesystem::path& path) {
  BATON_TRY(const std::string text, read_text(path));
  return parse_cluster(text, path);
}

uint32_t ClusterSpec::num_workers() const {
  uint32_t n = 0;
  for (const WorkerGroup& g : groups) n += g.count;
  return n;
}

bool ClusterSpec::moves_roles() const {
  return std::ranges::any_of(groups, &WorkerGroup::auto_role);
}

uint32_t ClusterSpec::num_gpus() const {
  uint32_t n = 0;
  for (const WorkerGroup& g : groups) n += g.count * g.gpus;
  return n;
}

}  // namespace baton::sim
