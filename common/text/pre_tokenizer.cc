#include "common/text/pre_tokenizer.h"

#include "common/text/utf8.h"

namespace baton::text {
namespace {

// Adds the parts of one text, in order, joined as the behavior says.
class Pieces {
 public:
  Pieces(const PreTokenizer::Split& step, std::vector<std::string_view>& out)
      : behavior_(step.behavior), invert_(step.invert), out_(out) {}

  void add(std::string_view part, bool matched) {
    if (part.empty()) return;
    matched ^= invert_;
    switch (behavior_) {
      case SplitBehavior::kIsolated:
        out_.push_back(part);
        break;
      case SplitBehavior::kRemoved:
        if (!matched) out_.push_back(part);
        break;
      case SplitBehavior::kMergedWithPrevious:
        join_if(matched && any_ && !before_matched_, part);
        break;
      case SplitBehavior::kMergedWithNext:
        join_if(!matched && any_ && before_matched_, part);
        break;
      case SplitBehavior::kContiguous:
        join_if(any_ && matched == before_matched_, part);
        break;
    }
    any_ = true;
    before_matched_ = matched;
  }

 private:
  void join_if(bool join, std::string_view part) {
    if (join) {
      out_.back() = {out_.back().data(), out_.back().size() + part.size()};
    } else {
      out_.push_back(part);
    }
  }

  const SplitBehavior behavior_;
  const bool invert_;
  std::vector<std::string_view>& out_;
  bool any_ = false, before_matched_ = false;
};

status split_one(const PreTokenizer::Split& step, std::string_view text, Regex::Scratch& scratch,
                 std::vector<std::string_view>& out) {
  Pieces pieces(step, out);
  size_t done = 0, from = 0;
  while (from <= text.size()) {
    BATON_TRY(const auto match, step.regex.find(text, from, scratch));
    if (!match) break;
    const bool empty = match->end == match->begin;  // only cuts; go on behind the next character
    if (empty && match->end == text.size()) break;
    pieces.add(text.substr(done, match->begin - done), false);
    pieces.add(text.substr(match->begin, match->end - match->begin), true);
    done = match->end;
    from = empty ? done + utf8_length(text[done]) : done;
  }
  pieces.add(text.substr(done), false);
  return {};
}

}  // namespace

std::string_view gpt2_pattern() {
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
}

std::string PreTokenizer::prepare(std::string_view text, bool at_front) const {
  std::string out;
  for (char c : text) {
    if (c == ' ' && !space.empty()) {
      out += space;
    } else {
      out += c;
    }
  }
  const bool wanted =
      prepend.when == Prefix::kAlways || (prepend.when == Prefix::kFirst && at_front);
  if (wanted && !out.starts_with(prepend.text)) out.insert(0, prepend.text);
  return out;
}

status PreTokenizer::split(std::string_view text, Regex::Scratch& scratch,
                           std::vector<std::string_view>& pieces) const {
  pieces.clear();
  if (!text.empty()) pieces.push_back(text);
  std::vector<std::string_view> before;
  for (const Split& step : splits) {
    before.swap(pieces);
    pieces.clear();
    for (std::string_view piece : before) BATON_CHECK_OK(split_one(step, piece, scratch, pieces));
  }
  return {};
}

}  // namespace baton::text
