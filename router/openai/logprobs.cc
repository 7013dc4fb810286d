#include "router/openai/logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "router/openai/json_writer.h"

namespace baton::router {
namespace {

void append_chat_token(std::string& out, std::string_view bytes, float logprob) {
  out += R"("token":)";
  append_json_string(out, bytes);
  out += R"(,"logprob":)";
  append_json_float(out, logprob);
  out += R"(,"bytes":)";
  append_json_bytes(out, bytes);
}

// An object cannot have a key twice: of alternatives that read the same, the likelier one stays.
// Parts of different characters do: each reads as U+FFFD.
void append_alternatives(std::string& out, const TokenScore& score) {
  std::vector<std::string> keys;
  out += '{';
  const auto append = [&](std::string_view bytes, float logprob) {
    std::string key;
    append_json_string(key, bytes);
    if (std::ranges::find(keys, key) != keys.end()) return;
    if (!keys.empty()) out += ',';
    out += key;
    out += ':';
    append_json_float(out, logprob);
    keys.push_back(std::move(key));
  };
  for (const auto& [bytes, logprob] : score.top) append(bytes, logprob);
  append(score.bytes, *score.logprob);
  out += '}';
}

// A list, one element a score.
template <class Append>
void append_list(std::string& out, std::string_view name, const std::vector<TokenScore>& scores,
                 Append append) {
  out += '"';
  out += name;
  out += "\":[";
  for (size_t i = 0; i < scores.size(); ++i) {
    if (i > 0) out += ',';
    append(scores[i]);
  }
  out += ']';
}

}  // namespace

void append_chat_logprobs(std::string& out, const std::vector<TokenScore>& scores) {
  out += '{';
  append_list(out, "content", scores, [&](const TokenScore& score) {
    out += '{';
    append_chat_token(out, score.bytes, score.logprob.value_or(0));
    out += R"(,"top_logprobs":[)";
    for (size_t i = 0; i < score.top.size(); ++i) {
      out += i > 0 ? ",{" : "{";
      append_chat_token(out, score.top[i].first, score.top[i].second);
      out += '}';
    }
    out += "]}";
  });
  out += R"(,"refusal":null})";
}

void append_completion_logprobs(std::string& out, const std::vector<TokenScore>& scores) {
  out += '{';
  append_list(out, "tokens", scores,
              [&](const TokenScore& score) { append_json_string(out, score.bytes); });
  out += ',';
  append_list(out, "token_logprobs", scores, [&](const TokenScore& score) {
    score.logprob ? append_json_float(out, *score.logprob) : void(out += "null");
  });
  out += ',';
  append_list(out, "top_logprobs", scores, [&](const TokenScore& score) {
    score.logprob ? append_alternatives(out, score) : void(out += "null");
  });
  out += ',';
  append_list(out, "text_offset", scores, [&](const TokenScore& score) {
    fmt::format_to(std::back_inserter(out), "{}", score.text_offset);
  });
  out += '}';
}

}  // namespace baton::router
