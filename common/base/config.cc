#include "common/base/config.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <exception>
#include <filesystem>

namespace baton {
namespace {

std::string key_of(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::string env_of(const std::string& name) {
  std::string env = "BATON_" + key_of(name);
  std::transform(env.begin(), env.end(), env.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return env;
}

void emit(YAML::Emitter& out, const Options::Target& target) {
  std::visit([&](const auto* value) { out << *value; }, target);
}

// YAML's own sentence for a value of the wrong kind says only where; ours says which key.
status set_from(const YAML::Node& node, const std::string& key, const Options::Target& target) {
  try {
    std::visit([&](auto* value) { *value = node.as<std::remove_reference_t<decltype(*value)>>(); },
               target);
  } catch (const YAML::Exception&) {
    return error(Errc::kInvalidArgument, "config key '" + key + "' (line " +
                                             std::to_string(node.Mark().line + 1) +
                                             ") has a value of the wrong kind");
  }
  return {};
}

// A variable holds a list in one word: "a:1 b:2" or "a:1,b:2".
void split_words(std::vector<std::string>& list) {
  std::vector<std::string> words;
  for (const std::string& item : list) {
    constexpr std::string_view kBetween = ", \t\n";
    for (size_t begin = 0; (begin = item.find_first_not_of(kBetween, begin)) != item.npos;) {
      const size_t end = std::min(item.find_first_of(kBetween, begin), item.size());
      words.push_back(item.substr(begin, end - begin));
      begin = end;
    }
  }
  list = std::move(words);
}

}  // namespace

struct Options::Impl {
  struct Entry {
    std::string name;
    Target target;
    CLI::Option* option;
    bool in_file = false;

    bool given() const { return option->count() > 0; }  // by flag or environment
  };

  Impl(std::string command, std::string description)
      : app(std::move(description), "baton " + std::move(command)) {
    app.set_help_flag("--help", "Print this and exit");
    app.add_option("--config", config_path, "YAML file with any of the keys below")
        ->envname("BATON_CONFIG");
    app.add_flag("--print-config", print_config, "Print the configuration in force and exit");
  }

  status load_file() {
    std::error_code unknown;  // what cannot be asked cannot be read, either
    if (std::filesystem::is_directory(config_path, unknown)) {  // yaml-cpp throws and leaks
      return error(Errc::kInvalidArgument, "config file '" + config_path + "' is a directory");
    }
    YAML::Node root;
    try {
      root = YAML::LoadFile(config_path);
    } catch (const std::exception& e) {  // of YAML, or of the stream where reading fails
      return error(Errc::kInvalidArgument, "config file '" + config_path + "': " + e.what());
    }
    if (root.IsNull()) return {};
    if (!root.IsMap()) {
      return error(Errc::kInvalidArgument, "config file '" + config_path + "' is no map of keys");
    }
    for (const auto& item : root) BATON_CHECK_OK(take(item.first, item.second));
    return {};
  }

  status take(const YAML::Node& name, const YAML::Node& node) {
    const std::string& key = name.Scalar();
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [&](const Entry& e) { return key_of(e.name) == key; });
    if (entry == entries.end()) {
      return error(Errc::kInvalidArgument,
                   "config file '" + config_path + "' has an unknown key '" + key + "'");
    }
    const std::string line = " (line " + std::to_string(name.Mark().line + 1) + ")";
    if (entry->in_file) {
      return error(Errc::kInvalidArgument, "config key '" + key + "'" + line + " is there twice");
    }
    if (node.IsNull()) {  // which would be the text "null"
      return error(Errc::kInvalidArgument, "config key '" + key + "'" + line + " has no value");
    }
    entry->in_file = true;
    if (entry->given()) return {};  // which wins
    return set_from(node, key, entry->target);
  }

  CLI::App app;
  std::string config_path;
  bool print_config = false;
  std::vector<Entry> entries;
  std::function<void()> settle;
};

Options::Options(std::string command, std::string description)
    : impl_(std::make_unique<Impl>(std::move(command), std::move(description))) {}
Options::~Options() = default;

void Options::add(const std::string& name, Target target, const std::string& help) {
  CLI::Option* option = std::visit(
      [&]<class T>(T* value) {
        if constexpr (std::is_same_v<T, bool>) {
          return impl_->app.add_flag("--" + name, *value, help);
        } else {
          return impl_->app.add_option("--" + name, *value, help);
        }
      },
      target);
  YAML::Emitter shown;
  shown << YAML::Flow;
  emit(shown, target);
  option->envname(env_of(name))->default_str(shown.c_str());
  impl_->entries.push_back({name, target, option});
}

void Options::settle(std::function<void()> settle) { impl_->settle = std::move(settle); }

bool Options::was_set(const std::string& name) const {
  const auto entry = std::find_if(impl_->entries.begin(), impl_->entries.end(),
                                  [&](const Impl::Entry& e) { return e.name == name; });
  return entry != impl_->entries.end() && (entry->given() || entry->in_file);
}

bool Options::was_given(const std::string& name) const {
  const auto entry = std::find_if(impl_->entries.begin(), impl_->entries.end(),
                                  [&](const Impl::Entry& e) { return e.name == name; });
  return entry != impl_->entries.end() && entry->given();
}

result<Options::Outcome> Options::parse(const std::vector<std::string>& args) {
  std::vector<std::string> reversed(args.rbegin(), args.rend());
  try {
    impl_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::fputs(impl_->app.help().c_str(), stdout);
    return Outcome::kDone;
  } catch (const CLI::ParseError& e) {
    return error(Errc::kInvalidArgument, e.what());
  }
  for (const auto& entry : impl_->entries) {
    const auto* list = std::get_if<std::vector<std::string>*>(&entry.target);
    if (list && entry.given()) split_words(**list);
  }
  if (!impl_->config_path.empty()) BATON_CHECK_OK(impl_->load_file());
  if (impl_->settle) impl_->settle();
  if (impl_->print_config) {
    std::fputs(to_yaml().c_str(), stdout);
    return Outcome::kDone;
  }
  return Outcome::kRun;
}

std::string Options::to_yaml() const {
  YAML::Emitter out;
  out << YAML::BeginMap;
  for (const auto& entry : impl_->entries) {
    out << YAML::Key << key_of(entry.name) << YAML::Value << YAML::Flow;
    emit(out, entry.target);
  }
  out << YAML::EndMap;
  return std::string(out.c_str()) + "\n";
}

}  // namespace baton
