#include "sim/cluster/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <charconv>
#include <cmath>
#include <numeric>

#include "sim/cluster/csv.h"
#include "sim/cluster/draw.h"
#include "sim/cluster/phases.h"

namespace baton::sim {
namespace {

constexpr uint32_t kMostTokens = 1u << 24;  // of one request
constexpr uint32_t kMooncakeBlock = 512;
constexpr size_t kMostEntries = 20'000'000;
constexpr uint32_t kDrawnEntries = 20'000;

uint32_t at_least_one(uint64_t tokens) {
  return static_cast<uint32_t>(std::max<uint64_t>(tokens, 1));
}

// Digits of a fixed width; false if they are none.
bool digits(std::string_view text, size_t at, size_t width, int64_t& value) {
  if (at + width > text.size()) return false;
  const char* const begin = text.data() + at;
  if (*begin < '0' || *begin > '9') return false;
  const auto [end, ec] = std::from_chars(begin, begin + width, value);
  return ec == std::errc() && end == begin + width;
}

// "2023-11-16 18:17:03.9799600"; the fraction may be missing or of up to 9 digits.
bool parse_timestamp(std::string_view text, Duration& out) {
  int64_t year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  const bool date =
      digits(text, 0, 4, year) && digits(text, 5, 2, month) && digits(text, 8, 2, day);
  const bool time =
      digits(text, 11, 2, hour) && digits(text, 14, 2, minute) && digits(text, 17, 2, second);
  if (!date || !time || text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':') {
    return false;
  }
  if (hour > 23 || minute > 59 || second > 60) return false;
  const std::chrono::year_month_day ymd{std::chrono::year(static_cast<int>(year)),
                                        std::chrono::month(static_cast<unsigned>(month)),
                                        std::chrono::day(static_cast<unsigned>(day))};
  if (!ymd.ok()) return false;
  int64_t nanos = 0;
  if (text.size() > 19) {
    const size_t width = text.size() - 20;
    if (text[19] != '.' || width == 0 || width > 9 || !digits(text, 20, width, nanos)) return false;
    for (size_t i = width; i < 9; ++i) nanos *= 10;
  }
  out = std::chrono::sys_days(ymd).time_since_epoch() + std::chrono::hours(hour) +
        std::chrono::minutes(minute) + seconds(second) + std::chrono::nanoseconds(nanos);
  return true;
}

status full(const CsvReader& lines, const TraceFile& trace) {
  if (trace.entries.size() < kMostEntries) return {};
  return lines.bad(fmt::format("is more than {} requests", kMostEntries));
}

// In the order of their arrival, from the first one's.
void settle_arrivals(TraceFile& trace) {
  std::ranges::stable_sort(trace.entries, {}, &TraceFile::Entry::at);
  const Duration first = trace.entries.front().at;
  for (TraceFile::Entry& e : trace.entries) e.at -= first;
}

result<TraceFile> parse_azure(CsvReader& csv) {
  TraceFile trace{.has_arrivals = true};
  while (true) {
    BATON_TRY(const bool more, csv.next());
    if (!more) break;
    BATON_CHECK_OK(csv.expect_fields(3));
    BATON_CHECK_OK(full(csv, trace));
    TraceFile::Entry e;
    if (!parse_timestamp(csv.field(0), e.at)) return csv.bad("has no time in its first field");
    BATON_TRY(const uint64_t input, csv.whole(1, kMostTokens));
    BATON_TRY(const uint64_t output, csv.whole(2, kMostTokens));
    e.input_tokens = at_least_one(input);
    e.output_tokens = at_least_one(output);
    trace.entries.push_back(e);
  }
  return trace;
}

result<TraceFile> parse_lengths(CsvReader& csv) {
  TraceFile trace;
  const size_t fields = csv.num_fields();
  while (true) {
    BATON_TRY(const bool more, csv.next());
    if (!more) break;
    BATON_CHECK_OK(csv.expect_fields(fields));
    BATON_CHECK_OK(full(csv, trace));
    BATON_TRY(const uint64_t input, csv.whole(0, kMostTokens));
    BATON_TRY(const uint64_t output, csv.whole(1, kMostTokens));
    trace.entries.push_back({{}, at_least_one(input), at_least_one(output), 0, 0});
  }
  return trace;
}

result<uint64_t> member(const CsvReader& lines, const boost::json::object& object,
                        std::string_view key, uint64_t most) {
  const boost::json::value* const value = object.if_contains(key);
  boost::system::error_code ec;
  const auto number = value == nullptr ? 0 : value->to_number<uint64_t>(ec);
  if (value == nullptr || ec || number > most) {
    return lines.bad(fmt::format("has no '{}' that is a whole number of at most {}", key, most));
  }
  return number;
}

status add_mooncake(const CsvReader& lines, TraceFile& trace) {
  boost::system::error_code ec;
  const boost::json::value value = boost::json::parse(lines.line(), ec);
  if (ec || !value.is_object()) return lines.bad("is no JSON object");
  const boost::json::object& object = value.get_object();
  constexpr uint64_t kMostMs = 1ull << 40;
  TraceFile::Entry e;
  BATON_TRY(const uint64_t ms, member(lines, object, "timestamp", kMostMs));
  BATON_TRY(const uint64_t input, member(lines, object, "input_length", kMostTokens));
  BATON_TRY(const uint64_t output, member(lines, object, "output_length", kMostTokens));
  e.at = milliseconds(ms);
  e.input_tokens = at_least_one(input);
  e.output_tokens = at_least_one(output);
  e.first_block = trace.blocks.size();
  const boost::json::value* const ids = object.if_contains("hash_ids");
  if (ids == nullptr || !ids->is_array()) return lines.bad("has no list 'hash_ids'");
  for (const boost::json::value& id : ids->get_array()) {
    const auto number = id.to_number<uint64_t>(ec);
    if (ec) return lines.bad("has a hash id that is no whole number");
    trace.blocks.push_back(number);
  }
  e.num_blocks = trace.blocks.size() - e.first_block;
  if (e.num_blocks != (uint64_t{e.input_tokens} + kMooncakeBlock - 1) / kMooncakeBlock) {
    return lines.bad(fmt::format("has {} hash ids for {} tokens", e.num_blocks, e.input_tokens));
  }
  trace.entries.push_back(e);
  return {};
}

result<TraceFile> parse_mooncake(CsvReader& lines) {
  TraceFile trace{.has_arrivals = true, .block_tokens = kMooncakeBlock};
  for (bool more = true; more;) {
    BATON_CHECK_OK(full(lines, trace));
    BATON_CHECK_OK(add_mooncake(lines, trace));
    BATON_TRY(more, lines.next());
  }
  return trace;
}

result<TraceFile> drawn(const std::string& what, bool fixed) {
  const std::string_view numbers = std::string_view(what).substr(what.find(':') + 1);
  CsvReader csv(numbers, what);
  BATON_TRY(const bool any, csv.next());
  if (!any || csv.num_fields() != 2) {
    return error(Errc::kInvalidArgument, fmt::format("the trace '{}' is not of the form {}:IN,OUT",
                                                     what, fixed ? "fixed" : "lengths"));
  }
  BATON_TRY(const uint64_t input, csv.whole(0, kMostTokens / 16));
  BATON_TRY(const uint64_t output, csv.whole(1, kMostTokens / 16));
  TraceFile trace;
  Random random(1);
  const auto draw = [&](uint64_t mean) {
    return fixed ? at_least_one(mean) : log_normal_length(random, static_cast<double>(mean));
  };
  for (uint32_t i = 0; i < (fixed ? 1 : kDrawnEntries); ++i) {
    const uint32_t in = draw(input), out = draw(output);
    trace.entries.push_back({{}, in, out, 0, 0});
  }
  return trace;
}

}  // namespace

result<TraceFile> parse_trace(std::string_view text, std::string_view from) {
  CsvReader csv(text, from);
  BATON_TRY(const bool any, csv.next());
  if (!any) return csv.bad("is the end: the trace is empty");
  const std::string_view head = csv.line();
  result<TraceFile> trace = csv.bad("is the beginning of no known kind of trace");
  if (head == "TIMESTAMP,ContextTokens,GeneratedTokens") {
    trace = parse_azure(csv);
  } else if (head.starts_with("num_prefill_tokens,num_decode_tokens")) {
    trace = parse_lengths(csv);
  } else if (head.starts_with("{")) {
    trace = parse_mooncake(csv);
  }
  if (!trace) return trace;
  if (trace->entries.empty()) return csv.bad("is the end: the trace has no request");
  settle_arrivals(*trace);
  trace->name = from;
  return trace;
}

result<TraceFile> read_trace(const std::string& what) {
  if (what.starts_with("phases:")) return phases_trace(what);
  const bool fixed = what.starts_with("fixed:");
  if (fixed || what.starts_with("lengths:")) {
    BATON_TRY(TraceFile trace, drawn(what, fixed));
    trace.name = what;
    return trace;
  }
  BATON_TRY(const std::string text, read_text(what));
  return parse_trace(text, what);
}

uint32_t TraceFile::longest_output() const {
  return std::ranges::max_element(entries, {}, &Entry::output_tokens)->output_tokens;
}

double TraceFile::mean_input() const {
  double sum = 0;
  for (const Entry& e : entries) sum += e.input_tokens;
  return sum / static_cast<double>(entries.size());
}

double TraceFile::mean_output() const {
  double sum = 0;
  for (const Entry& e : entries) sum += e.output_tokens;
  return sum / static_cast<double>(entries.size());
}

}  // namespace baton::sim
