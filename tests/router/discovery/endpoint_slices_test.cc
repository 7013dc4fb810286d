#include "router/discovery/endpoint_slices.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using Addresses = std::vector<std::string>;

const ServicePlace kPlace{"baton", "pool", "rpc"};

std::string slice(const std::string& name, const std::string& endpoints,
                  const std::string& type = "IPv4",
                  const std::string& ports = R"([{"name":"metrics","port":9100},)"
                                             R"({"name":"rpc","port":9000}])") {
  return fmt::format(R"({{"metadata":{{"name":"{}","resourceVersion":"7"}},"addressType":"{}",)"
                     R"("endpoints":{},"ports":{}}})",
                     name, type, endpoints, ports);
}

std::string list(const std::string& items) {
  return R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"12"},"items":[)" + items +
         "]}";
}

std::string event(const std::string& type, const std::string& object) {
  return R"({"type":")" + type + R"(","object":)" + object + "}";
}

EndpointSlice only(const std::string& text, const ServicePlace& place = kPlace) {
  const auto read = parse_slice_list(list(text), place);
  EXPECT_TRUE(read) << read.error().message;
  return read ? read->slices.at(0) : EndpointSlice();
}

TEST(EndpointSlicesTest, AListHasTheFirstAddressOfEachEndpointThatStays) {
  const auto read = parse_slice_list(
      list(slice("a", R"([{"addresses":["10.0.0.1","10.0.0.9"],"conditions":{"ready":true}},
                          {"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":false}},
                          {"addresses":["10.0.0.3"],"conditions":{"terminating":true}},
                          {"addresses":["10.0.0.4"]}])") +
           "," + slice("b", R"([{"addresses":["fd00::1"]}])", "IPv6")),
      kPlace);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->version, "12");
  ASSERT_EQ(read->slices.size(), 2u);
  EXPECT_EQ(read->slices[0].addresses,
            (Addresses{"10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.4:9000"}));
  EXPECT_EQ(read->slices[0].left_out.endpoints, 0u);
  EXPECT_EQ(read->slices[1].addresses, Addresses{"[fd00::1]:9000"});
  EXPECT_TRUE(read->slices[1].is_v6);
}

TEST(EndpointSlicesTest, ThePortIsTheOneThatWasAskedFor) {
  const std::string one = R"([{"addresses":["10.0.0.1"]}])";
  const auto port_of = [&](const std::string& port, const std::string& ports) -> std::string {
    const auto read = only(slice("a", one, "IPv4", ports), {"n", "s", port});
    return read.addresses.empty() ? read.left_out.why : read.addresses[0];
  };
  const std::string two = R"([{"name":"x","port":1},{"name":"y","port":2}])";
  EXPECT_EQ(port_of("y", two), "10.0.0.1:2");
  EXPECT_EQ(port_of("77", two), "10.0.0.1:77");
  EXPECT_EQ(port_of("77", "null"), "10.0.0.1:77");
  EXPECT_EQ(port_of("", R"([{"port":5}])"), "10.0.0.1:5");
  EXPECT_NE(port_of("", two).find("several"), std::string::npos);
  EXPECT_EQ(port_of("", "null"), "ports: there is none");
  EXPECT_EQ(port_of("z", two), "ports: none is named 'z'");
  EXPECT_NE(port_of("x", R"([{"name":"x","port":70000}])").find("65535"), std::string::npos);
  EXPECT_NE(port_of("x", "[7]").find("not an object"), std::string::npos);
  EXPECT_NE(port_of("x", "7").find("not an array"), std::string::npos);
}

