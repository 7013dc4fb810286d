"""Two hosts on one cable that can be pulled, without being root: a user namespace with two network
namespaces. What runs in it sees `here` as its network."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import harness

HERE, THERE = "10.77.0.1", "10.77.0.2"
_MARK = "BATON_TEST_NETWORKS"
_OWN = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
# UCX finds a network's devices where its sysfs is mounted.
_SEE_DEVICES = "mount -t sysfs sysfs /sys"


def why_not() -> str:
    """Why there can be none; empty: there can."""
    missing = [tool for tool in ["unshare", "nsenter", "ip"] if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)}: not installed"
    try_it = f"{_SEE_DEVICES} && ip link add baton0 type veth peer name baton1"
    tried = subprocess.run([*_OWN, "sh", "-c", try_it], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode != 0 else ""


def are_here() -> bool:
    return _MARK in os.environ


def run_pytest_in_them(file: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    pytest = [sys.executable, "-m", "pytest", file, *arguments]
    return subprocess.run(
        [*_OWN, "sh", "-c", f'{_SEE_DEVICES} && exec "$@"', "sh", *pytest],
        env=os.environ | {_MARK: "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class Cable:
    """From HERE to THERE."""

    def __init__(self):
        read_end, write_end = os.pipe()
        self._there = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "sh",
                "-c",
                f"{_SEE_DEVICES} && echo && exec sleep inf",
            ],
            stdout=write_end,
        )
        os.close(write_end)
        assert os.read(read_end, 1), "no second network"
        os.close(read_end)
        self.there = ["nsenter", "--net", "--mount", "--target", str(self._there.pid)]
        self._ip_here("link set lo up")
        self._ip_here(f"link add baton0 type veth peer name baton1 netns {self._there.pid}")
        self._ip_here(f"address add {HERE}/24 dev baton0")
        self._ip_there("link set lo up")
        self._ip_there(f"address add {THERE}/24 dev baton1")
        self._ip_there("link set baton1 up")
        self.mend()
        # The kernel may take a second, and UCX takes only devices that are up.
        both = [self._ip_here, self._ip_there]
        harness.wait_for(
            lambda: all("state UP" in ip("link show type veth") for ip in both), 10, "both ends up"
        )

    def _ip_here(self, command: str) -> str:
        return self._run(["ip", *command.split()])

    def _ip_there(self, command: str) -> str:
        return self._run([*self.there, "ip", *command.split()])

    @staticmethod
    def _run(command: list[str]) -> str:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    @contextlib.contextmanager
    def cut(self):
        """What is under way is lost, and nobody is told."""
        self._ip_here("link set baton0 down")
        try:
            yield
        finally:
            self.mend()

    def mend(self):
        self._ip_here("link set baton0 up")

    def remove(self):
        with contextlib.suppress(ProcessLookupError):
            self._there.send_signal(signal.SIGKILL)
        self._there.wait()  # and the cable has gone with its end
