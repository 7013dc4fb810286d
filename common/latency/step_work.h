#pragma once

#include <cstdint>

namespace baton::latency {

enum class StepKind : uint8_t { kPrefill, kDecode, kMixed };
inline constexpr size_t kNumStepKinds = 3;

// What one step of an engine has to do, in counts. Counts of two parts of one step add.
struct StepWork {
  uint64_t rows = 0;  // tokens computed
  uint64_t decode_rows =
      0;                  // how many of them are of running sequences; says only which kind it is
  uint64_t context = 0;   // tokens of KV read: the sum over sequences of all tokens up to the last
  uint64_t attended = 0;  // pairs of a row and a token it attends to
  uint64_t outputs = 0;   // rows whose logits are computed and from which a token is drawn

  // Rows [cached, cached + tokens) of one prompt. `outputs`: 1 if its last row is among them.
  static constexpr StepWork prefill(uint64_t tokens, uint64_t cached, uint64_t outputs = 1) {
    return {.rows = tokens,
            .context = cached + tokens,
            .attended = tokens * cached + tokens * (tokens + 1) / 2,
            .outputs = outputs};
  }
  // One row of each of `sequences`, which have `context` tokens together, that row included.
  static constexpr StepWork decode(uint64_t sequences, uint64_t context) {
    return {.rows = sequences,
            .decode_rows = sequences,
            .context = context,
            .attended = context,
            .outputs = sequences};
  }

  constexpr StepWork& operator+=(const StepWork& o) {
    rows += o.rows;
    decode_rows += o.decode_rows;
    context += o.context;
    attended += o.attended;
    outputs += o.outputs;
    return *this;
  }
  friend constexpr StepWork operator+(StepWork a, const StepWork& b) { return a += b; }

  constexpr StepKind kind() const {
    if (decode_rows == 0) return StepKind::kPrefill;
    return decode_rows == rows ? StepKind::kDecode : StepKind::kMixed;
  }
};

}  // namespace baton::latency
