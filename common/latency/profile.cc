#include "common/latency/profile.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <vector>

namespace baton::latency {
namespace {

constexpr size_t kMaxFileBytes = 64 << 10;

// A number of the file: what it is called there, its unit, and where it goes.
template <class Costs>
struct Key {
  const char* name;
  double Costs::*field;
  double unit;  // of the file's value, in that of the field
  bool positive = false;
};

constexpr double kMicro = 1e-6;
constexpr double kMost = 1e9;  // of any value, in the file's unit

constexpr std::array<Key<StepCosts>, 7> kStepKeys{{
    {"fixed_us", &StepCosts::fixed, kMicro, true},
    {"row_us", &StepCosts::row, kMicro},
    {"row_beyond_us", &StepCosts::row_beyond, kMicro},
    {"ridge_rows", &StepCosts::ridge_rows, 1},
    {"context_token_us", &StepCosts::context_token, kMicro},
    {"attended_pair_us", &StepCosts::attended_pair, kMicro},
    {"output_us", &StepCosts::output, kMicro},
}};
constexpr std::array<Key<LinkCosts>, 2> kLinkKeys{{
    {"latency_us", &LinkCosts::latency, kMicro},
    {"byte_us", &LinkCosts::byte, kMicro, true},
}};

class Reader {
 public:
  explicit Reader(std::string_view from) : from_(from) {}

  result<Profile> read(const YAML::Node& root) const {
    Profile p;
    BATON_CHECK_OK(only(root, "", {"name", "source", "kv_bytes_per_token", "step", "link"}));
    BATON_TRY(p.name, text(root, "name"));
    if (root["source"]) {
      BATON_TRY(p.source, text(root, "source"));
    }
    BATON_TRY(const double kv, number(root, "kv_bytes_per_token", "", true));
    if (kv != std::floor(kv) || kv > UINT32_MAX)
      return bad("kv_bytes_per_token is no whole number");
    p.kv_bytes_per_token = static_cast<uint32_t>(kv);
    BATON_CHECK_OK(costs(root, "step", kStepKeys, p.step));
    BATON_CHECK_OK(costs(root, "link", kLinkKeys, p.link));
    return p;
  }

  Error bad(const std::string& what) const {
    return error(Errc::kInvalidArgument, fmt::format("profile {}: {}", from_, what));
  }

 private:
  status only(const YAML::Node& map, std::string_view prefix,
              const std::vector<std::string>& keys) const {
    if (!map.IsMap()) return bad(fmt::format("{}is no map of keys", prefix));
    for (const auto& entry : map) {
      const auto key = entry.first.as<std::string>("");
      if (std::ranges::find(keys, key) == keys.end()) {
        return bad(fmt::format("the key '{}{}' is not known", prefix, key));
      }
    }
    return {};
  }

  result<std::string> text(const YAML::Node& map, const char* key) const {
    const YAML::Node node = map[key];
    if (!node || !node.IsScalar()) return bad(fmt::format("'{}' is missing or no text", key));
    return node.as<std::string>();
  }

  result<double> number(const YAML::Node& map, const char* key, std::string_view prefix,
                        bool positive) const {
    const YAML::Node node = map[key];
    if (!node) return bad(fmt::format("'{}{}' is missing", prefix, key));
    double value = 0;
    if (!node.IsScalar() || !YAML::convert<double>::decode(node, value)) {
      return bad(fmt::format("'{}{}' is no number", prefix, key));
    }
    if (!(value >= 0) || value > kMost || (positive && value == 0)) {
      return bad(fmt::format("'{}{}' = {} is not {} and at most {}", prefix, key, value,
                             positive ? "above 0" : "0 or more", kMost));
    }
    return value;
  }

  template <class Costs, size_t N>
  status costs(const YAML::Node& root, const char* section, const std::array<Key<Costs>, N>& keys,
               Costs& out) const {
    const YAML::Node map = root[section];
    if (!map) return bad(fmt::format("'{}' is missing", section));
    const std::string prefix = std::string(section) + '.';
    std::vector<std::string> names;
    for (const auto& key : keys) names.emplace_back(key.name);
    BATON_CHECK_OK(only(map, prefix, names));
    for (const auto& key : keys) {
      BATON_TRY(const double value, number(map, key.name, prefix, key.positive));
      out.*key.field = value * key.unit;
    }
    return {};
  }

  const std::string_view from_;
};

template <class Costs, size_t N>
std::string section(const char* name, const std::array<Key<Costs>, N>& keys, const Costs& costs) {
  std::string out = fmt::format("{}:\n", name);
  for (const auto& key : keys) {
    out += fmt::format("  {}: {:.6g}\n", key.name, costs.*key.field / key.unit);
  }
  return out;
}

}  // namespace

result<Profile> parse_profile(std::string_view text, std::string_view from) {
  const Reader reader(from);
  try {
    return reader.read(YAML::Load(std::string(text)));
  } catch (const std::exception& e) {  // of YAML
    return reader.bad(e.what());
  }
}

result<Profile> read_profile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return error(Errc::kIo, fmt::format("cannot read the profile {}", path.string()));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || file.gcount() == 0) {
    return error(Errc::kIo, fmt::format("cannot read the profile {}", path.string()));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) {
    return error(Errc::kInvalidArgument,
                 fmt::format("profile {}: is over {} bytes", path.string(), kMaxFileBytes));
  }
  return parse_profile(text, path.string());
}

std::string to_yaml(const Profile& p) {
  YAML::Emitter head;  // quotes what needs it
  head << YAML::BeginMap << YAML::Key << "name" << YAML::Value << p.name << YAML::Key << "source"
       << YAML::Value << p.source << YAML::Key << "kv_bytes_per_token" << YAML::Value
       << p.kv_bytes_per_token << YAML::EndMap;
  return std::string(head.c_str()) + '\n' + section("step", kStepKeys, p.step) +
         section("link", kLinkKeys, p.link);
}

}  // namespace baton::latency
