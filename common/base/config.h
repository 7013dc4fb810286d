#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "common/base/result.h"

namespace baton {

// The options of one command. Each is a flag (--max-queue), an environment variable
// (BATON_MAX_QUEUE) and a key of the YAML file (max_queue); the flag wins over the variable, the
// variable over the file, the file over the default. A key the command does not know is refused.
class Options {
 public:
  using Target = std::variant<std::string*, bool*, uint32_t*, uint64_t*, int32_t*, double*,
                              std::vector<std::string>*>;

  Options(std::string command, std::string description);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  // `name` as the flag is written, without dashes. `target` holds the default, lives as long as
  // this object, and is set by parse(). A list takes several values or the flag several times; one
  // word may hold several, separated by blanks or commas.
  void add(const std::string& name, Target target, const std::string& help);

  enum class Outcome { kRun, kDone };  // kDone: help or the configuration was printed
  // argv as main() got it, from the first argument after the command. Errors name flag or key.
  result<Outcome> parse(const std::vector<std::string>& args);

  // Runs inside parse(), when every source has been read and before anything is printed: for
  // defaults that depend on other keys.
  void settle(std::function<void()> settle);
  // True if flag, variable or file gave it. `name` was added; call it after the sources were read.
  bool was_set(const std::string& name) const;
  // The same without the file.
  bool was_given(const std::string& name) const;

  // What is in force, as YAML that `--config` takes.
  std::string to_yaml() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton
