#include "kvtransfer/shared_segment.h"

#include <fmt/format.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include <cerrno>
#include <cstring>

#include "kvtransfer/memory_map.h"

namespace baton::kvtransfer {
namespace {

constexpr int kOwnerOnly = 0600;

std::byte* attach(int number) {
  void* const at = ::shmat(number, nullptr, 0);
  return at == reinterpret_cast<void*>(-1) ? nullptr : static_cast<std::byte*>(at);
}

}  // namespace

result<std::byte*> make_segment(size_t bytes) {
  const int number = ::shmget(IPC_PRIVATE, bytes, IPC_CREAT | kOwnerOnly);
  std::byte* const at = number < 0 ? nullptr : attach(number);
  const int why = errno;
  if (number >= 0) (void)::shmctl(number, IPC_RMID, nullptr);  // gone with its last process
  if (at != nullptr) return at;
  return error(Errc::kResourceExhausted,
               fmt::format("the system gives no {} bytes of System V shared memory: {}", bytes,
                           std::strerror(why)));
}

result<int> segment_at(const void* address) {
  const int64_t number = segment_number(address);
  if (number >= 0) return static_cast<int>(number);
  return error(
      Errc::kUnavailable,
      "the cache is not in System V shared memory, which the ranks of a worker share it by");
}

void keep_to_owner(const void* address) {
  const int64_t number = segment_number(address);
  shmid_ds about{};
  if (number < 0 || ::shmctl(static_cast<int>(number), IPC_STAT, &about) != 0) return;
  about.shm_perm.mode = kOwnerOnly;
  (void)::shmctl(static_cast<int>(number), IPC_SET, &about);
}

void Detach::operator()(std::byte* p) const { (void)::shmdt(p); }

result<Attached> attach_segment(int number, size_t bytes) {
  Attached attached(attach(number));
  if (!attached) {
    return error(Errc::kUnavailable,
                 fmt::format("cannot attach shared memory {}: {}", number, std::strerror(errno)));
  }
  if (const uint64_t there = mapped_bytes_from(attached.get()); there < bytes) {
    return error(Errc::kInvalidArgument,
                 fmt::format("shared memory {} has {} bytes, not {}", number, there, bytes));
  }
  return attached;
}

}  // namespace baton::kvtransfer
