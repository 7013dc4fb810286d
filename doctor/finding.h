#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace baton::doctor {

enum class Level { kFine, kNote, kWarning, kError };
const char* name(Level level);  // "ok", "note", "warning", "ERROR"

// One thing that was looked at.
struct Finding {
  Level level = Level::kFine;
  std::string about;   // a word or two: "memory"
  std::string found;   // what is so
  std::string advice;  // what to do; empty where nothing need be done
};

// What was found so far, in order.
class Report {
 public:
  void fine(std::string about, std::string found) {
    add({Level::kFine, std::move(about), std::move(found), {}});
  }
  void note(std::string about, std::string found) {
    add({Level::kNote, std::move(about), std::move(found), {}});
  }
  void warn(std::string about, std::string found, std::string advice) {
    add({Level::kWarning, std::move(about), std::move(found), std::move(advice)});
  }
  void fail(std::string about, std::string found, std::string advice) {
    add({Level::kError, std::move(about), std::move(found), std::move(advice)});
  }

  void add(Finding finding) { findings_.push_back(std::move(finding)); }

  const std::vector<Finding>& findings() const { return findings_; }
  size_t count(Level level) const;

 private:
  std::vector<Finding> findings_;
};

// A line, and one for the advice.
std::string to_text(const Finding& finding);
// "2 errors, 1 warning"; "nothing to mend".
std::string summary(const Report& report);

}  // namespace baton::doctor
