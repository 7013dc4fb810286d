#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace baton::sim {

// One map of a YAML file: takes keys, and in the end refuses those that nobody took. Errors are
// kInvalidArgument, with the kind of file (`what`), its path, and the key behind `where`.
class YamlKeys {
 public:
  // `what` and `from` outlive it; `map` is a map.
  YamlKeys(const YAML::Node& map, std::string where, std::string_view what,
           const std::filesystem::path& from)
      : map_(map), where_(std::move(where)), what_(what), from_(from) {}

  bool has(const char* key) const { return static_cast<bool>(map_[key]); }

  // A number in [least, most]; without `otherwise` it must be there.
  result<double> number(const char* key, std::optional<double> otherwise, double least,
                        double most);
  result<uint64_t> whole(const char* key, std::optional<double> otherwise, double least,
                         double most);
  result<std::string> text(const char* key, std::optional<std::string> otherwise);
  result<bool> yes(const char* key, bool otherwise);
  YAML::Node node(const char* key);  // undefined: it is not there
  status done() const;               // no other key is there

  Error bad(const char* key, std::string_view what) const;

 private:
  const YAML::Node map_;
  const std::string where_;
  const std::string_view what_;
  const std::filesystem::path& from_;
  std::vector<std::string> taken_;
};

}  // namespace baton::sim
