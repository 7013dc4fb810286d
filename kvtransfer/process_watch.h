#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace baton::kvtransfer {

// One descriptor to wait on: some others' events, or the end of one of some processes of this pid
// namespace. The kernel tells the latter at once, which shared memory never does.
class ProcessWatch {
 public:
  ProcessWatch();  // fd() is -1 if the system refuses
  ~ProcessWatch();
  ProcessWatch(const ProcessWatch&) = delete;
  ProcessWatch& operator=(const ProcessWatch&) = delete;

  int fd() const { return epoll_; }
  // `fd` stays the caller's and outlives this. False: the system refuses.
  bool add_descriptor(int fd);
  // False: there is no such process. What cannot be watched is not, and that is no error.
  bool add(uint64_t id, int64_t pid);
  void remove(uint64_t id);
  // Appends the ids whose process has ended since; each once. Never blocks.
  void ended(std::vector<uint64_t>& ids);

 private:
  int epoll_ = -1;
  std::map<uint64_t, int> pidfds_;
};

}  // namespace baton::kvtransfer
