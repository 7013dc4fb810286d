#include "common/text/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/formats/utf8.h"
#include "common/text/utf8.h"

namespace baton::text {
namespace {

using formats::JsonFields;

Error unsupported(Error e) {
  e.code = Errc::kUnsupported;
  return e;
}

Error unsupported(const JsonFields& fields, std::string_view field, std::string_view value) {
  return unsupported(
      fields.bad(field, fmt::format("is '{}', which is not supported", formats::printable(value))));
}

result<bool> flag(const JsonFields& fields, std::string_view field, bool fallback) {
  if (!fields.has(field)) return fallback;
  return fields.boolean(field);
}

// {"String": s} or {"Regex": r}, both as a pattern; `literal` gets the first kind.
result<Regex> pattern(const JsonFields& step, std::string* literal = nullptr) {
  BATON_TRY(const JsonFields fields, step.fields("pattern"));
  const bool is_literal = fields.has("String");
  const char* field = is_literal ? "String" : "Regex";
  BATON_TRY(const std::string_view text, fields.string(field));
  if (is_literal && text.empty()) return fields.bad(field, "is empty");
  if (is_literal && literal != nullptr) *literal = text;
  auto regex = is_literal ? Regex::literal(text) : Regex::compile(text);
  if (regex) return regex;
  Error e = fields.bad(field, "cannot be used: " + regex.error().message);
  e.code = regex.error().code;
  return e;
}

// Text that a step writes into what is encoded. Longer than any tokenizer has it, it would only
// serve to blow up requests.
result<std::string_view> short_text(const JsonFields& step, std::string_view field) {
  constexpr size_t kMaxBytes = 64;
  BATON_TRY(const std::string_view text, step.string(field));
  if (text.size() > kMaxBytes) {
    return unsupported(step.bad(field, fmt::format("is longer than {} bytes", kMaxBytes)));
  }
  return text;
}

// The steps of `field`: one object, or those inside its Sequence.
template <class AddStep>
status each_step(const JsonFields& root, std::string_view field, std::string_view list,
                 AddStep add_step) {
  if (!root.has(field)) return {};
  BATON_TRY(const JsonFields outer, root.fields(field));
  BATON_TRY(const std::string_view type, outer.string("type"));
  if (type != "Sequence") return add_step(outer, type);
  BATON_TRY(const boost::json::array* steps, outer.array(list));
  constexpr size_t kMaxSteps = 16;
  if (steps->size() > kMaxSteps) {
    return unsupported(outer.bad(list, fmt::format("has more than {} steps", kMaxSteps)));
  }
  for (const auto& value : *steps) {
    BATON_TRY(const JsonFields step,
              JsonFields::root(value, fmt::format("tokenizer.json, a step of {}", field)));
    BATON_TRY(const std::string_view step_type, step.string("type"));
    BATON_CHECK_OK(add_step(step, step_type));
  }
  return {};
}

status add_normalizer(Normalizer& out, const JsonFields& step, std::string_view type) {
  static constexpr std::pair<std::string_view, UnicodeForm> kForms[] = {
      {"NFC", UnicodeForm::kNfc},
      {"NFD", UnicodeForm::kNfd},
      {"NFKC", UnicodeForm::kNfkc},
      {"NFKD", UnicodeForm::kNfkd}};
  for (const auto& [name, form] : kForms) {
    if (type != name) continue;
    out.add(form);
    return {};
  }
  if (type == "Prepend") {
    BATON_TRY(const std::string_view text, short_text(step, "prepend"));
    out.add(Normalizer::Prepend{std::string(text)});
    return {};
  }
  if (type != "Replace") return unsupported(step, "type", type);
  Normalizer::Replace replace;
  BATON_CHECK_OK(pattern(step, &replace.from));
  if (replace.from.empty()) return unsupported(step, "pattern", "Regex");
  BATON_TRY(const std::string_view to, short_text(step, "content"));
  replace.to = to;
  out.add(replace);
  return {};
}

class PreTokenizerReader {
 public:
  status add(const JsonFields& step, std::string_view type) {
    if (out_.byte_level) {
      // What follows would cut the characters that stand for bytes.
      return unsupported(step, "type", fmt::format("{} after ByteLevel", type));
    }
    if (type == "Split") return split(step);
    if (type == "Digits") return digits(step);
    if (type == "ByteLevel") return byte_level(step);
    if (type == "Metaspace") return metaspace(step);
    return unsupported(step, "type", type);
  }
  PreTokenizerJson take() { return std::move(out_); }

