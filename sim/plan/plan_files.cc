#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>

#include "sim/plan/plan_report.h"

namespace baton::sim {
namespace {

constexpr double kBytesPerGbit = 1e9 / 8;

std::string file_safe(std::string name) {
  std::ranges::replace_if(
      name, [](unsigned char c) { return !std::isalnum(c) && c != '-' && c != '.'; }, '-');
  return name;
}

// The profile's file, which is made if the profile is derived.
std::string profile_of(const WorkerOption& w, const std::string& stem,
                       const std::filesystem::path& folder, std::vector<PlanFile>& profiles) {
  if (!w.derived()) {
    const std::filesystem::path path = std::filesystem::absolute(w.profile_path);
    return path.lexically_normal().lexically_relative(folder.lexically_normal()).string();
  }
  const std::string name = file_safe(stem + "." + w.profile.name) + ".yaml";
  if (std::ranges::find(profiles, name, &PlanFile::name) == profiles.end()) {
    profiles.push_back({name, latency::to_yaml(w.profile)});
  }
  return name;
}

}  // namespace

ClusterFiles cluster_files(const Hardware& table, const Layout& layout, const std::string& stem,
                           const std::filesystem::path& folder) {
  ClusterFiles files;
  YAML::Emitter out;
  out.SetDoublePrecision(9);
  const auto key = [&](const char* name, const auto& value) {
    out << YAML::Key << name << YAML::Value << value;
  };
  const auto group = [&](const WorkerPool& pool, const char* role) {
    if (pool.count == 0) return;
    const WorkerOption& w = *pool.worker;
    const double nic = layout.within_node ? w.node_bytes_per_second : w.nic_bytes_per_second;
    out << YAML::BeginMap;
    key("role", role);
    key("count", pool.count);
    key("profile", profile_of(w, stem, folder, files.profiles));
    key("gpus", w.tensor_parallel);
    key("kv_tokens", w.kv_tokens);
    key("block_tokens", table.block_tokens);
    key("chunk_tokens", layout.chunk_tokens);
    key("max_sequences", table.max_sequences);
    key("nic_gbit", nic / kBytesPerGbit);
    key("read_us", w.read_latency * 1e6);
    out << YAML::EndMap;
  };
  out << YAML::BeginMap;
  key("name", stem);
  out << YAML::Key << "network" << YAML::Value << YAML::BeginMap;
  key("message_us", table.message_latency * 1e6);
  out << YAML::EndMap << YAML::Key << "workers" << YAML::Value << YAML::BeginSeq;
  group(layout.prefill, "prefill");
  group(layout.decode, "decode");
  group(layout.mixed, "mixed");
  out << YAML::EndSeq << YAML::EndMap;
  files.cluster = fmt::format("# Made by `baton plan`: {}.\n", layout.to_string());
  if (layout.units > 1) {
    files.cluster += fmt::format(
        "# This is one of {} such clusters, each with a router of its own.\n", layout.units);
  }
  files.cluster += std::string(out.c_str()) + "\n";
  return files;
}

std::string worker_flags(const Hardware& table, const Layout& layout, const WorkerPool& pool,
                         const char* role) {
  return fmt::format(
      "--role {} --tensor-parallel {} --block-tokens {} --chunk-tokens {} --max-sequences {}", role,
      pool.worker->tensor_parallel, table.block_tokens, layout.chunk_tokens, table.max_sequences);
}

std::string up_flags(const Hardware& table, const Layout& layout) {
  const std::string common =
      fmt::format("--block-tokens {} --chunk-tokens {} --max-sequences {}", table.block_tokens,
                  layout.chunk_tokens, table.max_sequences);
  if (!layout.split()) {
    return fmt::format("--mixed {} --tensor-parallel {} {}", layout.mixed.count,
                       layout.mixed.worker->tensor_parallel, common);
  }
  return fmt::format(
      "--prefill {} --prefill-tensor-parallel {} --decode {} --decode-tensor-parallel {} {}",
      layout.prefill.count, layout.prefill.worker->tensor_parallel, layout.decode.count,
      layout.decode.worker->tensor_parallel, common);
}

}  // namespace baton::sim
