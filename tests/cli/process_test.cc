#include "cli/process.h"

#include <gtest/gtest.h>

namespace baton::cli {
namespace {

TEST(Process, AChildGetsNoOptionsFromTheEnvironment) {
  const char* const environment[] = {"PATH=/bin",
                                     "BATON_CONFIG=cluster.yaml",
                                     "BATON_MIXED=1",
                                     "BATON_MAX_ISA=avx2",
                                     "BATON_MAX_ISAX=1",
                                     "MY_BATON_X=1",
                                     nullptr};
  EXPECT_EQ(environment_of_child(environment),
            (std::vector<std::string>{"PATH=/bin", "BATON_MAX_ISA=avx2", "MY_BATON_X=1"}));
}

}  // namespace
}  // namespace baton::cli
