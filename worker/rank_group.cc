#include "worker/rank_group.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/child_process.h"
#include "common/base/log.h"
#include "common/engine/step_codec.h"
#include "worker/compute.h"

namespace baton::worker {
namespace {

constexpr milliseconds kAttach{120'000};
constexpr milliseconds kEnd{5'000};
constexpr milliseconds kSeeWhy{500};

}  // namespace

result<std::unique_ptr<RankGroup>> RankGroup::start(const proto::RankSetup& setup,
                                                    device::Device& device) {
  std::unique_ptr<RankGroup> group(new RankGroup);
  group->size_ = setup.size();
  for (uint32_t number = 1; number < setup.size(); ++number) {
    BATON_CHECK_OK(group->spawn(setup, number));
  }
  BATON_TRY(group->collective_, connect_ranks(setup, device, [&](const std::string& mine) {
              return group->exchange(mine);
            }));
  return group;
}

status RankGroup::spawn(const proto::RankSetup& setup, uint32_t number) {
  BATON_TRY(auto line, RankChannel::make());
  auto& [ours, theirs] = line;
  BATON_TRY(const pid_t pid, spawn_self({"rank", "--fd", std::to_string(theirs.fd())},
                                        {.inherit = {theirs.fd()}, .death_signal = SIGKILL}));
  Rank& rank =
      *ranks_.emplace_back(new Rank{.number = number, .pid = pid, .channel = std::move(ours)});
  proto::RankSetup its = setup;
  its.set_rank(number);
  if (const status sent = rank.channel.send(RankFrame::kSetup, its.SerializeAsString(), kRankStart);
      !sent) {
    return about(rank, sent.error());
  }
  return {};
}

RankGroup::~RankGroup() {
  for (auto& rank : ranks_) {
    rank->watched.reset();
    rank->channel = RankChannel(-1);  // for a rank the end of its work
  }
  // A GPU that waits for a rank that is gone would keep it for a while.
  const bool lost = !collective_ || !collective_->health();
  for (auto& rank : ranks_) {
    if (lost && rank->ended.empty()) ::kill(rank->pid, SIGKILL);
  }
  collective_.reset();
  for (auto& rank : ranks_) {
    if (rank->ended.empty()) rank->ended = await_child(rank->pid, kEnd);
  }
}

// Everybody's word to everybody.
result<std::vector<std::string>> RankGroup::exchange(const std::string& mine) {
  proto::RankAddresses all;
  all.add_said(mine);
  for (auto& rank : ranks_) {
    const auto said = rank->channel.expect(RankFrame::kAddresses, kRankStart);
    if (!said) return about(*rank, said.error());
    all.add_said(std::string(said->text()));
  }
  for (auto& rank : ranks_) {
    if (const status sent =
            rank->channel.send(RankFrame::kAddresses, all.SerializeAsString(), kRankStart);
        !sent) {
      return about(*rank, sent.error());
    }
  }
  return std::vector<std::string>(all.said().begin(), all.said().end());
}

status RankGroup::await_ready(milliseconds patience) {
  for (auto& rank : ranks_) {
    const auto ready = rank->channel.expect(RankFrame::kReady, patience);
    if (!ready) return about(*rank, ready.error());
  }
  return {};
}

status RankGroup::await_loaded() { return await_ready(kRankLoad); }

status RankGroup::attach(const proto::RankCache& cache) {
  for (auto& rank : ranks_) {
    if (const status sent =
            rank->channel.send(RankFrame::kCache, cache.SerializeAsString(), kAttach);
        !sent) {
      return about(*rank, sent.error());
    }
  }
  return await_ready(kAttach);
}

status RankGroup::tell(const engine::StepBatch& batch) {
  engine::encode(batch, &step_);
  for (auto& rank : ranks_) {
    if (const status sent = rank->channel.send(RankFrame::kStep, step_, kRankStep); !sent) {
      return about(*rank, sent.error());
    }
  }
  return {};
}

Error RankGroup::about(const Rank& rank, const Error& why) const {
  return error(why.code, fmt::format("rank {} of {} (process {}): {}", rank.number, size_, rank.pid,
                                     why.message));
}

status RankGroup::watch(boost::asio::io_context& io, std::function<void()> lost) {
  lost_ = std::move(lost);
  for (auto& rank : ranks_) {
    const int fd = ::dup(rank->channel.fd());  // Asio closes what it is given
    if (fd < 0) return error(Errc::kIo, std::string("dup: ") + std::strerror(errno));
    rank->watched = std::make_unique<boost::asio::posix::stream_descriptor>(io, fd);
    watch(*rank);
  }
  return {};
}

// A rank at work says nothing until it fails: whatever comes is its end.
void RankGroup::watch(Rank& rank) {
  rank.watched->async_wait(boost::asio::posix::stream_descriptor::wait_read,
                           [this](boost::system::error_code ec) {
                             if (ec) return;  // being destroyed
                             if (lost_) std::exchange(lost_, nullptr)();
                           });
}

const Error& RankGroup::ended(Rank& rank) {
  if (rank.why) return *rank.why;
  std::string said;
  if (const auto message = rank.channel.receive(kSeeWhy); message && *message) {
    said = fmt::format(": {}", (*message)->text());
  }
  if (rank.ended.empty()) rank.ended = await_child(rank.pid, kEnd);
  rank.why = about(rank, error(Errc::kUnavailable, fmt::format("ended {}{}", rank.ended, said)));
  return *rank.why;
}

Error RankGroup::why_lost(const Error& otherwise) {
  std::vector<pollfd> lines;
  for (const auto& rank : ranks_) {
    lines.push_back({.fd = rank->channel.fd(), .events = POLLIN, .revents = 0});
  }
  if (::poll(lines.data(), lines.size(), static_cast<int>(kSeeWhy.count())) <= 0) return otherwise;
  std::optional<Error> first;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].revents == 0) continue;
    const Error& why = ended(*ranks_[i]);
    if (ranks_[i]->ended.starts_with("by signal")) return why;
    if (!first) first = why;
  }
  return *first;
}

}  // namespace baton::worker
