#include "cli/tenants_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "router/service/access_control.h"
#include "tests/fakes/temp_dir.h"

namespace baton::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class TenantsFile : public testing::Test {
 protected:
  result<std::vector<router::TenantConfig>> parse(const std::string& yaml) const {
    return parse_tenants(yaml, classes_);
  }
  // Of one tenant "a", with a key, and these fields.
  std::string error_of(const std::string& fields) const {
    const auto tenants = parse("tenants:\n  a:\n    keys: [k]\n" + fields);
    return tenants ? "none" : tenants.error().message;
  }
  const router::SloClasses classes_ =
      *router::parse_slo_classes({"fast: ttft=1s", "batch: best-effort"}, "");
};

TEST_F(TenantsFile, HasWhoTheyAreAndWhatTheyMayDo) {
  const auto tenants = parse(R"(
tenants:
  acme:
    keys: [secret-one, 'sha256:2BD806C97F0E00AF1A1FC3328FA763A9269723C8DB8FAC4F93AF71DB186D6E90']
    classes: [batch, fast, batch]
    priority: -1
    requests_per_minute: 600
    tokens_per_minute: 1000000
    max_concurrent: 32
  other: {keys: [x]}
)");
  ASSERT_TRUE(tenants) << tenants.error().message;
  ASSERT_EQ(tenants->size(), 2u);
  const router::TenantConfig& acme = tenants->front();
  EXPECT_EQ(acme.name, "acme");
  ASSERT_EQ(acme.keys.size(), 2u);
  EXPECT_EQ(acme.keys[0], router::key_digest("secret-one"));
  EXPECT_EQ(acme.keys[1][0], 0x2b);
  EXPECT_THAT(acme.classes, ElementsAre(1, 0));
  EXPECT_EQ(acme.priority, -1);
  EXPECT_EQ(acme.limits.requests_per_minute, 600u);
  EXPECT_EQ(acme.limits.tokens_per_minute, 1'000'000u);
  EXPECT_EQ(acme.limits.max_concurrent, 32u);
  const router::TenantConfig& other = tenants->back();
  EXPECT_TRUE(other.classes.empty());
  EXPECT_EQ(other.limits.requests_per_minute, 0u);
}

TEST_F(TenantsFile, AKeyMayBeGivenByItsDigestAlone) {
  // echo -n secret | sha256sum
  const auto tenants = parse(
      "tenants: {a: {keys: "
      "['sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b']}}");
  ASSERT_TRUE(tenants);
  EXPECT_EQ(tenants->front().keys[0], router::key_digest("secret"));
}

TEST_F(TenantsFile, ErrorsNameTheTenantAndTheField) {
  EXPECT_EQ(error_of(""), "none");
  EXPECT_THAT(error_of("    prioriti: 1\n"), HasSubstr("a: 'prioriti' is none of"));
  EXPECT_THAT(error_of("    priority: 4\n"), HasSubstr("a: priority must be"));
  EXPECT_THAT(error_of("    priority: 1\n    priority: 1\n"),
              HasSubstr("a: priority is there twice"));
  EXPECT_THAT(error_of("    max_concurrent: 0\n"), HasSubstr("a: max_concurrent must be"));
  EXPECT_THAT(error_of("    max_concurrent: 1.5\n"), HasSubstr("a: max_concurrent must be"));
  EXPECT_THAT(error_of("    tokens_per_minute: -1\n"), HasSubstr("a: tokens_per_minute"));
  EXPECT_THAT(error_of("    requests_per_minute: [1]\n"), HasSubstr("a: requests_per_minute"));
  EXPECT_THAT(error_of("    classes: [slow]\n"),
              HasSubstr("a: there is no class 'slow', only fast"));
  EXPECT_THAT(error_of("    classes: fast\n"), HasSubstr("a: classes must be a list"));
}

TEST_F(TenantsFile, AllOfItMustBeRight) {
  for (const char* yaml :
       {"", "tenants:", "tenants: {}", "tenants: [a]", "tenant: {a: {keys: [k]}}", "a: b: c",
        "tenants: {a: {keys: [k]}}\nmore: 1", "tenants: {a: {}}", "tenants: {a: {keys: []}}",
        "tenants: {a: {keys: k}}", "tenants: {A: {keys: [k]}}", "tenants: {-a: {keys: [k]}}",
        "tenants: {a: {keys: [k]}, a: {keys: [l]}}", "tenants: {a: [k]}",
        "tenants: {\"\": {keys: [k]}}"}) {
    EXPECT_FALSE(parse(yaml)) << yaml;
  }
}

TEST_F(TenantsFile, ErrorsHoldNoKey) {
  for (const char* yaml :
       {"tenants: {a: {keys: [xyzzy]}, b: {keys: [xyzzy]}}", "tenants: {a: {keys: [xyzzy, xyzzy]}}",
        "tenants: {a: {keys: ['xyzzy plugh']}}", "tenants: {a: {keys: ['sha256:xyzzy']}}",
        "tenants: {a: {keys: [\"xyzzy\\n\"]}}", "tenants: {a: {keys: [{xyzzy: 1}]}}"}) {
    const auto tenants = parse(yaml);
    ASSERT_FALSE(tenants) << yaml;
    EXPECT_THAT(tenants.error().message, Not(HasSubstr("xyzzy")));
    EXPECT_THAT(tenants.error().message, HasSubstr("a"));
  }
}

TEST_F(TenantsFile, IsReadWholeAndNamedInErrors) {
  const fakes::TempDir dir;
  const std::string path = (dir / "tenants.yaml").string();
  EXPECT_TRUE(read_tenants("", classes_)->empty());
  EXPECT_THAT(read_tenants(path, classes_).error().message, HasSubstr(path));
  std::ofstream(path) << "tenants: {a: {keys: [k]}}\n";
  ::chmod(path.c_str(), 0644);
  EXPECT_EQ(read_tenants(path, classes_).error().message,
            "the tenants in '" + path + "': everybody may read it; chmod 600");
  ::chmod(path.c_str(), 0640);
  EXPECT_EQ(read_tenants(path, classes_)->size(), 1u);
  std::ofstream(path) << "tenants: {a: {keys: [k], priority: 9}}\n";
  const std::string why = read_tenants(path, classes_).error().message;
  EXPECT_THAT(why, HasSubstr(path));
  EXPECT_THAT(why, HasSubstr("a: priority"));
  std::ofstream(path) << std::string(size_t{5} << 20, '#');
  EXPECT_THAT(read_tenants(path, classes_).error().message, HasSubstr("4 MiB"));
  EXPECT_FALSE(read_tenants(dir.path().string(), classes_));
}

}  // namespace
}  // namespace baton::cli