// As during an update that names another port: the pods of before must not be lost by it.
TEST(EndpointSlicesTest, ASliceThatCannotBeUsedHarmsNoOther) {
  const std::string two = R"([{"addresses":["10.0.0.1"]},{"addresses":["10.0.0.2"]}])";
  const auto read = parse_slice_list(
      list(slice("a", two, "IPv4", R"([{"name":"x","port":1}])") + "," +
           slice("b", R"([{"addresses":["10.0.0.3"]}])") + "," + slice("c", two, "FQDN")),
      kPlace);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->slices[0].left_out.endpoints, 2u);
  EXPECT_EQ(read->slices[0].left_out.why, "ports: none is named 'rpc'");
  EXPECT_EQ(read->slices[1].addresses, Addresses{"10.0.0.3:9000"});
  EXPECT_EQ(read->slices[2].left_out.endpoints, 2u);
  EXPECT_NE(read->slices[2].left_out.why.find("addressType"), std::string::npos);
}

TEST(EndpointSlicesTest, AnAddressThatIsNoneHarmsNoOther) {
  for (const char* addresses : {R"(["evil.example"])", R"([""])", "[7]", R"(["10.0.0.1:22 x"])",
                                R"("10.0.0.1")", "[]", R"(["10.1"])", R"(["fd00::1"])"}) {
    const auto read = only(slice(
        "a", R"([{"addresses":)" + std::string(addresses) + R"(},7,{"addresses":["10.0.0.2"]}])"));
    EXPECT_EQ(read.addresses, Addresses{"10.0.0.2:9000"}) << addresses;
    EXPECT_EQ(read.left_out.endpoints, 2u) << addresses;
  }
}

TEST(EndpointSlicesTest, ASliceHasABound) {
  const auto of = [](size_t count) {
    std::string endpoints = "[";
    for (size_t i = 0; i < count; ++i) endpoints += R"({"addresses":["10.0.0.1"]},)";
    endpoints.back() = ']';
    return parse_slice_list(list(slice("a", endpoints)), kPlace);
  };
  EXPECT_TRUE(of(EndpointSlice::kMostEndpoints));
  EXPECT_FALSE(of(EndpointSlice::kMostEndpoints + 1));
}

TEST(EndpointSlicesTest, EventsSayWhatChanged) {
  using Kind = SliceEvent::Kind;
  const auto added =
      parse_slice_event(event("ADDED", slice("a", R"([{"addresses":["10.0.0.1"]}])")), kPlace);
  ASSERT_TRUE(added) << added.error().message;
  EXPECT_EQ(added->kind, Kind::kChanged);
  EXPECT_EQ(added->version, "7");
  EXPECT_EQ(added->slice.addresses, Addresses{"10.0.0.1:9000"});
  const auto gone = parse_slice_event(event("DELETED", slice("a", "null")), kPlace);
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->kind, Kind::kDeleted);
  EXPECT_EQ(gone->slice.name, "a");
  const auto mark =
      parse_slice_event(event("BOOKMARK", R"({"metadata":{"resourceVersion":"99"}})"), kPlace);
  ASSERT_TRUE(mark);
  EXPECT_EQ(mark->kind, Kind::kBookmark);
  EXPECT_EQ(mark->version, "99");
  const auto old = parse_slice_event(event("ERROR", R"({"code":410,"message":"too old"})"), kPlace);
  ASSERT_TRUE(old);
  EXPECT_EQ(old->kind, Kind::kGone);
  EXPECT_EQ(old->message, "too old");
  EXPECT_EQ(parse_slice_event(event("ERROR", R"({"code":500})"), kPlace)->kind, Kind::kError);
}

TEST(EndpointSlicesTest, WhatIsNoAnswerIsRefused) {
  const std::string one = R"([{"addresses":["10.0.0.1"]}])";
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{}"), std::string("{\"kind\":\"Status\"}"),
        list("7"), list(R"({"metadata":{}})"), list(slice("a", "7")),
        std::string(R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"1&x=2"}})")}) {
    EXPECT_FALSE(parse_slice_list(text, kPlace)) << text;
  }
  for (const std::string& text :
       {std::string("{"), event("ADDED", "7"), event("NEW", slice("a", one)),
        event("BOOKMARK", R"({"metadata":{}})"), event("ADDED", R"({"metadata":{"name":"a"}})")}) {
    EXPECT_FALSE(parse_slice_event(text, kPlace)) << text;
  }
}

}  // namespace
}  // namespace baton::router
