#include "router/dispatch/choice_stream.h"

#include <algorithm>
#include <utility>

namespace baton::router {

bool ChoiceStream::accept(proto::TokenEvent&& event, std::vector<proto::TokenEvent>& ready) {
  if (event.index() >= max_tokens_) return false;
  if (ended() || event.index() < delivered_.size()) return true;
  if (event.index() > delivered_.size()) {
    const auto at = std::ranges::lower_bound(early_, event.index(), {}, &proto::TokenEvent::index);
    if (at == early_.end() || at->index() != event.index()) early_.insert(at, std::move(event));
    return true;
  }
  delivered_.push_back(event.token());
  ready.push_back(std::move(event));
  size_t taken = 0;
  while (taken < early_.size() && early_[taken].index() == delivered_.size()) {
    delivered_.push_back(early_[taken].token());
    ready.push_back(std::move(early_[taken++]));
  }
  early_.erase(early_.begin(), early_.begin() + static_cast<long>(taken));
  return true;
}

bool ChoiceStream::accept_next(const proto::TokenEvent& event) {
  const bool next = event.index() == delivered_.size() && event.index() < max_tokens_;
  if (!next || !early_.empty() || ended()) return false;
  delivered_.push_back(event.token());
  return true;
}

void ChoiceStream::finish(ChoiceEnd end, uint32_t output_tokens) {
  if (end_ || closed_) return;
  end_ = end;
  output_tokens_ = output_tokens;
}

void ChoiceStream::rewind() {
  early_.clear();
  if (!ended()) end_.reset();
}

}  // namespace baton::router
