#include "sim/plan/hardware.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "sim/cluster/csv.h"
#include "sim/cluster/yaml_keys.h"

namespace baton::sim {
namespace {

constexpr double kBytesPerGbit = 1e9 / 8;
constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr double kMostGpus = 100'000;
constexpr uint64_t kLeastKvTokens = 4096;  // with less, nobody would serve

class Reader {
 public:
  Reader(const std::filesystem::path& from, const std::optional<ModelShape>& model)
      : from_(from), model_(model) {}

  result<Hardware> read(const YAML::Node& root) const {
    if (!root.IsMap()) return bad("is no map of keys");
    Hardware table;
    YamlKeys keys(root, "", kWhat, from_);
    BATON_TRY(table.name, keys.text("name", from_.stem().string()));
    BATON_TRY(const double message, keys.number("message_us", 100, 0, 1e6));
    BATON_TRY(const uint64_t node, keys.whole("gpus_per_node", 8, 1, 1024));
    BATON_TRY(const uint64_t block, keys.whole("block_tokens", 64, 1, 4096));
    BATON_TRY(const uint64_t sequences, keys.whole("max_sequences", 256, 1, 65536));
    table.message_latency = message * 1e-6;
    table.gpus_per_node = static_cast<uint32_t>(node);
    table.block_tokens = static_cast<uint32_t>(block);
    table.max_sequences = static_cast<uint32_t>(sequences);
    const YAML::Node devices = keys.node("devices");
    if (!devices || !devices.IsSequence() || devices.size() == 0) {
      return keys.bad("devices", "is missing or no list");
    }
    for (size_t i = 0; i < devices.size(); ++i) {
      BATON_CHECK_OK(device(devices[i], fmt::format("devices[{}].", i), table));
    }
    BATON_CHECK_OK(keys.done());
    return checked(std::move(table));
  }

  Error bad(std::string_view what) const {
    return error(Errc::kInvalidArgument, fmt::format("{} {}: {}", kWhat, from_.string(), what));
  }

 private:
  static constexpr std::string_view kWhat = "hardware";

  // A device of the table, and its workers as far as they are known.
  struct Device {
    std::string name;
    double cost = 1;
    uint32_t available = 0;
    DeviceFigures figures;
    std::vector<WorkerOption> measured;
  };

  status device(const YAML::Node& node, const std::string& where, Hardware& table) const {
    if (!node.IsMap()) return bad(fmt::format("'{}' is no map of keys", where));
    YamlKeys keys(node, where, kWhat, from_);
    Device d;
    BATON_TRY(d.name, keys.text("device", {}));
    BATON_TRY(d.cost, keys.number("cost", 1, 1e-6, 1e9));
    BATON_TRY(const uint64_t available, keys.whole("available", kMostGpus, 1, kMostGpus));
    d.available = static_cast<uint32_t>(available);
    BATON_CHECK_OK(links(keys, d.figures));
    BATON_CHECK_OK(measured(keys, where, d));
    BATON_CHECK_OK(derived(keys, table.gpus_per_node, d));
    BATON_CHECK_OK(keys.done());
    std::ranges::sort(d.measured, {}, &WorkerOption::tensor_parallel);
    for (WorkerOption& w : d.measured) {
      if (w.tensor_parallel > table.gpus_per_node) {
        return keys.bad("device", "has workers that are larger than gpus_per_node");
      }
      finish(d, w);
      table.workers.push_back(std::move(w));
    }
    return {};
  }

  static status links(YamlKeys& keys, DeviceFigures& figures) {
    BATON_TRY(const double nic, keys.number("nic_gbit", {}, 1e-3, 1e9));
    BATON_TRY(const double node, keys.number("node_gbit", nic, 1e-3, 1e9));
    BATON_TRY(const double read, keys.number("read_us", 20, 0, 1e9));
    figures.nic_bytes_per_second = nic * kBytesPerGbit;
    figures.node_bytes_per_second = node * kBytesPerGbit;
    figures.read_latency = read * 1e-6;
    return {};
  }

