// NCCL itself between two processes, a GPU each; on a machine with one GPU both take that, which
// NCCL 2.30 and newer allow with NCCL_MULTI_RANK_GPU_ENABLE=1. Skipped where there is no GPU, or no
// NCCL (BATON_TEST_NCCL names its file, else libnccl.so.2).
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "common/collective/nccl_collective.h"
#include "common/device/cuda/cuda_device.h"

namespace baton::collective {
namespace {

constexpr uint32_t kRanks = 2, kRounds = 16;

// What processes have to say to each other, in memory that they share.
struct Said {
  std::atomic<uint32_t> came[kRounds];
  uint32_t length[kRounds][kRanks];
  char text[kRounds][kRanks][1024];
  char outcome[kRanks][1024];  // empty: all was well
};

Exchange exchange_of(Said* said, uint32_t rank) {
  return [said, rank,
          round = 0u](const std::string& mine) mutable -> result<std::vector<std::string>> {
    const uint32_t at = round++;
    if (at == kRounds || mine.size() > sizeof(said->text[0][0])) {
      return error(Errc::kResourceExhausted, "too much is said");
    }
    std::memcpy(said->text[at][rank], mine.data(), mine.size());
    said->length[at][rank] = static_cast<uint32_t>(mine.size());
    ++said->came[at];
    const TimePoint end = Clock::now() + seconds(60);
    while (said->came[at] < kRanks) {
      if (Clock::now() > end) return error(Errc::kDeadlineExceeded, "the other does not come");
      std::this_thread::sleep_for(milliseconds(1));
    }
    std::vector<std::string> all;
    for (uint32_t r = 0; r < kRanks; ++r) {
      all.emplace_back(said->text[at][r], said->length[at][r]);
    }
    return all;
  };
}

// One of the ranks, in a process of its own.
struct Rank {
  uint32_t number = 0;
  std::unique_ptr<device::Device> device;
  std::unique_ptr<Collective> ranks;

