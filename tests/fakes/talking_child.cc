#include "tests/fakes/talking_child.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>

namespace baton::fakes {

TalkingChild::TalkingChild(const std::string& program, const std::vector<std::string>& args,
                           milliseconds patience)
    : patience_(patience) {
  ::signal(SIGPIPE, SIG_IGN);  // it may be dead when we say something
  int in[2], out[2];
  if (::pipe(in) != 0 || ::pipe(out) != 0) std::abort();
  ::posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  for (const int fd : {in[0], in[1], out[0], out[1]}) {
    ::posix_spawn_file_actions_addclose(&actions, fd);
  }
  std::vector<std::string> words = {std::filesystem::read_symlink("/proc/self/exe").parent_path() /
                                    program};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  EXPECT_EQ(::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  to_ = in[1];
  from_ = out[0];
}

TalkingChild::~TalkingChild() {
  if (pid_ > 0) kill(SIGKILL);
  ::close(to_);
  ::close(from_);
}

void TalkingChild::say(const std::string& line) {
  const std::string text = line + "\n";
  EXPECT_EQ(::write(to_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

std::string TalkingChild::hear() {
  std::string line;
  for (char c = 0;; line += c) {
    ::pollfd fd{from_, POLLIN, 0};
    if (::poll(&fd, 1, static_cast<int>(patience_.count())) != 1) return line;
    if (::read(from_, &c, 1) != 1 || c == '\n') return line;
  }
}

void TalkingChild::kill(int signal) {
  if (pid_ == 0) return;
  ::kill(pid_, signal);
  if (signal != SIGKILL) return;
  ::waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

}  // namespace baton::fakes
