#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>

namespace baton::kvtransfer {

// Which of the reads that are open at one owner is asked for next, and how far. Each read is a
// stream of bytes; all take turns, so that a long one delays a short one by a turn of each other
// and by what is asked for already, which is never more than a window. Pure.
class ReadTurns {
 public:
  // Asks for the bytes of `read` before `end` that were not asked for yet.
  struct Turn {
    uint64_t read = 0;
    uint64_t end = 0;
    bool first = false;  // nothing of it was asked for before
  };

  ReadTurns(uint64_t turn_bytes, uint64_t window_bytes)
      : turn_bytes_(turn_bytes), window_bytes_(window_bytes) {}

  // A read of so many bytes, at least one.
  void open(uint64_t read, uint64_t bytes);
  // None if the window is full, or nothing is left to ask for.
  std::optional<Turn> next();
  // So many bytes of it have come. False, and nothing changed, if they were not asked for.
  bool arrived(uint64_t read, uint64_t bytes);
  // It is asked for no further. True: it never was, and is forgotten. False: what was asked for may
  // still come, and is in the window until it has or the read is forgotten.
  bool close(uint64_t read);
  // Nothing of it comes any more.
  void forget(uint64_t read);

  uint64_t under_way() const { return under_way_; }  // bytes

 private:
  struct Read {
    uint64_t bytes = 0;    // 0..end of what is wanted
    uint64_t asked = 0;    // of these, so many
    uint64_t arrived = 0;  // of these, so many
  };

  const uint64_t turn_bytes_, window_bytes_;
  std::unordered_map<uint64_t, Read> reads_;
  std::deque<uint64_t> waiting_;  // with something left to ask for, or closed meanwhile
  uint64_t under_way_ = 0;
};

}  // namespace baton::kvtransfer