  status measured(YamlKeys& keys, const std::string& where, Device& d) const {
    const YAML::Node list = keys.node("measured");
    if (!list) return {};
    if (!list.IsSequence()) return keys.bad("measured", "is no list");
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string name = fmt::format("{}measured[{}].", where, i);
      if (!list[i].IsMap()) return bad(fmt::format("'{}' is no map of keys", name));
      YamlKeys of(list[i], name, kWhat, from_);
      WorkerOption w;
      BATON_TRY(const uint64_t degree, of.whole("tensor_parallel", 1, 1, 1024));
      BATON_TRY(const std::string profile, of.text("profile", {}));
      BATON_TRY(w.kv_tokens, of.whole("kv_tokens", {}, kLeastKvTokens, 1e9));
      BATON_CHECK_OK(of.done());
      w.tensor_parallel = static_cast<uint32_t>(degree);
      w.profile_path = from_.parent_path() / profile;
      BATON_TRY(w.profile, latency::read_profile(w.profile_path));
      if (model_ && w.profile.kv_bytes_per_token != model_->kv_bytes_per_token) {
        return of.bad("profile", "is of another model: its kv_bytes_per_token are others");
      }
      d.measured.push_back(std::move(w));
    }
    return {};
  }

  // Adds what is not measured, if there is a model to derive it of.
  status derived(YamlKeys& keys, uint32_t gpus_per_node, Device& d) const {
    const YAML::Node figures = keys.node("figures");
    const YAML::Node degrees = keys.node("derive_tensor_parallel");
    if (!figures && !degrees) return {};
    if (!figures || !figures.IsMap()) return keys.bad("figures", "is missing or no map of keys");
    if (!degrees || !degrees.IsSequence()) {
      return keys.bad("derive_tensor_parallel", "is missing or no list");
    }
    BATON_CHECK_OK(read_figures(figures, d.figures));
    const WorkerOption* base = nullptr;
    for (const WorkerOption& w : d.measured) base = w.tensor_parallel == 1 ? &w : base;
    std::vector<WorkerOption> made;
    for (const YAML::Node& entry : degrees) {
      uint32_t degree = 0;
      if (!YAML::convert<uint32_t>::decode(entry, degree) || degree == 0 ||
          degree > gpus_per_node) {
        return keys.bad("derive_tensor_parallel", "has what is no degree in [1, gpus_per_node]");
      }
      const bool known =
          std::ranges::find(d.measured, degree, &WorkerOption::tensor_parallel) != d.measured.end();
      if (!model_ || known || model_->kv_heads % degree != 0) continue;
      WorkerOption w;
      w.tensor_parallel = degree;
      w.kv_tokens = kv_tokens(*model_, d.figures, degree);
      if (w.kv_tokens < kLeastKvTokens) continue;
      w.profile =
          derived_profile(*model_, d.name, d.figures, base ? &base->profile : nullptr, degree);
      made.push_back(std::move(w));
    }
    d.measured.insert(d.measured.end(), made.begin(), made.end());
    return {};
  }

  status read_figures(const YAML::Node& node, DeviceFigures& f) const {
    YamlKeys keys(node, "figures.", kWhat, from_);
    const auto of = [&](const char* key, std::optional<double> otherwise, double unit, double least,
                        double& to) -> status {
      BATON_TRY(const double value, keys.number(key, otherwise, least, 1e9));
      to = value * unit;
      return {};
    };
    BATON_CHECK_OK(of("memory_gib", {}, kGib, 1e-3, f.memory_bytes));
    BATON_CHECK_OK(of("usable", 0.9, 1, 1e-3, f.usable));
    BATON_CHECK_OK(of("gbyte_per_second", {}, 1e9, 1e-3, f.bytes_per_second));
    BATON_CHECK_OK(of("tflop_per_second", {}, 1e12, 1e-6, f.flop_per_second));
    BATON_CHECK_OK(of("step_overhead_us", {}, 1e-6, 0, f.step_overhead));
    BATON_CHECK_OK(of("all_reduce_us", {}, 1e-6, 0, f.all_reduce_latency));
    BATON_CHECK_OK(of("all_reduce_gbyte_per_second", {}, 1e9, 1e-3, f.all_reduce_bytes_per_second));
    return keys.done();
  }

