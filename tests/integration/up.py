"""`baton up`, driven as a person at a terminal does."""

import os
import re
import signal
import subprocess

import harness


class Up:
    """`baton up` in a session of its own, or a script that becomes it."""

    def __init__(self, model, *args: str, env: dict[str, str] | None = None, command=None):
        self.popen = subprocess.Popen(
            [*(command or [harness.BIN, "up"]), "--model", model, "--port", "0", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
            start_new_session=True,
        )
        self.said = ""
        self.pids: list[int] = []
        self.shm: set[str] = set()

    def read_until(self, pattern: str) -> re.Match:
        """Reads what it says up to the line that has `pattern`."""
        for line in self.popen.stderr:
            self.said += line
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"no {pattern} in: {self.said}")

    def url(self) -> str:
        """Read from the banner; returns when the cluster is up."""
        url = self.read_until(r"(http://\S+:\d+)/v1")[1]
        self.see()
        return url

    def see(self):
        """Notes what is there to be gone later."""
        self.pids = harness.descendants(self.popen.pid)
        self.shm |= harness.shared_memory_of(self.pids)

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        try:
            out, err = self.popen.communicate(timeout=seconds * harness.PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            raise
        return self.popen.returncode, out, self.said + err

    def nothing_is_left(self):
        assert [pid for pid in self.pids if exists(pid)] == []
        assert [name for name in self.shm if os.path.exists(name)] == []
        assert harness.sysv_segments_of(set(self.pids)) == []


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def cmdline(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
