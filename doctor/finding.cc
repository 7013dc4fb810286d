#include "doctor/finding.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::doctor {

const char* name(Level level) {
  switch (level) {
    case Level::kFine:
      return "ok";
    case Level::kNote:
      return "note";
    case Level::kWarning:
      return "warning";
    case Level::kError:
      return "ERROR";
  }
  return "?";
}

size_t Report::count(Level level) const {
  return static_cast<size_t>(
      std::ranges::count(findings_, level, [](const Finding& f) { return f.level; }));
}

std::string to_text(const Finding& f) {
  std::string text = fmt::format("{:<8} {:<14} {}\n", name(f.level), f.about, f.found);
  if (!f.advice.empty()) text += fmt::format("{:<8} {:<14} -> {}\n", "", "", f.advice);
  return text;
}

std::string summary(const Report& report) {
  const auto words = [](size_t count, const char* what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
  };
  const size_t errors = report.count(Level::kError), warnings = report.count(Level::kWarning);
  if (errors + warnings == 0) return "nothing to mend";
  if (errors == 0) return words(warnings, "warning");
  if (warnings == 0) return words(errors, "error");
  return words(errors, "error") + ", " + words(warnings, "warning");
}

}  // namespace baton::doctor
