#include "router/placement/prompt_queue.h"

#include <algorithm>

namespace baton::router {
namespace {

// A report that comes so soon after a prompt was sent was written before it arrived.
constexpr Duration kOnItsWay = milliseconds(2);

}  // namespace

bool PromptQueue::is_news(const Prompt& p) const {
  return !p.sent || p.sent_at + kOnItsWay > reported_at_;
}

void PromptQueue::add(RequestId id, TimePoint due, TimePoint promise, double seconds) {
  const auto at = std::ranges::upper_bound(prompts_, due, {}, &Prompt::due);
  prompts_.insert(at,
                  {.id = id, .due = due, .promise = promise, .seconds = seconds, .sent_at = {}});
  own_ += seconds;
  news_ += seconds;
}

void PromptQueue::sent(RequestId id, TimePoint now) {
  const auto it = std::ranges::find(prompts_, id, &Prompt::id);
  if (it == prompts_.end()) return;
  it->sent = true;
  it->sent_at = now;
}

void PromptQueue::remove(RequestId id) {
  const auto it = std::ranges::find(prompts_, id, &Prompt::id);
  if (it == prompts_.end()) return;
  own_ -= it->seconds;
  if (is_news(*it)) news_ -= it->seconds;
  prompts_.erase(it);
  if (prompts_.empty()) own_ = news_ = 0;  // no rest of rounding
}

void PromptQueue::reported(double seconds, TimePoint now) {
  reported_ = seconds;
  reported_at_ = now;
  news_ = 0;
  for (const Prompt& p : prompts_) {
    if (is_news(p)) news_ += p.seconds;
  }
}

// What was reported has gone on meanwhile. If the worker says nothing of its prompts but has some
// of ours, it has the rest of a step to do: no less than nothing.
double PromptQueue::total(TimePoint now) const {
  const double since = std::max(0.0, to_seconds(now - reported_at_));
  return std::max(0.0, reported_ - since) + std::max(0.0, news_);
}

double PromptQueue::sum_before(size_t end) const {
  double sum = 0;
  for (size_t i = 0; i < end; ++i) sum += prompts_[i].seconds;
  return sum;
}

// The order of others' prompts, and how far the first has come, is not known: all is taken to be
// as ours are.
double PromptQueue::ahead_of(TimePoint due, TimePoint now) const {
  const double all = total(now);
  if (own_ <= 0) return all;
  const auto behind = std::ranges::upper_bound(prompts_, due, {}, &Prompt::due);
  const double before = sum_before(static_cast<size_t>(behind - prompts_.begin()));
  return all * std::min(1.0, before / own_);
}

uint32_t PromptQueue::made_late(TimePoint due, double seconds, TimePoint now) const {
  if (own_ <= 0) return 0;
  const double scale = total(now) / own_;
  uint32_t late = 0;
  double done = 0;
  for (const Prompt& p : prompts_) {
    done += p.seconds * scale;
    if (p.due <= due || p.promise == TimePoint::max()) continue;
    const double left = to_seconds(p.promise - now);
    if (done <= left && done + seconds > left) ++late;
  }
  return late;
}

}  // namespace baton::router