 private:
  PreTokenizer& pre() { return out_.pre_tokenizer; }

  status split(const JsonFields& step) {
    BATON_TRY(Regex regex, pattern(step));
    BATON_TRY(const std::string_view behavior, step.string("behavior"));
    BATON_TRY(const bool invert, flag(step, "invert", false));
    static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
        {"Isolated", SplitBehavior::kIsolated},
        {"Removed", SplitBehavior::kRemoved},
        {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
        {"MergedWithNext", SplitBehavior::kMergedWithNext},
        {"Contiguous", SplitBehavior::kContiguous}};
    for (const auto& [name, value] : kBehaviors) {
      if (behavior != name) continue;
      pre().splits.push_back({std::move(regex), value, invert});
      return {};
    }
    return unsupported(step, "behavior", behavior);
  }

  status digits(const JsonFields& step) {
    BATON_TRY(const bool each, flag(step, "individual_digits", false));
    BATON_TRY(Regex regex, Regex::compile(each ? R"(\p{N})" : R"(\p{N}+)"));
    pre().splits.push_back({std::move(regex)});
    return {};
  }

  status byte_level(const JsonFields& step) {
    out_.byte_level = true;
    BATON_TRY(const bool prefix, flag(step, "add_prefix_space", true));
    if (prefix) BATON_CHECK_OK(prepend(step, " ", PreTokenizer::Prefix::kAlways));
    BATON_TRY(const bool use_regex, flag(step, "use_regex", true));
    if (!use_regex) return {};
    BATON_TRY(Regex regex, Regex::compile(gpt2_pattern()));
    pre().splits.push_back({std::move(regex)});
    return {};
  }

  status metaspace(const JsonFields& step) {
    BATON_TRY(const std::string_view space, step.string("replacement"));
    if (space.empty() || space.size() != utf8_length(space.front())) {
      return step.bad("replacement", "is not one character");
    }
    auto when = PreTokenizer::Prefix::kAlways;
    if (step.has("prepend_scheme")) {
      BATON_TRY(const std::string_view scheme, step.string("prepend_scheme"));
      if (scheme == "first") when = PreTokenizer::Prefix::kFirst;
      if (scheme == "never") when = PreTokenizer::Prefix::kNever;
    } else {
      BATON_TRY(const bool prefix, flag(step, "add_prefix_space", true));
      if (!prefix) when = PreTokenizer::Prefix::kNever;
    }
    BATON_CHECK_OK(prepend(step, space, when));
    pre().space = space;
    BATON_TRY(const bool cut, flag(step, "split", true));
    if (!cut) return {};
    BATON_TRY(Regex regex, Regex::literal(space));
    pre().splits.push_back({std::move(regex), SplitBehavior::kMergedWithNext});
    return {};
  }

  // Only in front of everything else: later it would be put before each piece.
  status prepend(const JsonFields& step, std::string_view text, PreTokenizer::Prefix when) {
    if (!pre().splits.empty() || !pre().space.empty()) {
      return unsupported(step, "type", "one that puts a space before each of several pieces");
    }
    pre().prepend = {when, std::string(text)};
    return {};
  }

  PreTokenizerJson out_;
};

}  // namespace

result<Normalizer> read_normalizer(const JsonFields& root) {
  Normalizer out;
  BATON_CHECK_OK(each_step(root, "normalizer", "normalizers",
                           [&out](const JsonFields& step, std::string_view type) {
                             return add_normalizer(out, step, type);
                           }));
  return out;
}

result<PreTokenizerJson> read_pre_tokenizer(const JsonFields& root) {
  PreTokenizerReader reader;
  BATON_CHECK_OK(each_step(
      root, "pre_tokenizer", "pretokenizers",
      [&reader](const JsonFields& step, std::string_view type) { return reader.add(step, type); }));
  return reader.take();
}

}  // namespace baton::text
