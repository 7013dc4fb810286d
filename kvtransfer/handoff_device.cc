#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kvtransfer/handoff_driver_impl.h"

// Reads in a GPU's memory: a turn of each at a time, a few turns at once.
namespace baton::kvtransfer {

status Driver::watch_device() {
  any_ = Descriptor(::epoll_create1(EPOLL_CLOEXEC));
  for (const int fd : {transport_->event_fd(), device_->event_fd()}) {
    epoll_event readable{.events = EPOLLIN, .data = {}};
    if (any_.get() < 0 || ::epoll_ctl(any_.get(), EPOLL_CTL_ADD, fd, &readable) != 0) {
      return error(Errc::kIo, std::string("waiting for a GPU's reads: ") + std::strerror(errno));
    }
  }
  return {};
}

// What comes behind it waits until its turn has ended: then others are before it.
void Driver::start_device_turn(PendingRead pending, DeviceMapId from, TimePoint now) {
  const KvRange part = take_part(pending, config_.device_read_bytes, kMaxDeviceCells);
  const StartRead& read = pending.read;
  const uint32_t block_tokens = config_.layout.block_tokens;
  device_blocks_.clear();
  for (uint32_t at = part.token_begin; at < part.token_end; at += block_tokens) {
    device_blocks_.push_back(
        {.from = read.source_blocks[(at - read.range.token_begin) / block_tokens],
         .to = read.blocks[(at - read.first_token) / block_tokens],
         .position = at,
         .num_tokens = std::min(block_tokens, part.token_end - at)});
  }
  const uint64_t cookie = read.cookie;
  const status started =
      device_->start(from, {cookie, part.layer_begin, part.layer_end, device_blocks_});
  if (!started) return fail_read(cookie, started.error(), now);
  device_turns_.emplace(cookie, std::move(pending));
}

void Driver::poll_device(TimePoint now) {
  device_->poll(device_ends_);
  const std::vector<DeviceReadEnd> ends = std::exchange(device_ends_, {});
  for (const DeviceReadEnd& end : ends) {
    on_device_end(end, now);
    run(now);
  }
}

void Driver::on_device_end(const DeviceReadEnd& end, TimePoint now) {
  auto node = device_turns_.extract(end.cookie);
  PendingRead& pending = node.mapped();
  const StartRead& read = pending.read;
  if (!end.digest) return fail_read(end.cookie, end.digest.error(), now);
  pending.digest_sum += *end.digest;
  if (pending.copied_to == read.range.token_end) {
    end_read(read, config_.verify_digests ? pending.digest_sum : read.announced_digest, now);
  } else if (pending.given_up) {
    fail_read(end.cookie, error(Errc::kCancelled, "given up"), now);
  } else {
    pending_reads_.push_back(std::move(pending));
  }
}

}  // namespace baton::kvtransfer
