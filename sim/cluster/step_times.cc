#include "sim/cluster/step_times.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sim/cluster/csv.h"
#include "sim/timeline.h"

namespace baton::sim {
namespace {

constexpr std::string_view kHeader = "rows,decode_rows,context,attended,outputs,seconds";
constexpr double kLongestStep = 3600;

}  // namespace

result<RecordedSteps> RecordedSteps::parse(std::string_view text, std::string_view from) {
  RecordedSteps out;
  CsvReader csv(text, from);
  BATON_TRY(const bool any, csv.next());
  if (!any || csv.line() != kHeader) return csv.bad(fmt::format("is not the header '{}'", kHeader));
  while (true) {
    BATON_TRY(const bool more, csv.next());
    if (!more) break;
    BATON_CHECK_OK(csv.expect_fields(6));
    Step step;
    latency::StepWork& w = step.work;
    const std::array<uint64_t*, 5> counts{&w.rows, &w.decode_rows, &w.context, &w.attended,
                                          &w.outputs};
    for (size_t i = 0; i < counts.size(); ++i) {
      BATON_TRY(*counts[i], csv.whole(i, 1ull << 50));
    }
    BATON_TRY(step.seconds, csv.number(5));
    if (w.rows == 0 || w.decode_rows > w.rows) return csv.bad("has no rows, or more decode rows");
    if (step.seconds <= 0 || step.seconds > kLongestStep) return csv.bad("has no step's time");
    out.steps_.push_back(step);
  }
  if (out.steps_.empty()) return csv.bad("is the end, and there was no step");
  return out;
}

result<RecordedSteps> RecordedSteps::read(const std::filesystem::path& path) {
  BATON_TRY(const std::string text, read_text(path));
  return parse(text, path.string());
}

void RecordedSteps::append(const RecordedSteps& other) {
  steps_.insert(steps_.end(), other.steps_.begin(), other.steps_.end());
}

// In the order of their names, so that it is the same everywhere.
result<StepRecordings> StepRecordings::read(const std::filesystem::path& path) {
  constexpr std::string_view kPrefix = "steps-", kSuffix = ".csv";
  StepRecordings out;
  std::error_code ec;
  if (!std::filesystem::is_directory(path, ec)) {
    BATON_TRY(out.all_, RecordedSteps::read(path));
    return out;
  }
  for (const auto& entry : std::filesystem::directory_iterator(path, ec)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    BATON_TRY(RecordedSteps steps, RecordedSteps::read(entry.path()));
    const size_t length = name.size() - kPrefix.size() - kSuffix.size();
    out.by_worker_[name.substr(kPrefix.size(), length)] = std::move(steps);
  }
  if (ec) return error(Errc::kIo, path.string() + ": " + ec.message());
  if (out.by_worker_.empty()) {
    return error(Errc::kInvalidArgument, path.string() + " has no file steps-WORKER.csv");
  }
  for (const auto& [worker, steps] : out.by_worker_) out.all_.append(steps);
  return out;
}

const RecordedSteps& StepRecordings::of(const std::string& worker) const {
  const auto it = by_worker_.find(worker);
  return it == by_worker_.end() ? all_ : it->second;
}

StepTimes::StepTimes(const latency::StepCosts& costs, const RecordedSteps& recorded)
    : costs_(costs) {
  for (const RecordedSteps::Step& step : recorded.steps()) {
    const Duration took = from_seconds(step.seconds);
    recorded_[counts_of(step.work)].took.push_back(took);
    const Duration by_costs = latency::step_time(costs_, step.work);
    if (by_costs <= Duration::zero()) continue;
    ratios_[static_cast<size_t>(step.work.kind())].emplace(by_costs,
                                                           to_seconds(took) / to_seconds(by_costs));
  }
}

StepTimes::Counts StepTimes::counts_of(const latency::StepWork& w) {
  return {w.rows, w.decode_rows, w.context, w.attended, w.outputs};
}

Duration StepTimes::of(const latency::StepWork& work) {
  if (!recorded_.empty()) {
    const auto same = recorded_.find(counts_of(work));
    if (same != recorded_.end())
      return same->second.took[same->second.next++ % same->second.took.size()];
  }
  const Duration by_costs = latency::step_time(costs_, work);
  return recorded_.empty() ? by_costs
                           : from_seconds(to_seconds(by_costs) * correction(work, by_costs));
}

double StepTimes::correction(const latency::StepWork& work, Duration by_costs) const {
  const auto& ratios = ratios_[static_cast<size_t>(work.kind())];
  if (ratios.empty()) return 1;
  auto nearest = ratios.lower_bound(by_costs);
  if (nearest == ratios.end()) return std::prev(nearest)->second;
  if (nearest != ratios.begin() &&
      by_costs - std::prev(nearest)->first < nearest->first - by_costs) {
    --nearest;
  }
  return nearest->second;
}

}  // namespace baton::sim
