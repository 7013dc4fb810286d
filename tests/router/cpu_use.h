#pragma once

#include <sched.h>
#include <sys/types.h>

#include <optional>

namespace baton::router {

// Which processors the threads of a measurement run on. Apart, the one that is measured has one to
// itself, all others have the rest; else, or where there is one only, everybody has all of them.
class Processors {
 public:
  explicit Processors(bool apart);  // of those that the calling thread may use
  bool apart() const { return measured_.has_value(); }
  cpu_set_t others() const;
  // For the calling thread, and those that it starts from now on.
  void take_measured() const { pin(/*measured=*/true); }
  void take_others() const { pin(/*measured=*/false); }

 private:
  void pin(bool measured) const;

  cpu_set_t allowed_;
  std::optional<int> measured_;
};

// What a thread of this process has had of the processors so far, as the scheduler counts it.
struct CpuUse {
  double ran = 0;     // seconds
  double waited = 0;  // seconds in which it could have run, and others did
  CpuUse operator-(const CpuUse& before) const {
    return {ran - before.ran, waited - before.waited};
  }
};
CpuUse cpu_use_of(pid_t thread);

}  // namespace baton::router
