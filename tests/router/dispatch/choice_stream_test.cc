#include "router/dispatch/choice_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace baton::router {
namespace {

proto::TokenEvent event(uint32_t index) {
  proto::TokenEvent event;
  event.set_index(index);
  event.set_token(static_cast<TokenId>(100 + index));
  return event;
}

TEST(ChoiceStream, AnyOrderAndAnyRepetitionGivesEachTokenOnceInOrder) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> indices;
    for (uint32_t i = 0; i < 20; ++i) {
      for (uint32_t k = 0; k <= random() % 3; ++k) indices.push_back(i);
    }
    std::shuffle(indices.begin(), indices.end(), random);
    ChoiceStream stream(20);
    std::vector<proto::TokenEvent> ready;
    for (const uint32_t i : indices) EXPECT_TRUE(stream.accept(event(i), ready));
    ASSERT_EQ(ready.size(), 20u);
    for (uint32_t i = 0; i < 20; ++i) EXPECT_EQ(ready[i].index(), i);
    EXPECT_EQ(stream.delivered().size(), 20u);
  }
}

TEST(ChoiceStream, TakesTheNextOneAloneOnlyIfNothingElseFollowsFromIt) {
  ChoiceStream stream(3);
  std::vector<proto::TokenEvent> ready;
  EXPECT_TRUE(stream.accept_next(event(0)));
  EXPECT_FALSE(stream.accept_next(event(0))) << "a double";
  EXPECT_FALSE(stream.accept_next(event(2))) << "early";
  EXPECT_TRUE(stream.accept(event(2), ready));
  EXPECT_FALSE(stream.accept_next(event(1))) << "the early one is to come behind it";
  EXPECT_TRUE(stream.accept(event(1), ready));
  EXPECT_EQ(ready.size(), 2u);
  EXPECT_FALSE(stream.accept_next(event(3))) << "beyond max_tokens";
  EXPECT_EQ(stream.delivered(), (std::vector<TokenId>{100, 101, 102}));
  stream.close();
  EXPECT_FALSE(stream.accept_next(event(3)));
}

TEST(ChoiceStream, AnIndexBeyondMaxTokensIsRefused) {
  ChoiceStream stream(3);
  std::vector<proto::TokenEvent> ready;
  EXPECT_FALSE(stream.accept(event(3), ready));
  EXPECT_TRUE(stream.accept(event(2), ready));
  EXPECT_TRUE(ready.empty());
}

TEST(ChoiceStream, EndsOnlyWhenAllIsDelivered) {
  ChoiceStream stream(5);
  std::vector<proto::TokenEvent> ready;
  stream.finish({proto::FINISH_STOP, 101}, 2);
  EXPECT_FALSE(stream.ended());
  stream.accept(event(1), ready);
  EXPECT_FALSE(stream.ended());
  stream.accept(event(0), ready);
  EXPECT_TRUE(stream.ended());
  stream.accept(event(2), ready);
  EXPECT_EQ(ready.size(), 2u);
}

TEST(ChoiceStream, RewindForgetsWhatWasNotDelivered) {
  ChoiceStream stream(5);
  std::vector<proto::TokenEvent> ready;
  stream.accept(event(0), ready);
  stream.accept(event(2), ready);
  stream.finish({}, 4);
  stream.rewind();
  stream.accept(event(1), ready);
  EXPECT_EQ(ready.size(), 2u);  // 2 must come again
  EXPECT_FALSE(stream.end());
}

}  // namespace
}  // namespace baton::router
