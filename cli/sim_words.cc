#include "cli/sim_words.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <memory>

#include "sim/timeline.h"

namespace baton::cli {
namespace {

Error bad(std::string what) { return error(Errc::kInvalidArgument, std::move(what)); }

}  // namespace

result<double> parse_number(std::string_view text, const char* option) {
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || !(value > 0) || !(value < 1e9)) {
    return bad(fmt::format("--{} has '{}', which is no number above 0", option, text));
  }
  return value;
}

result<sim::Slo> parse_slo(const std::vector<std::string>& words) {
  sim::Slo slo;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (equals == std::string::npos || (name != "ttft" && name != "tpot")) {
      return bad("--slo is not of the form ttft=SECONDS,tpot=SECONDS");
    }
    BATON_TRY(const double value, parse_number(std::string_view(word).substr(equals + 1), "slo"));
    (name == "ttft" ? slo.ttft : slo.tpot) = from_seconds(value);
  }
  return slo;
}

status write_text(const std::string& path, const std::string& text) {
  if (path.empty()) return {};
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "w"),
                                                             std::fclose);
  if (!file || std::fwrite(text.data(), 1, text.size(), file.get()) != text.size()) {
    return error(Errc::kIo, "cannot write " + path);
  }
  return {};
}

}  // namespace baton::cli
