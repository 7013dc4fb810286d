#include "sim/cluster/yaml_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace baton::sim {

result<double> YamlKeys::number(const char* key, std::optional<double> otherwise, double least,
                                double most) {
  const YAML::Node value_node = node(key);
  if (!value_node) {
    if (otherwise) return *otherwise;
    return bad(key, "is missing");
  }
  double value = 0;
  if (!value_node.IsScalar() || !YAML::convert<double>::decode(value_node, value)) {
    return bad(key, "is no number");
  }
  if (!(value >= least && value <= most)) {
    return bad(key, fmt::format("= {:g} is not in [{:g}, {:g}]", value, least, most));
  }
  return value;
}

result<uint64_t> YamlKeys::whole(const char* key, std::optional<double> otherwise, double least,
                                 double most) {
  BATON_TRY(const double value, number(key, otherwise, least, most));
  if (value != std::floor(value)) return bad(key, "is no whole number");
  return static_cast<uint64_t>(value);
}

result<std::string> YamlKeys::text(const char* key, std::optional<std::string> otherwise) {
  const YAML::Node value = node(key);
  if (!value && otherwise) return *otherwise;
  if (!value || !value.IsScalar()) return bad(key, "is missing or no text");
  return value.as<std::string>();
}

result<bool> YamlKeys::yes(const char* key, bool otherwise) {
  const YAML::Node given = node(key);
  bool value = otherwise;
  if (given && (!given.IsScalar() || !YAML::convert<bool>::decode(given, value))) {
    return bad(key, "is neither true nor false");
  }
  return value;
}

YAML::Node YamlKeys::node(const char* key) {
  taken_.emplace_back(key);
  return map_[key];
}

status YamlKeys::done() const {
  for (const auto& entry : map_) {
    const auto key = entry.first.as<std::string>("");
    if (std::ranges::find(taken_, key) == taken_.end()) return bad(key.c_str(), "is not known");
  }
  return {};
}

Error YamlKeys::bad(const char* key, std::string_view what) const {
  return error(Errc::kInvalidArgument,
               fmt::format("{} {}: '{}{}' {}", what_, from_.string(), where_, key, what));
}

}  // namespace baton::sim