  device::Buffer upload(device::Stream& stream, const std::vector<std::byte>& from) const {
    device::Buffer to = device->allocate(from.size()).value();
    device->copy(stream, to.data(), from.data(), from.size());
    stream.synchronize();
    return to;
  }
  std::vector<std::byte> download(device::Stream& stream, const std::byte* from,
                                  size_t bytes) const {
    std::vector<std::byte> to(bytes);
    device->copy(stream, to.data(), from, bytes);
    stream.synchronize();
    return to;
  }
};
using Body = std::function<std::string(Rank&)>;  // what went wrong; empty: nothing

// "-": why it is not tested.
std::string run_rank(uint32_t number, Said* said, milliseconds timeout, const Body& body) {
  Rank rank{.number = number};
  const auto gpus = device::count_cuda_devices();
  if (!gpus || *gpus == 0) return "-" + (gpus ? "there is no GPU" : gpus.error().message);
  auto device = device::make_cuda_device(static_cast<int>(number) % *gpus);
  if (!device) return "-" + device.error().message;
  rank.device = std::move(*device);
  const char* const library = std::getenv("BATON_TEST_NCCL");
  auto ranks = connect_nccl(number, kRanks, exchange_of(said, number), timeout,
                            {.library = library == nullptr ? "libnccl.so.2" : library,
                             .device = rank.device.get(),
                             .native_stream = device::native_stream});
  if (!ranks) {
    const std::string& why = ranks.error().message;
    const bool is_absent = why.find("cannot be loaded") != std::string::npos ||
                           why.find("same GPU") != std::string::npos ||
                           why.find("uplicate GPU") != std::string::npos;
    return (is_absent ? "-" : "") + why;
  }
  rank.ranks = std::move(*ranks);
  return body(rank);
}

class NcclOnGpus : public testing::Test {
 protected:
  // This process never meets CUDA: after that it could not fork.
  void run(const Body& body, milliseconds timeout = milliseconds(20000)) {
    void* const memory =
        ::mmap(nullptr, sizeof(Said), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    auto* const said = new (memory) Said{};
    pid_t pids[kRanks] = {};
    for (uint32_t r = 0; r < kRanks; ++r) {
      pids[r] = ::fork();
      ASSERT_GE(pids[r], 0);
      if (pids[r] != 0) continue;
      const std::string outcome = run_rank(r, said, timeout, body);
      std::snprintf(said->outcome[r], sizeof(said->outcome[r]), "%s", outcome.c_str());
      std::_Exit(0);
    }
    for (uint32_t r = 0; r < kRanks; ++r) {
      int status = 0;
      ASSERT_EQ(::waitpid(pids[r], &status, 0), pids[r]);
      ended_[r] = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      outcome_[r] = said->outcome[r];
    }
    ::munmap(memory, sizeof(Said));
    for (const std::string& outcome : outcome_) {
      if (outcome.starts_with('-')) GTEST_SKIP() << "not tested: " << outcome.substr(1);
    }
  }

  std::string outcome_[kRanks];
  int ended_[kRanks] = {};
};

std::vector<std::byte> some_bytes(size_t count, uint32_t seed) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 31 + i / 251 + seed);
  return bytes;
}

std::string gathers(Rank& rank) {
  const auto stream = rank.device->make_stream();
  // A row of a small model up to a prompt's activations; equal and not, aligned and not.
  const std::vector<std::array<size_t, kRanks>> sizes = {
      {64, 64},           {1152, 1152},    {768, 384},         {7, 1001},
      {1 << 20, 1 << 20}, {5'000'000, 16}, {16 << 20, 8 << 20}};
  uint32_t round = 0;
  for (const auto& bytes : sizes) {
    for (int again = 0; again < 3; ++again, ++round) {
      std::vector<std::byte> expected;
      for (uint32_t r = 0; r < kRanks; ++r) {
        const auto part = some_bytes(bytes[r], round * 10 + r);
        expected.insert(expected.end(), part.begin(), part.end());
      }
      const device::Buffer part =
          rank.upload(*stream, some_bytes(bytes[rank.number], round * 10 + rank.number));
      const device::Buffer all = rank.device->allocate(expected.size()).value();
      rank.ranks->all_gather(*stream, part.data(), bytes, all.data());
      const auto got = rank.download(*stream, all.data(), expected.size());
      if (!rank.ranks->health()) return rank.ranks->health().error().message;
      if (got != expected) return "other bytes of " + std::to_string(expected.size());
    }
  }
  return {};
}

TEST_F(NcclOnGpus, GatherParts) {
  run(gathers);
  if (IsSkipped()) return;
  for (const std::string& outcome : outcome_) EXPECT_EQ(outcome, "");
}

// As decode passes are: recorded once, launched with other contents, mixed with what is not.
std::string recorded_gathers(Rank& rank) {
  const auto stream = rank.device->make_stream();
  for (const auto& bytes :
       std::vector<std::array<size_t, kRanks>>{{1152, 1152}, {768, 384}, {65536, 32768}}) {
    const size_t sum = bytes[0] + bytes[1];
    const device::Buffer part = rank.device->allocate(bytes[rank.number]).value();
    const device::Buffer all = rank.device->allocate(sum).value();
    const device::Buffer copy = rank.device->allocate(sum).value();
    const auto enqueue = [&] {
      rank.ranks->all_gather(*stream, part.data(), bytes, all.data());
      rank.device->copy(*stream, copy.data(), all.data(), sum);
      rank.ranks->all_gather(*stream, part.data(), bytes, all.data());
    };
    enqueue();
    stream->synchronize();
    stream->begin_capture();
    enqueue();
    const auto graph = stream->end_capture();
    if (graph == nullptr) return "a gather cannot be recorded";
    for (uint32_t round = 0; round < 20; ++round) {
      const auto mine = some_bytes(bytes[rank.number], round * 10 + rank.number);
      rank.device->copy(*stream, part.data(), mine.data(), mine.size());
      if (round % 5 == 4) {
        enqueue();
      } else {
        stream->launch(*graph);
      }
      std::vector<std::byte> expected;
      for (uint32_t r = 0; r < kRanks; ++r) {
        const auto theirs = some_bytes(bytes[r], round * 10 + r);
        expected.insert(expected.end(), theirs.begin(), theirs.end());
      }
      if (rank.download(*stream, copy.data(), sum) != expected ||
          rank.download(*stream, all.data(), sum) != expected) {
        return "other bytes in round " + std::to_string(round);
      }
    }
  }
  return {};
}

TEST_F(NcclOnGpus, RecordedGathersGiveTheSame) {
  run(recorded_gathers);
  if (IsSkipped()) return;
  for (const std::string& outcome : outcome_) EXPECT_EQ(outcome, "");
}

// A stream that waits for a rank that has died comes to its end, and all is known to be lost.
std::string dies(Rank& rank) {
  const auto stream = rank.device->make_stream();
  const size_t bytes[] = {4096, 4096};
  const device::Buffer part = rank.device->allocate(bytes[0]).value();
  const device::Buffer all = rank.device->allocate(2 * bytes[0]).value();
  rank.ranks->all_gather(*stream, part.data(), bytes, all.data());
  stream->synchronize();
  if (rank.number == 1) std::_Exit(3);
  const TimePoint begun = Clock::now();
  rank.ranks->tell_under_way(true);
  rank.ranks->all_gather(*stream, part.data(), bytes, all.data());
  stream->synchronize();
  rank.ranks->tell_under_way(false);
  if (rank.ranks->health()) return "nobody has noticed";
  const double took = to_seconds(Clock::now() - begun);
  return took < 12 ? "" : "it took " + std::to_string(took) + " s";
}

TEST_F(NcclOnGpus, ARankThatDiesIsNotAwaitedForEver) {
  run(dies, milliseconds(3000));
  if (IsSkipped()) return;
  EXPECT_EQ(ended_[1], 3);
  EXPECT_EQ(ended_[0], 0);
  EXPECT_EQ(outcome_[0], "");
}

}  // namespace
}  // namespace baton::collective
