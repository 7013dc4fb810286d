#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace baton::latency {

// What a step costs, in seconds per count of StepWork:
//
//   T = fixed + row·rows + row_beyond·max(0, rows − ridge_rows)
//         + context_token·context + attended_pair·attended + output·outputs
//
// Where it comes from. The matrix products of a step read all weights once, in time W, and compute
// k for each row; of the two the longer counts (the roofline, Williams et al. 2009), and
//   max(W, k·rows) = W + k·max(0, rows − W/k),
// so W is in `fixed`, k is `row_beyond` and W/k is `ridge_rows`: linear in what is fitted. A step
// of decode rows and a prompt chunk is one step with the rows of both, so its weights are read
// once. Attention reads the KV of each sequence (`context`, what decode waits for) and computes
// each pair (`attended`, what prefill waits for); DistServe (Zhong et al. 2024, appendix A) and
// Vidur (Agrawal et al. 2024) have the same terms. `row` is what grows below the ridge, too
// (norms, copies, and products that are no perfect roofline); `output` the head and the draw.
struct StepCosts {
  double fixed = 0;          // a step; above 0
  double row = 0;            // a row
  double row_beyond = 0;     // a row beyond ridge_rows, on top
  double context_token = 0;  // a token of KV that is read
  double attended_pair = 0;  // a pair of row and token
  double output = 0;         // a row with logits and a draw
  double ridge_rows = 0;     // rows; a constant of device and model, which no fit changes

  friend bool operator==(const StepCosts&, const StepCosts&) = default;
};

// A transfer of n bytes alone on the link takes latency + n·byte.
struct LinkCosts {
  double latency = 0;  // seconds a transfer
  double byte = 0;     // seconds a byte; above 0
  friend bool operator==(const LinkCosts&, const LinkCosts&) = default;
};

// One model on one device, as measured once: the prior of a fit, and what emulated workers take.
struct Profile {
  std::string name;
  std::string source;               // where the figures come from, for people
  uint32_t kv_bytes_per_token = 0;  // of the model: all layers, K and V; above 0
  StepCosts step;
  LinkCosts link;

  friend bool operator==(const Profile&, const Profile&) = default;
};

// Reads the YAML (or JSON) file that to_yaml() writes; its keys carry their units. All but `source`
// must be there, each finite, not negative and within reason; unknown ones are refused. Blocks on
// the disk. kIo, or kInvalidArgument with the file and the key.
result<Profile> read_profile(const std::filesystem::path& path);
// The same of a text; `from` stands for the file in errors.
result<Profile> parse_profile(std::string_view text, std::string_view from);
std::string to_yaml(const Profile& profile);

}  // namespace baton::latency
