"""Every file is formatted, where the formatter is here in the version that the house uses."""

import re
import shutil
import subprocess

import pytest
import test_files

ROOT = test_files.ROOT
CLANG_FORMAT, RUFF = "14", "0.17"


def formatter(name: str, version: str) -> str:
    """Its program; others of another version would have another taste."""
    seen = []
    for program in filter(None, map(shutil.which, [f"{name}-{version}", name])):
        shown = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        if re.search(rf"\b{re.escape(version)}\.\d", shown):
            return program
        seen.append(shown.strip())
    pytest.skip(f"no {name} {version} here" + "".join(f", but {what}" for what in seen))


def check(command: list[str], suffixes: tuple[str, ...]):
    files = [name for name in test_files.written() if name.endswith(suffixes)]
    run = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout + run.stderr)[:4000]


def test_cpp_is_formatted():
    program = formatter("clang-format", CLANG_FORMAT)
    check([program, "--dry-run", "-Werror"], (".cc", ".h", ".cu", ".cuh"))


def test_python_is_formatted():
    check([formatter("ruff", RUFF), "format", "--check", "--diff"], (".py",))
