#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "tests/model/goldens.h"
#include "tests/model/model_under_test.h"

namespace baton::model {
namespace {

using testing::ElementsAre;

constexpr std::byte kUntouched{0xa5};

// Notes at each layer which layers of the cache have been written, as a device inline shows them.
class Watch final : public LayerObserver {
 public:
  Watch(const kvcache::KvCache& cache, uint32_t rows) : cache_(cache), rows_(rows) {}

  void layer_done(device::Stream&, uint32_t layer) override {
    layers.push_back(layer);
    for (uint32_t l = 0; l < cache_.layout().num_layers(); ++l) {
      EXPECT_EQ(written(l), l <= layer) << "layer " << l << " when " << layer << " is told";
    }
  }

  // Whether every K and V vector of the rows is there; none or all must be.
  bool written(uint32_t layer) const {
    const kvcache::KvLayout& layout = cache_.layout();
    uint32_t vectors = 0, touched = 0;
    for (uint32_t plane = 0; plane < 2; ++plane) {
      for (uint32_t head = 0; head < layout.num_heads(); ++head) {
        for (uint32_t t = 0; t < rows_; ++t) {
          const std::byte* v = cache_.at(BlockId{t / layout.block_tokens}, layer, plane, head,
                                         t % layout.block_tokens);
          ++vectors;
          touched += !std::all_of(v, v + layout.vector_bytes(),
                                  [](std::byte b) { return b == kUntouched; });
        }
      }
    }
    EXPECT_TRUE(touched == 0 || touched == vectors);
    return touched == vectors;
  }

  std::vector<uint32_t> layers;

 private:
  const kvcache::KvCache& cache_;
  uint32_t rows_;
};

class Forward : public testing::Test {
 protected:
  Forward() : m(data_dir() / "llama3", {.num_blocks = 8}) {
    const auto memory = m.cache().memory();
    std::fill(memory.begin(), memory.end(), kUntouched);
    for (uint32_t i = 0; i < kRows; ++i) {
      tokens.push_back(static_cast<TokenId>(i * 3));
      positions.push_back(i);
    }
  }
  ForwardBatch batch(std::span<const OutputRows> outputs) {
    return {tokens, positions, {&sequence, 1}, outputs};
  }

  static constexpr uint32_t kRows = 40;
  ModelUnderTest m;
  std::vector<TokenId> tokens;
  std::vector<uint32_t> positions;
  const std::vector<BlockId> table = ModelUnderTest::blocks(0, 3);
  const ops::SequenceRows sequence = {0, kRows, 0, table.data()};
};

TEST_F(Forward, TellsALayerBeforeTheNextIsComputed) {
  Watch watch(m.cache(), kRows);
  m.model().forward(m.stream(), batch({}), m.cache(), &watch);
  EXPECT_THAT(watch.layers, ElementsAre(0, 1));
}

TEST_F(Forward, WritesNoTokenThatIsNotInTheBatch) {
  m.model().forward(m.stream(), batch({}), m.cache(), nullptr);
  const kvcache::KvLayout& layout = m.cache().layout();
  for (uint32_t t = kRows; t < 3 * layout.block_tokens; ++t) {
    const std::byte* v =
        m.cache().at(BlockId{t / layout.block_tokens}, 1, 1, 1, t % layout.block_tokens);
    EXPECT_EQ(*v, kUntouched) << "token " << t;
  }
  for (uint32_t b = 3; b < 8; ++b) {
    for (const std::byte byte : m.cache().block(BlockId{b})) ASSERT_EQ(byte, kUntouched);
  }
}

// The last layer goes on with outputs only; asking for few of them changes none.
TEST_F(Forward, AnOutputDoesNotDependOnTheOthers) {
  const OutputRows all = {0, 0, kRows};
  m.model().forward(m.stream(), batch({&all, 1}), m.cache(), nullptr);
  const device::Tensor expected = m.model().logits(m.stream(), 0, kRows);
  std::vector<float> rows(expected.as<float>(), expected.as<float>() + kRows * expected.cols);

  const std::vector<OutputRows> few = {{0, 39, 1}, {0, 5, 2}, {0, 39, 1}};
  m.model().forward(m.stream(), batch(few), m.cache(), nullptr);
  const device::Tensor got = m.model().logits(m.stream(), 0, 4);
  const std::vector<int64_t> wanted = {39, 5, 6, 39};
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(
        std::memcmp(got.row<float>(i), rows.data() + wanted[static_cast<size_t>(i)] * got.cols,
                    static_cast<size_t>(got.cols) * sizeof(float)),
        0)
        << "output " << i;
  }
  const device::Tensor one = m.model().logits(m.stream(), 2, 1);
  EXPECT_EQ(std::memcmp(one.row<float>(0), rows.data() + 6 * got.cols,
                        static_cast<size_t>(got.cols) * sizeof(float)),
            0);
}

}  // namespace
}  // namespace baton::model
