#include "router/discovery/service_place.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

TEST(ServicePlaceTest, IsANamespaceAServiceAndPerhapsAPort) {
  const auto place = parse_service_place("baton/baton-decode:9000");
  ASSERT_TRUE(place);
  EXPECT_EQ(place->name_space, "baton");
  EXPECT_EQ(place->service, "baton-decode");
  EXPECT_EQ(place->port, "9000");
  EXPECT_EQ(parse_service_place("a/b:rpc")->port, "rpc");
  EXPECT_EQ(parse_service_place("a/b")->service, "b");
  EXPECT_EQ(parse_service_place("a/b")->port, "");
}

TEST(ServicePlaceTest, WhatIsWrongIsRefusedByName) {
  for (const char* wrong :
       {"",      "/",      ":",       "/:",    "a",         "a:1",          "a:1/b",
        "a/",    "/b",     "a/b:",    "a/b:0", "a/b:65536", "a/b:99999999", "A/b",
        "a/b/c", "a/../b", "a/b:r?x", "a/b&c", "-a/b",      "a/b:1:2"}) {
    const auto place = parse_service_place(wrong);
    ASSERT_FALSE(place) << wrong;
    EXPECT_EQ(place.error().message.find("'" + std::string(wrong) + "' is not NAMESPACE/SERVICE"),
              0u)
        << place.error().message;
  }
}

}  // namespace
}  // namespace baton::router
