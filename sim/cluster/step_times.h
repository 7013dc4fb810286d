#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "common/base/result.h"
#include "common/latency/step_model.h"

namespace baton::sim {

// Step times that were recorded: a CSV file with the header
//   rows,decode_rows,context,attended,outputs,seconds
// and a step a line, counts as latency::StepWork's.
class RecordedSteps {
 public:
  struct Step {
    latency::StepWork work;
    double seconds = 0;
  };

  // kInvalidArgument with `from` and the line.
  static result<RecordedSteps> parse(std::string_view text, std::string_view from);
  static result<RecordedSteps> read(const std::filesystem::path& path);

  const std::vector<Step>& steps() const { return steps_; }
  void append(const RecordedSteps& other);

 private:
  std::vector<Step> steps_;
};

// Of a cluster: of each worker its own, or of all the same.
class StepRecordings {
 public:
  // A file; or a folder with steps-WORKER.csv for each worker, as `baton up --record` writes it.
  // kIo, or kInvalidArgument with the file and the line.
  static result<StepRecordings> read(const std::filesystem::path& path);

  // Of a worker without a file of its own: those of all.
  const RecordedSteps& of(const std::string& worker) const;

 private:
  RecordedSteps all_;
  std::map<std::string, RecordedSteps> by_worker_;
};

// What the steps of one worker take. By the costs of a profile; or, where steps were recorded, what
// a step of the same counts took: those of equal counts in turn, in the order recorded. A step
// whose counts were never recorded takes what the costs say, times how far they were off for that
// recorded step of its kind whose time by the costs is nearest. A value; one a worker.
class StepTimes {
 public:
  explicit StepTimes(const latency::StepCosts& costs) : costs_(costs) {}
  StepTimes(const latency::StepCosts& costs, const RecordedSteps& recorded);

  Duration of(const latency::StepWork& work);

 private:
  using Counts = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t, uint64_t>;
  struct Same {
    std::vector<Duration> took;
    size_t next = 0;
  };
  static Counts counts_of(const latency::StepWork& work);
  double correction(const latency::StepWork& work, Duration by_costs) const;

  latency::StepCosts costs_;
  std::map<Counts, Same> recorded_;
  // By kind: what the costs say, and actual over that.
  std::array<std::map<Duration, double>, latency::kNumStepKinds> ratios_;
};

}  // namespace baton::sim
