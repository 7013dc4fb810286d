#include "common/kvcache/digest_cells.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "common/kvcache/digest_place.h"
#include "hwy/highway.h"

namespace baton::kvcache {
namespace {

// The formula of digest.h, vector by vector.
uint64_t expected(const KvLayout& l, const DigestCell& cell) {
  uint64_t sum = 0;
  for (uint32_t plane = 0; plane < 2; ++plane) {
    for (uint32_t head = 0; head < l.num_heads(); ++head) {
      for (uint32_t token = 0; token < cell.num_tokens; ++token) {
        const std::byte* vector =
            cell.from + plane * l.plane_bytes() + head * l.head_bytes() + token * l.vector_bytes();
        const uint64_t seed =
            place_seed(place_bits(cell.layer, plane, l.head_begin + head, cell.position + token));
        for (size_t at = 0; at < l.vector_bytes(); at += 128) {
          sum += XXH3_64bits_withSeed(vector + at, std::min<size_t>(128, l.vector_bytes() - at),
                                      seed + at);
        }
      }
    }
  }
  return sum;
}

// Each test once for each instruction set that this CPU has.
class DigestCells : public ::testing::TestWithParam<bool> {
 protected:
  DigestCells() { choose(GetParam()); }
  ~DigestCells() override { choose(false); }
  static void choose([[maybe_unused]] bool avx2_alone) {
#if HWY_ARCH_X86
    hwy::DisableTargets(avx2_alone ? HWY_AVX2 - 1 : 0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
#endif
  }
  // Vectors of whole and broken parts, in blocks of more and of fewer tokens than there are lanes.
  template <class Check>
  void for_some(const Check& check) {
    for (const uint32_t head_dim : {1u, 16u, 32u, 64u, 80u, 96u, 128u, 192u, 256u}) {
      for (const uint32_t block_tokens : {1u, 4u, 16u, 32u}) {
        KvLayout l = KvLayout::full_kv(3, 1 + random_() % 3, head_dim, DType::kBF16, block_tokens);
        l.head_begin = random_() % 7;
        l.total_heads = l.head_begin + l.num_heads();
        check(l);
      }
    }
  }
  // Some tokens of some layer of each of so many blocks, which lie alike at `from` and at `to`.
  std::vector<DigestCell> some_cells(const KvLayout& l, uint32_t blocks, const std::byte* from,
                                     std::byte* to) {
    std::vector<DigestCell> cells;
    for (uint32_t b = 0; b < blocks; ++b) {
      const uint32_t token = random_() % l.block_tokens, layer = random_() % l.num_layers();
      const size_t at = l.offset(BlockId{b}, layer, 0, 0, token);
      cells.push_back({from + at, to == nullptr ? nullptr : to + at, layer,
                       static_cast<uint32_t>(random_() % 100000),
                       1 + static_cast<uint32_t>(random_() % (l.block_tokens - token))});
    }
    return cells;
  }
  std::vector<std::byte> bytes(size_t n) {
    std::vector<std::byte> out(n);
    for (std::byte& b : out) b = static_cast<std::byte>(random_());
    return out;
  }
  std::mt19937 random_{1};
};

TEST_P(DigestCells, AreTheFormula) {
  for_some([&](const KvLayout& l) {
    const auto memory = bytes(5 * l.block_bytes());
    const auto cells = some_cells(l, 5, memory.data(), nullptr);
    uint64_t sum = 0;
    for (const DigestCell& cell : cells) sum += expected(l, cell);
    EXPECT_EQ(digest_cells(l, cells), sum) << l.to_string();
  });
  EXPECT_EQ(digest_cells(KvLayout::full_kv(1, 1, 64, DType::kBF16, 16), {}), 0u);
}

// At any alignment; nothing else is written.
TEST_P(DigestCells, CopiesAreWhatIsDigested) {
  for_some([&](const KvLayout& l) {
    const auto from = bytes(5 * l.block_bytes());
    const size_t shift = random_() % 3 * 8;
    std::vector<std::byte> memory(5 * l.block_bytes() + 128, std::byte{0xee});
    void* aligned = memory.data();
    size_t space = memory.size();
    std::align(64, 5 * l.block_bytes() + shift, aligned, space);
    std::byte* to = static_cast<std::byte*>(aligned) + shift;
    auto right = memory;
    const auto cells = some_cells(l, 5, from.data(), to);
    uint64_t sum = 0;
    for (const DigestCell& cell : cells) {
      sum += expected(l, cell);
      for (uint32_t run = 0; run < 2 * l.num_heads(); ++run) {
        std::memcpy(right.data() + (cell.to - memory.data()) + run * l.head_bytes(),
                    cell.from + run * l.head_bytes(), cell.num_tokens * l.vector_bytes());
      }
    }
    EXPECT_EQ(copy_digest_cells(l, cells), sum) << l.to_string();
    EXPECT_EQ(memory, right) << l.to_string();
  });
}

INSTANTIATE_TEST_SUITE_P(Isas, DigestCells, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "avx2" : "best"; });

}  // namespace
}  // namespace baton::kvcache
