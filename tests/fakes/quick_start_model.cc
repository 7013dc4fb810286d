#include "tests/fakes/quick_start_model.h"

#include <gtest/gtest.h>
#include <pwd.h>
#include <unistd.h>

#include <cstdlib>

namespace baton::fakes {
namespace {

// Where scripts/get_model.sh puts it.
std::filesystem::path cache() {
  if (const char* cache = std::getenv("BATON_CACHE")) return cache;
  const char* home = std::getenv("HOME");
  const passwd* user = home == nullptr ? getpwuid(getuid()) : nullptr;
  if (user != nullptr) home = user->pw_dir;
  return std::filesystem::path(home == nullptr ? "" : home) / ".cache/baton";
}

}  // namespace

std::filesystem::path quick_start_model() {
  const char* given = std::getenv("BATON_TEST_MODEL");
  const std::filesystem::path path =
      given != nullptr ? given : cache() / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (std::filesystem::exists(path)) return path;
  if (std::getenv("BATON_ALLOW_NO_MODEL") == nullptr) {
    ADD_FAILURE() << "no model at '" << path.string() << "': run scripts/get_model.sh, or set "
                  << "BATON_ALLOW_NO_MODEL to go without";
  }
  return {};
}

}  // namespace baton::fakes
