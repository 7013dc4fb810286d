#pragma once

#include <filesystem>

namespace baton::fakes {

// The quick-start model: $BATON_TEST_MODEL, or where scripts/get_model.sh puts it. Empty if it is
// not there; without $BATON_ALLOW_NO_MODEL that fails the running test.
std::filesystem::path quick_start_model();

}  // namespace baton::fakes
