#include "router/discovery/slice_set.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

using Addresses = std::vector<std::string>;

EndpointSlice slice(const std::string& name, bool is_v6, Addresses addresses) {
  EndpointSlice made;
  made.name = name;
  made.is_v6 = is_v6;
  made.addresses = std::move(addresses);
  return made;
}

TEST(SliceSetTest, SaysEachAddressOnceAndOneFamily) {
  SliceSet set;
  set.put(slice("six", true, {"[fd00::1]:1"}));
  EXPECT_EQ(set.endpoints().addresses, Addresses{"[fd00::1]:1"});
  set.put(slice("a", false, {"10.0.0.2:1", "10.0.0.1:1"}));
  set.put(slice("b", false, {"10.0.0.2:1"}));
  EXPECT_EQ(set.endpoints().addresses, (Addresses{"10.0.0.1:1", "10.0.0.2:1"}));
  set.put(slice("a", false, {}));  // replaced, not added to
  EXPECT_EQ(set.endpoints().addresses, Addresses{"10.0.0.2:1"});
  set.erase("b");
  EXPECT_EQ(set.endpoints().addresses, Addresses{"[fd00::1]:1"});
  EXPECT_EQ(set.endpoints().left_out.endpoints, 0u);
}

TEST(SliceSetTest, SaysWhatIsLeftOutOfItsSlices) {
  SliceSet set;
  EndpointSlice bad = slice("a", false, {"10.0.0.1:1"});
  bad.left_out.add(2, "why");
  set.put(bad);
  EXPECT_EQ(set.endpoints().addresses, Addresses{"10.0.0.1:1"});
  EXPECT_EQ(set.endpoints().left_out.endpoints, 2u);
  EXPECT_EQ(set.endpoints().left_out.why, "why");
  set.erase("a");
  EXPECT_EQ(set.endpoints().left_out.endpoints, 0u);
  EXPECT_EQ(set.endpoints().left_out.why, "");
}

TEST(SliceSetTest, HasABoundAndSaysWhatIsBeyondIt) {
  SliceSet set;
  for (size_t i = 0; i < SliceSet::kMostSlices; ++i) {
    set.put(slice(std::to_string(i), false, {"10.0.0.1:" + std::to_string(i)}));
  }
  EXPECT_EQ(set.endpoints().addresses.size(), SliceSet::kMostSlices);
  EXPECT_EQ(set.endpoints().left_out.endpoints, 0u);
  set.put(slice("more", false, {"10.0.0.2:1", "10.0.0.3:1"}));
  EXPECT_EQ(set.endpoints().addresses.size(), SliceSet::kMostSlices);
  EXPECT_EQ(set.endpoints().left_out.endpoints, 2u);
  EXPECT_NE(set.endpoints().left_out.why.find("1024 slices"), std::string::npos);
  set.put(slice("0", false, {}));  // known: there is room for it
  EXPECT_EQ(set.endpoints().addresses.size(), SliceSet::kMostSlices - 1);
  set.clear();
  EXPECT_EQ(set.endpoints().left_out.endpoints, 0u);
}

TEST(SliceSetTest, AddressesHaveABoundToo) {
  SliceSet set;
  Addresses many;
  for (size_t i = 0; i < SliceSet::kMostAddresses + 3; ++i) many.push_back(std::to_string(i));
  set.put(slice("a", false, many));
  EXPECT_EQ(set.endpoints().addresses.size(), SliceSet::kMostAddresses);
  EXPECT_EQ(set.endpoints().left_out.endpoints, 3u);
  EXPECT_NE(set.endpoints().left_out.why.find("1024 addresses"), std::string::npos);
}

}  // namespace
}  // namespace baton::router