  static void finish(const Device& d, WorkerOption& w) {
    w.device = d.name;
    w.cost = d.cost * w.tensor_parallel;
    w.available = d.available;
    w.nic_bytes_per_second = d.figures.nic_bytes_per_second * w.tensor_parallel;
    w.node_bytes_per_second = d.figures.node_bytes_per_second * w.tensor_parallel;
    w.read_latency = d.figures.read_latency;
  }

  result<Hardware> checked(Hardware table) const {
    if (table.workers.empty()) {
      return bad(model_ ? "has no device that the model fits on"
                        : "has nothing measured, and no model is given to derive it of");
    }
    for (const WorkerOption& w : table.workers) {
      if (w.profile.kv_bytes_per_token != table.workers.front().profile.kv_bytes_per_token) {
        return bad("has profiles of different kv_bytes_per_token: they are of different models");
      }
      if (std::ranges::count_if(table.workers, [&](const WorkerOption& other) {
            return other.to_string() == w.to_string();
          }) > 1) {
        return bad(w.to_string() + " is there twice");
      }
    }
    return table;
  }

  const std::filesystem::path& from_;
  const std::optional<ModelShape>& model_;
};

}  // namespace

std::string WorkerOption::to_string() const {
  return fmt::format("{} TP{}", device, tensor_parallel);
}

result<Hardware> parse_hardware(std::string_view text, const std::filesystem::path& from,
                                const std::optional<ModelShape>& model) {
  const Reader reader(from, model);
  try {
    return reader.read(YAML::Load(std::string(text)));
  } catch (const std::exception& e) {  // of YAML
    return reader.bad(e.what());
  }
}

result<Hardware> read_hardware(const std::filesystem::path& path,
                               const std::optional<ModelShape>& model) {
  BATON_TRY(const std::string text, read_text(path));
  return parse_hardware(text, path, model);
}

result<ModelShape> parse_model_shape(std::string_view text, const std::filesystem::path& from) {
  const auto bad = [&](std::string_view what) {
    return error(Errc::kInvalidArgument, fmt::format("model {}: {}", from.string(), what));
  };
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    if (!root.IsMap()) return bad("is no map of keys");
    YamlKeys keys(root, "", "model", from);
    ModelShape m;
    BATON_TRY(m.name, keys.text("name", from.stem().string()));
    BATON_TRY(const double gigabytes, keys.number("weight_gbyte", {}, 1e-3, 1e6));
    BATON_TRY(const uint64_t kv, keys.whole("kv_bytes_per_token", {}, 1, 1e9));
    BATON_TRY(const uint64_t layers, keys.whole("layers", {}, 1, 10'000));
    BATON_TRY(const uint64_t hidden, keys.whole("hidden", {}, 1, 1e6));
    BATON_TRY(const uint64_t heads, keys.whole("kv_heads", {}, 1, 10'000));
    BATON_CHECK_OK(keys.done());
    m.weight_bytes = gigabytes * 1e9;
    m.kv_bytes_per_token = static_cast<uint32_t>(kv);
    m.layers = static_cast<uint32_t>(layers);
    m.hidden = static_cast<uint32_t>(hidden);
    m.kv_heads = static_cast<uint32_t>(heads);
    return m;
  } catch (const std::exception& e) {  // of YAML
    return bad(e.what());
  }
}

result<ModelShape> read_model_shape(const std::filesystem::path& path) {
  BATON_TRY(const std::string text, read_text(path));
  return parse_model_shape(text, path);
}

}  // namespace baton::sim
