#include "cli/tenants_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "common/base/private_file.h"
#include "common/formats/utf8.h"
#include "router/service/access_control.h"

namespace baton::cli {
namespace {

using router::KeyDigest;
using router::TenantConfig;

constexpr size_t kMaxFileBytes = size_t{4} << 20;
constexpr size_t kMaxNameBytes = 32, kMaxKeyBytes = 512;
constexpr std::string_view kDigestPrefix = "sha256:";

template <class... Args>
Error bad(fmt::format_string<Args...> format, Args&&... args) {
  return error(Errc::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...));
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxNameBytes && text[0] != '-' && text[0] != '_' &&
         std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
         });
}

// What a header can carry: no blank, nothing that is not shown.
bool is_key(std::string_view text) {
  return !text.empty() && text.size() <= kMaxKeyBytes &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

std::optional<KeyDigest> parse_hex(std::string_view text) {
  KeyDigest out;
  if (text.size() != 2 * out.size()) return std::nullopt;
  for (size_t i = 0; i < out.size(); ++i) {
    const char* at = text.data() + 2 * i;
    if (std::from_chars(at, at + 2, out[i], 16).ptr != at + 2) return std::nullopt;
  }
  return out;
}

std::optional<KeyDigest> parse_key(const std::string& text) {
  if (text.starts_with(kDigestPrefix)) return parse_hex(text.substr(kDigestPrefix.size()));
  if (!is_key(text)) return std::nullopt;
  return router::key_digest(text);
}

// Fills one tenant.
class Reader {
 public:
  Reader(const router::SloClasses& classes, TenantConfig& to) : classes_(classes), to_(to) {}

  status field(const std::string& key, const YAML::Node& value) {
    if (key == "keys") return keys(value);
    if (key == "classes") return classes(value);
    if (key == "priority") {
      constexpr int kMost = TenantConfig::kMostPriority;
      return number(key, value, -kMost, kMost, to_.priority);
    }
    auto& limits = to_.limits;
    constexpr uint64_t kMost = 1'000'000'000'000;
    if (key == "requests_per_minute") {
      return number<uint64_t>(key, value, 1, kMost, limits.requests_per_minute);
    }
    if (key == "tokens_per_minute") {
      return number<uint64_t>(key, value, 1, kMost, limits.tokens_per_minute);
    }
    if (key == "max_concurrent") {
      return number<uint32_t>(key, value, 1, 1'000'000, limits.max_concurrent);
    }
    return bad(
        "{}: '{}' is none of keys, classes, priority, requests_per_minute, "
        "tokens_per_minute and max_concurrent",
        to_.name, formats::printable(key));
  }

 private:
  template <class T>
  status number(const std::string& key, const YAML::Node& value, T least, T most, T& out) {
    T found{};
    const std::string text = value.IsScalar() ? value.Scalar() : "";
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), found);
    const bool whole = failed == std::errc() && end == text.data() + text.size() && !text.empty();
    if (!whole || found < least || found > most) {
      return bad("{}: {} must be a whole number in [{}, {}]", to_.name, key, least, most);
    }
    out = found;
    return {};
  }

  status keys(const YAML::Node& value) {
    if (!value.IsSequence() || value.size() == 0) return bad("{}: keys must be a list", to_.name);
    for (const YAML::Node& each : value) {
      const auto digest = each.IsScalar() ? parse_key(each.Scalar()) : std::nullopt;
      if (!digest) {
        return bad(
            "{}: key number {} must have 1 to {} visible characters of ASCII, or be "
            "'sha256:' and 64 hexadecimal digits",
            to_.name, to_.keys.size() + 1, kMaxKeyBytes);
      }
      to_.keys.push_back(*digest);
    }
    return {};
  }

  status classes(const YAML::Node& value) {
    if (!value.IsSequence() || value.size() == 0) {
      return bad("{}: classes must be a list", to_.name);
    }
    for (const YAML::Node& each : value) {
      const std::string text = each.IsScalar() ? each.Scalar() : "";
      const auto found = classes_.find(text);
      if (!found) {
        return bad("{}: there is no class '{}', only {}", to_.name, formats::printable(text),
                   classes_.names());
      }
      if (to_.classes.empty() || !to_.may_use(*found)) to_.classes.push_back(*found);
    }
    return {};
  }

  const router::SloClasses& classes_;
  TenantConfig& to_;
};

result<TenantConfig> read_tenant(const std::string& name, const YAML::Node& fields,
                                 const router::SloClasses& classes) {
  TenantConfig tenant{.name = name};
  if (!is_name(name)) {
    return bad("the tenant '{}' must have 1 to {} of a-z, 0-9, _ and -, a letter or digit first",
               formats::printable(name.substr(0, 2 * kMaxNameBytes)), kMaxNameBytes);
  }
  if (!fields.IsMap()) return bad("{}: its fields must be a map", name);
  Reader reader(classes, tenant);
  std::set<std::string> seen;
  for (const auto& entry : fields) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    if (!seen.insert(key).second) return bad("{}: {} is there twice", name, key);
    BATON_CHECK_OK(reader.field(key, entry.second));
  }
  if (tenant.keys.empty()) return bad("{}: keys are needed", name);
  return tenant;
}

status check_keys(const std::vector<TenantConfig>& tenants) {
  std::map<KeyDigest, std::string_view> owners;
  for (const TenantConfig& tenant : tenants) {
    for (const KeyDigest& key : tenant.keys) {
      const auto [owner, fresh] = owners.try_emplace(key, tenant.name);
      if (!fresh) return bad("{} and {} have a key in common", owner->second, tenant.name);
    }
  }
  if (owners.size() > kMaxTenantKeys) return bad("there are more than {} keys", kMaxTenantKeys);
  return {};
}

result<std::vector<TenantConfig>> read_all(const YAML::Node& root,
                                           const router::SloClasses& classes) {
  const bool only = root.IsMap() && root.size() == 1 && root["tenants"];
  if (!only || !root["tenants"].IsMap()) return bad("it must be one map, 'tenants'");
  std::vector<TenantConfig> tenants;
  std::set<std::string> seen;
  for (const auto& entry : root["tenants"]) {
    const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "";
    BATON_TRY(TenantConfig tenant, read_tenant(name, entry.second, classes));
    if (!seen.insert(name).second) return bad("{} is there twice", name);
    if (tenants.size() == kMaxTenants) return bad("there are more than {} tenants", kMaxTenants);
    tenants.push_back(std::move(tenant));
  }
  if (tenants.empty()) return bad("there is no tenant");
  BATON_CHECK_OK(check_keys(tenants));
  return tenants;
}

}  // namespace

result<std::vector<TenantConfig>> parse_tenants(const std::string& yaml,
                                                const router::SloClasses& classes) {
  try {
    return read_all(YAML::Load(yaml), classes);
  } catch (const YAML::Exception& e) {
    return bad("it is not YAML: {} in line {}", e.msg, e.mark.line + 1);
  }
}

result<std::vector<TenantConfig>> read_tenants(const std::string& path,
                                               const router::SloClasses& classes) {
  if (path.empty()) return std::vector<TenantConfig>();
  const status own = check_private(path);
  if (!own) return error(own.error().code, "the tenants in '" + path + "': " + own.error().message);
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad()) {
    return error(Errc::kIo, "the tenants in '" + path + "': cannot be read");
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) return bad("the tenants in '{}' take over 4 MiB", path);
  auto tenants = parse_tenants(text, classes);
  if (!tenants) return bad("the tenants in '{}': {}", path, tenants.error().message);
  return tenants;
}

}  // namespace baton::cli
