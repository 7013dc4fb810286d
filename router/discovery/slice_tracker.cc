#include "router/discovery/slice_tracker.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::router {
namespace {

// So many versions in a row may have expired before it is worth a word.
constexpr uint32_t kEveryday = 3;

Duration part(Duration whole, double share) {
  return Duration(static_cast<Duration::rep>(share * static_cast<double>(whole.count())));
}

}  // namespace

SliceTracker::Ask SliceTracker::next(TimePoint now, double random) {
  watching_since_.reset();
  Ask ask{.watch = !version_.empty(), .target = target(), .watch_for = {}, .at = now};
  if (failures_ > 0 && !no_pause_) {
    const uint32_t doublings = std::min(failures_ - 1, uint32_t{10});
    const Duration pause = std::min<Duration>(kFirstPause * (1 << doublings), kLongestPause);
    ask.at += pause / 2 + part(pause / 2, random);
  }
  no_pause_ = false;
  if (!ask.watch) return ask;
  const Duration spread = kLongestWatch - kShortestWatch;
  ask.watch_for = kShortestWatch + std::chrono::floor<seconds>(part(spread, random));
  ask.target +=
      fmt::format("&watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
                  version_, ask.watch_for.count());
  return ask;
}

std::string SliceTracker::target() const {
  return fmt::format(
      "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
      "?labelSelector=kubernetes.io%2Fservice-name%3D{}",
      place_.name_space, place_.service);
}

status SliceTracker::on_list(std::string_view body, TimePoint now) {
  auto list = parse_slice_list(body, place_);
  if (!list) {
    fail(now);
    return list.error();
  }
  slices_.clear();
  for (EndpointSlice& slice : list->slices) slices_.put(std::move(slice));
  version_ = std::move(list->version);
  // Not the end of a row of failures: lists may work where watches do not.
  listed_ = changed_ = no_pause_ = true;
  return {};
}

status SliceTracker::on_line(std::string_view line, TimePoint now) {
  auto event = parse_slice_event(line, place_);
  if (!event) {  // what that event changed is not known
    expire({}, now);
    return event.error();
  }
  switch (event->kind) {
    case SliceEvent::Kind::kGone:
      return expire("its version has expired: " + event->message, now);
    case SliceEvent::Kind::kError:
      expire({}, now);
      return error(Errc::kUnavailable, "the watch failed: " + event->message);
    case SliceEvent::Kind::kChanged:
      slices_.put(std::move(event->slice));
      changed_ = true;
      break;
    case SliceEvent::Kind::kDeleted:
      slices_.erase(event->slice.name);
      changed_ = true;
      break;
    case SliceEvent::Kind::kBookmark:
      break;
  }
  version_ = std::move(event->version);
  return {};
}

bool SliceTracker::lived(TimePoint now) const {
  return watching_since_ && now - *watching_since_ >= kAWhile;
}

void SliceTracker::fail(TimePoint now) { failures_ = lived(now) ? 1 : failures_ + 1; }

// The addresses stay until the list that follows.
Error SliceTracker::expire(std::string why, TimePoint now) {
  version_.clear();
  fail(now);
  return error(failures_ <= kEveryday ? Errc::kAborted : Errc::kUnavailable, std::move(why));
}

// One that ends at once, again and again, must not become a storm.
void SliceTracker::on_watch_end(TimePoint now) { failures_ = lived(now) ? 0 : failures_ + 1; }

Error SliceTracker::on_lost(std::string why, TimePoint now) {
  const Errc code = lived(now) ? Errc::kAborted : Errc::kUnavailable;
  fail(now);
  return error(code, std::move(why));
}

Error SliceTracker::on_status(unsigned http_status, TimePoint now) {
  if (http_status == 410) return expire("its version has expired (410)", now);
  fail(now);
  switch (http_status) {
    case 401:
      return error(Errc::kUnavailable,
                   "the API server does not know the token (401): is the file that "
                   "--kubernetes-token-file names that of its service account?");
    case 403:
      return error(Errc::kUnavailable,
                   fmt::format("the API server forbids it (403): the router's service account "
                               "needs a Role in the namespace {} with the verbs list and watch on "
                               "endpointslices of discovery.k8s.io",
                               place_.name_space));
    default:
      return error(Errc::kUnavailable,
                   fmt::format("the API server answers with status {}", http_status));
  }
}

std::optional<Endpoints> SliceTracker::take_changed() {
  if (!listed_ || !std::exchange(changed_, false)) return std::nullopt;
  return slices_.endpoints();
}

}  // namespace baton::router
