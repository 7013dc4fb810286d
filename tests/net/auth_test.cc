#include "common/net/auth.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/fakes/temp_dir.h"

namespace baton::net {
namespace {

const std::string kSecret(40, 's'), kOther(40, 'o'), kThird(40, 't');

Nonce nonce(uint8_t first) {
  Nonce n{};
  n[0] = first;
  return n;
}

// Whether the two ends take each other.
bool meet(const Secrets& dialler_knows, const Secrets& listener_knows) {
  const AuthDialler dialler(dialler_knows, nonce(1));
  AuthListener listener(listener_knows, nonce(2));
  const auto challenge = listener.challenge(dialler.hello());
  if (!challenge) return false;
  const auto proof = dialler.answer(*challenge);
  return proof && listener.check(*proof);
}

TEST(Auth, WhoeverKnowsTheSecretIsTaken) {
  EXPECT_TRUE(meet({kSecret}, {kSecret}));
  EXPECT_FALSE(meet({kOther}, {kSecret}));
  EXPECT_FALSE(meet({}, {kSecret}));
}

// Each side may be changed before the other.
TEST(Auth, SecretsMayChangeOneSideAtATime) {
  EXPECT_TRUE(meet({kOther, kSecret}, {kSecret}));
  EXPECT_TRUE(meet({kSecret}, {kOther, kSecret}));
  EXPECT_TRUE(meet({kOther, kSecret}, {kSecret, kOther}));
  EXPECT_FALSE(meet({kOther, kSecret}, {kThird}));
}

// Both ends of one connection have its binding; whoever passes a proof on has another.
TEST(Auth, AProofIsForOneConnection) {
  const std::string here(32, 'h'), there(32, 't');
  for (const auto& [near, far] : {std::pair(here, here), {here, there}, {here, ""}, {"", here}}) {
    const AuthDialler dialler({kSecret}, nonce(1), near);
    AuthListener listener({kSecret}, nonce(2), far);
    const auto challenge = listener.challenge(dialler.hello());
    ASSERT_TRUE(challenge);
    const auto proof = dialler.answer(*challenge);
    EXPECT_EQ(proof.has_value(), near == far);
    // The other direction by itself, too: one that believes every challenge.
    const auto bold = AuthDialler({kSecret}, nonce(1), far).answer(*challenge);
    ASSERT_TRUE(bold);
    AuthListener again({kSecret}, nonce(2), near);
    ASSERT_TRUE(again.challenge(dialler.hello()));
    EXPECT_EQ(again.check(*bold).has_value(), near == far);
  }
}

// Somebody who has heard the ids but does not know the secret.
TEST(Auth, AnIdIsNoProof) {
  AuthListener listener({kSecret}, nonce(2));
  proto::AuthHello hello = AuthDialler({kOther}, nonce(1)).hello();
  hello.set_key_ids(0, key_id(kSecret));
  ASSERT_TRUE(listener.challenge(hello));
  for (const std::string& proof : {std::string(), std::string(32, '\0'), kSecret}) {
    proto::AuthProof guess;
    guess.set_proof(proof);
    EXPECT_FALSE(listener.check(guess));
  }
  const AuthDialler dialler({kSecret}, nonce(1));
  proto::AuthChallenge challenge;
  challenge.set_nonce(std::string(32, 'n'));
  challenge.set_key_id(key_id(kSecret));
  challenge.set_proof(std::string(32, 'p'));
  EXPECT_FALSE(dialler.answer(challenge));
  challenge.clear_proof();
  EXPECT_FALSE(dialler.answer(challenge));
}

TEST(Auth, RecordedExchangeIsWorthNothing) {
  const AuthDialler dialler({kSecret}, nonce(1));
  AuthListener heard({kSecret}, nonce(2)), later({kSecret}, nonce(3));
  const auto challenge = heard.challenge(dialler.hello());
  ASSERT_TRUE(challenge);
  const auto proof = dialler.answer(*challenge);
  ASSERT_TRUE(proof);
  ASSERT_TRUE(later.challenge(dialler.hello()));
  EXPECT_FALSE(later.check(*proof));
  EXPECT_FALSE(AuthDialler({kSecret}, nonce(4)).answer(*challenge));
}

// What one side proves with is not what the other side proves with.
TEST(Auth, ReflectedProofIsWorthNothing) {
  AuthListener listener({kSecret}, nonce(2));
  const auto challenge = listener.challenge(AuthDialler({kSecret}, nonce(1)).hello());
  ASSERT_TRUE(challenge);
  proto::AuthProof reflected;
  reflected.set_proof(challenge->proof());
  EXPECT_FALSE(listener.check(reflected));
}

TEST(Auth, MalformedIsDenied) {
  const proto::AuthHello good = AuthDialler({kSecret}, nonce(1)).hello();
  proto::AuthHello bad = good;
  bad.set_nonce("short");
  EXPECT_FALSE(AuthListener({kSecret}, nonce(2)).challenge(bad));
  bad = good;
  for (int i = 0; i < 4; ++i) bad.add_key_ids("12345678");
  EXPECT_FALSE(AuthListener({kSecret}, nonce(2)).challenge(bad));
  AuthListener listener({kSecret}, nonce(2));
  EXPECT_FALSE(listener.check({}));  // before any challenge
  ASSERT_TRUE(listener.challenge(good));
  EXPECT_FALSE(listener.challenge(good));  // one try a connection
  auto challenge = AuthListener({kSecret}, nonce(2)).challenge(good);
  challenge->set_nonce("short");
  EXPECT_FALSE(AuthDialler({kSecret}, nonce(1)).answer(*challenge));
}

TEST(Auth, SecretIsNotInWhatIsSaid) {
  const AuthDialler dialler({kSecret}, nonce(1));
  AuthListener listener({kSecret}, nonce(2));
  const auto challenge = listener.challenge(dialler.hello());
  const std::string said = dialler.hello().SerializeAsString() + challenge->SerializeAsString() +
                           dialler.answer(*challenge)->SerializeAsString();
  EXPECT_EQ(said.find(kSecret.substr(0, 8)), std::string::npos);
  EXPECT_NE(key_id(kSecret), key_id(kOther));
  EXPECT_EQ(key_id(kSecret).size(), 8u);
}

class SecretFile : public testing::Test {
 protected:
  result<Secrets> read(const std::string& content, mode_t mode = 0600) {
    const std::filesystem::path path = dir_.path() / "secret";
    std::ofstream(path) << content;
    chmod(path.c_str(), mode);
    return read_secrets(path);
  }
  std::string why(const std::string& content, mode_t mode = 0600) {
    const auto secrets = read(content, mode);
    return secrets ? "" : secrets.error().message;
  }
  fakes::TempDir dir_;
};

TEST_F(SecretFile, HasOneALine) {
  EXPECT_EQ(*read("# of 2026\n\n" + kSecret + "\r\n" + kOther), (Secrets{kSecret, kOther}));
  EXPECT_EQ(*read(kSecret, 0440), Secrets{kSecret});
  EXPECT_EQ(*read_secrets(""), Secrets{});
}

TEST_F(SecretFile, ErrorsNameTheFile) {
  EXPECT_NE(why("# nothing\n").find("/secret': no secret"), std::string::npos);
  EXPECT_NE(why("too short\n").find("32 to 1024"), std::string::npos);
  EXPECT_NE(why(kSecret, 0644).find("everybody may read it"), std::string::npos);
  std::string many;
  for (int i = 0; i < 5; ++i) many += kSecret + std::to_string(i) + "\n";
  EXPECT_NE(why(many).find("more than 4"), std::string::npos);
  EXPECT_NE(read_secrets(dir_.path()).error().message.find("cannot be read"), std::string::npos);
  EXPECT_FALSE(read_secrets("/nowhere/secret"));
}

}  // namespace
}  // namespace baton::net
