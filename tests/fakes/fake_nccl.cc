// NCCL's C interface between threads of one process, on host memory: a call returns when all have
// come, or when its communicator is aborted, as a GPU's stream would go on then.
#include "tests/fakes/fake_nccl.h"

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr int kSuccess = 0, kInvalidUsage = 5;

struct UniqueId {
  std::array<char, 128> bytes;
};

// One collective call of all ranks.
struct Call {
  std::vector<const void*> from;
  size_t came = 0, left = 0;
};

struct Clique {
  size_t size = 0, joined = 0;
  std::map<uint64_t, Call> calls;  // by their number
};

struct Comm {
  std::shared_ptr<Clique> clique;
  size_t rank = 0;
  uint64_t next = 0;
  bool aborted = false;
};

// All of it under one lock. Never destroyed: a rank may be left waiting at the process's end.
std::mutex& mutex = *new std::mutex;
std::condition_variable& changed = *new std::condition_variable;
std::map<std::string, std::shared_ptr<Clique>> cliques;
std::map<int, int> async_errors, refusals;
std::map<std::string, int> counts;
void* stream_of_last = nullptr;
int ids = 0;

thread_local int group_depth = 0;
thread_local std::vector<std::function<int()>> group;

// Waits for all ranks' parts, has them copied, and waits until nobody needs this one's.
int meet(Comm* comm, const void* mine, const std::function<void(const Call&)>& copy) {
  std::unique_lock lock(mutex);
  const uint64_t number = comm->next++;
  Clique& clique = *comm->clique;
  Call& call = clique.calls[number];
  call.from.resize(clique.size);
  call.from[comm->rank] = mine;
  ++call.came;
  changed.notify_all();
  changed.wait(lock, [&] { return comm->aborted || call.came == clique.size; });
  if (comm->aborted) return kSuccess;  // it was enqueued; what it left means nothing
  copy(call);
  ++call.left;
  changed.notify_all();
  changed.wait(lock, [&] { return comm->aborted || call.left == clique.size; });
  return kSuccess;
}

int enqueue(const char* name, void* stream, std::function<int()> call) {
  {
    const std::lock_guard lock(mutex);
    ++counts[name];
    stream_of_last = stream;
  }
  if (group_depth == 0) return call();
  group.push_back(std::move(call));
  return kSuccess;
}

const baton::fakes::FakeNcclControl control = {
    .set_async_error =
        [](int rank, int error) {
          const std::lock_guard lock(mutex);
          async_errors[rank] = error;
        },
    .refuse_next_init =
        [](int rank, int error) {
          const std::lock_guard lock(mutex);
          refusals[rank] = error;
        },
    .count =
        [](const char* call) {
          const std::lock_guard lock(mutex);
          return counts[call];
        },
    .last_stream =
        [] {
          const std::lock_guard lock(mutex);
          return stream_of_last;
        },
};

}  // namespace

extern "C" {

const baton::fakes::FakeNcclControl* fake_nccl_control() { return &control; }

int ncclGetVersion(int* version) {
  *version = 22003;
  return kSuccess;
}
int ncclGetUniqueId(UniqueId* id) {
  const std::lock_guard lock(mutex);
  id->bytes.fill('\0');
  const std::string text = "clique " + std::to_string(ids++);
  std::memcpy(id->bytes.data(), text.data(), text.size());
  return kSuccess;
}
int ncclCommInitRank(Comm** comm, int size, UniqueId id, int rank) {
  std::unique_lock lock(mutex);
  if (const int refused = std::exchange(refusals[rank], kSuccess); refused != kSuccess) {
    return refused;
  }
  std::shared_ptr<Clique>& clique = cliques[id.bytes.data()];
  if (clique == nullptr) clique = std::make_shared<Clique>();
  clique->size = static_cast<size_t>(size);
  ++clique->joined;
  changed.notify_all();
  auto* const made = new Comm{.clique = clique, .rank = static_cast<size_t>(rank)};
  changed.wait(lock, [&] { return made->clique->joined == made->clique->size; });
  *comm = made;
  return kSuccess;
}
// Left for good: who still waits in a call looks at it.
int ncclCommAbort(Comm* comm) {
  const std::lock_guard lock(mutex);
  ++counts["ncclCommAbort"];
  comm->aborted = true;
  changed.notify_all();
  return kSuccess;
}
int ncclCommGetAsyncError(Comm* comm, int* error) {
  const std::lock_guard lock(mutex);
  *error = async_errors[static_cast<int>(comm->rank)];
  return kSuccess;
}
int ncclAllGather(const void* part, void* all, size_t count, int, Comm* comm, void* stream) {
  return enqueue("ncclAllGather", stream, [=] {
    return meet(comm, part, [&](const Call& call) {
      for (size_t r = 0; r < call.from.size(); ++r) {
        std::memcpy(static_cast<std::byte*>(all) + r * count, call.from[r], count);
      }
    });
  });
}
int ncclBroadcast(const void* from, void* to, size_t count, int, int root, Comm* comm,
                  void* stream) {
  return enqueue("ncclBroadcast", stream, [=] {
    return meet(comm, from, [&](const Call& call) {
      std::memmove(to, call.from[static_cast<size_t>(root)], count);
    });
  });
}
int ncclGroupStart() {
  ++group_depth;
  return kSuccess;
}
int ncclGroupEnd() {
  if (group_depth == 0) return kInvalidUsage;
  if (--group_depth > 0) return kSuccess;
  const auto calls = std::exchange(group, {});
  for (const auto& call : calls) {
    if (const int result = call(); result != kSuccess) return result;
  }
  return kSuccess;
}
const char* ncclGetErrorString(int result) { return result == 6 ? "remote error" : "some error"; }
const char* ncclGetLastError(Comm*) { return "told by the fake\n"; }

}  // extern "C"
