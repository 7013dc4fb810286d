#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/base/clock.h"

namespace baton::fakes {

// A program beside this test's, as it is talked to over its standard input and output, a line at a
// time. Killed at the end, whatever happened.
class TalkingChild {
 public:
  TalkingChild(const std::string& program, const std::vector<std::string>& args,
               milliseconds patience);
  ~TalkingChild();
  TalkingChild(const TalkingChild&) = delete;
  TalkingChild& operator=(const TalkingChild&) = delete;

  void say(const std::string& line);
  // The next line; what there is of it if the patience or the child ends first.
  std::string hear();
  // SIGKILL also waits for its end.
  void kill(int signal);
  int fd() const { return from_; }  // readable when there is something to hear
  pid_t pid() const { return pid_; }

 private:
  const milliseconds patience_;
  pid_t pid_ = 0;
  int to_ = -1, from_ = -1;
};

}  // namespace baton::fakes
