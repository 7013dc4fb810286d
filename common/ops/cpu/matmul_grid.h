#pragma once

#include <algorithm>
#include <cstdint>

namespace baton::ops {

// How a product's output is cut into tasks: row blocks by cache, column chunks by threads; never
// over k.
struct MatmulGrid {
  static constexpr int64_t kMaxBlockRows = 256;

  // A row of activations has so many bytes.
  MatmulGrid(int64_t rows, int64_t row_bytes, int64_t panels, int64_t threads)
      : rows(rows), panels(panels) {
    constexpr int64_t kRowBlockBytes = 384 << 10;  // activations that stay in L2 beside a panel
    constexpr int64_t kMinBlockRows = 24;
    constexpr int64_t kTasksPerThread = 3;  // evens out threads that are disturbed
    const int64_t block_rows = std::clamp(kRowBlockBytes / row_bytes, kMinBlockRows, kMaxBlockRows);
    row_blocks = (rows + block_rows - 1) / block_rows;
    if (threads == 1) return;
    const int64_t wanted = (kTasksPerThread * threads + row_blocks - 1) / row_blocks;
    chunks = std::clamp<int64_t>(wanted, 1, panels);
    ahead = threads;
  }

  int64_t tasks() const { return row_blocks * chunks; }

  // A rectangle of the output, computed by one thread.
  struct Tile {
    int64_t row_begin, row_end;
    int64_t panel_begin, panel_end;
    int64_t panel_after;  // where this thread is likely to go on; -1 if nowhere
  };
  Tile tile(int64_t task) const {
    const int64_t r = task / chunks, c = task % chunks;
    const int64_t after = c + ahead;  // chunks are claimed in turn
    return {.row_begin = rows * r / row_blocks,
            .row_end = rows * (r + 1) / row_blocks,
            .panel_begin = panels * c / chunks,
            .panel_end = panels * (c + 1) / chunks,
            .panel_after = after < chunks ? panels * after / chunks : -1};
  }

  int64_t rows, panels;
  int64_t row_blocks = 1, chunks = 1, ahead = 1;
};

// The rows of a tile in groups of nearly equal size, at most `most` each.
struct RowGroups {
  RowGroups(int64_t rows, int64_t most)
      : count((rows + most - 1) / most), small(rows / count), large(rows % count) {}
  int64_t size(int64_t group) const { return group < large ? small + 1 : small; }

  int64_t count;
  int64_t small, large;  // the first `large` have one more than `small`
};

}  // namespace baton::ops
