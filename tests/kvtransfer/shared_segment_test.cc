#include "kvtransfer/shared_segment.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "kvtransfer/host_buffer.h"

namespace baton::kvtransfer {
namespace {

constexpr size_t kBytes = 3u << 20;

// Another process finds it by its number, though it is marked to go with its last user.
TEST(SharedSegment, IsSharedWithWhoKnowsItsNumber) {
  const result<HostBuffer> buffer = allocate_host_buffer(kBytes, Sharing::kRanks);
  ASSERT_TRUE(buffer) << buffer.error().message;
  std::byte* const here = buffer->get();
  const result<int> number = segment_at(here);
  ASSERT_TRUE(number) << number.error().message;
  here[7] = std::byte{42};
  const pid_t child = fork();
  if (child == 0) {
    const auto there = attach_segment(*number, kBytes);
    const bool sees = there && there->get() != here && there->get()[7] == std::byte{42};
    if (sees) there->get()[kBytes - 1] = std::byte{43};
    _exit(sees ? 0 : 1);
  }
  int how = 0;
  ASSERT_EQ(waitpid(child, &how, 0), child);
  EXPECT_EQ(how, 0);
  EXPECT_EQ(here[kBytes - 1], std::byte{43});
}

TEST(SharedSegment, EndsWithItsLastUser) {
  result<HostBuffer> buffer = allocate_host_buffer(kBytes, Sharing::kRanks);
  const int number = *segment_at(buffer->get());
  EXPECT_FALSE(attach_segment(number, kBytes * 8)) << "smaller than that";
  buffer->reset();
  EXPECT_FALSE(attach_segment(number, kBytes));
}

TEST(SharedSegment, OtherMemoryIsNone) {
  std::vector<std::byte> memory(kBytes);
  EXPECT_FALSE(segment_at(memory.data()));
  const result<HostBuffer> buffer = allocate_host_buffer(kBytes, Sharing::kRanks);
  EXPECT_FALSE(segment_at(buffer->get() + 4096)) << "not its start";
}

}  // namespace
}  // namespace baton::kvtransfer
