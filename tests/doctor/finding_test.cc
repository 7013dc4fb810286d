#include "doctor/finding.h"

#include <gtest/gtest.h>

namespace baton::doctor {
namespace {

TEST(Finding, AdviceHasALineOfItsOwn) {
  EXPECT_EQ(to_text({Level::kFine, "memory", "enough", ""}), "ok       memory         enough\n");
  const std::string text = to_text({Level::kError, "memory", "too little", "buy some"});
  EXPECT_EQ(text, "ERROR    memory         too little\n                        -> buy some\n");
}

TEST(Report, CountsWhatIsToBeMended) {
  Report report;
  report.fine("a", "x");
  report.note("b", "x");
  EXPECT_EQ(summary(report), "nothing to mend");
  report.warn("c", "x", "y");
  EXPECT_EQ(summary(report), "1 warning");
  report.fail("d", "x", "y");
  report.fail("e", "x", "y");
  EXPECT_EQ(summary(report), "2 errors, 1 warning");
  EXPECT_EQ(report.findings().size(), 5u);
}

}  // namespace
}  // namespace baton::doctor
