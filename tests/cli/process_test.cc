#include "cli/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/child_process.h"

namespace baton::cli {
namespace {

bool strike = false;  // the child of the next fork, at once
int told_fd = -1;
void tell(int) { (void)!write(told_fd, "!", 1); }

TEST(Process, AChildGetsNoOptionsFromTheEnvironment) {
  const char* const environment[] = {"PATH=/bin",
                                     "BATON_CONFIG=cluster.yaml",
                                     "BATON_MIXED=1",
                                     "BATON_MAX_ISA=avx2",
                                     "BATON_MAX_ISAX=1",
                                     "MY_BATON_X=1",
                                     nullptr};
  EXPECT_EQ(environment_of_child(environment),
            (std::vector<std::string>{"PATH=/bin", "BATON_MAX_ISA=avx2", "MY_BATON_X=1"}));
}

// The parent's handlers tell it through descriptors that the child still shares.
TEST(Process, ASignalBeforeTheChildIsAnotherProgramEndsItAndIsNotTheParents) {
  int told[2];
  ASSERT_EQ(pipe2(told, O_CLOEXEC | O_NONBLOCK), 0);
  told_fd = told[1];
  struct sigaction action = {}, before;
  action.sa_handler = tell;
  ASSERT_EQ(sigaction(SIGTERM, &action, &before), 0);
  ASSERT_EQ(pthread_atfork(nullptr, nullptr, [] { strike ? (void)raise(SIGTERM) : void(); }), 0);

  strike = true;
  const auto child = spawn_serving({"--gtest_list_tests"});
  strike = false;
  ASSERT_TRUE(child);
  int end = 0;
  ASSERT_EQ(waitpid(child->pid, &end, 0), child->pid);
  EXPECT_TRUE(WIFSIGNALED(end) && WTERMSIG(end) == SIGTERM) << end;
  char heard;
  EXPECT_EQ(read(told[0], &heard, 1), -1);

  sigaction(SIGTERM, &before, nullptr);
  for (const int fd : {told[0], told[1], child->ready_fd}) close(fd);
}

}  // namespace
}  // namespace baton::cli
