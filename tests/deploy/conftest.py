import shutil
import subprocess

import pytest


def run(program: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="session")
def promtool():
    """promtool(argument, ...): what it prints, if it is content."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")

    def call(*arguments) -> str:
        done = run(program, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call
