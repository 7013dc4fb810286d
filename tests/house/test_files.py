"""Rules that hold for every file of the project."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_LINES = 500
# Files that may be longer, and why.
LONGER: dict[str, str] = {}
# Data made by a script, not written by people.
GENERATED = re.compile(r"tests/.*(/data/|goldens?/).*|.*\.(json|jsonl|bin|npz|gguf|safetensors)$")
THIS = "tests/house/test_files.py"
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
# Paths of one machine have no business in a project.
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(work|root|home/\w+|Users)/")


# What no file of the project is in, for where git cannot tell.
OTHERS = {"build", "__pycache__", ".git", ".venv", ".pytest_cache", ".ruff_cache"}


def listed_by_git() -> list[str] | None:
    """None where this is no checkout, or one that git does not trust."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return listed.stdout.splitlines() if listed.returncode == 0 else None


def walked(root: pathlib.Path) -> list[str]:
    found = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(set(below) - OTHERS)
        found += [str((pathlib.Path(folder) / name).relative_to(root)) for name in sorted(names)]
    return found


def tracked() -> list[str]:
    listed = listed_by_git()
    names = walked(ROOT) if listed is None else listed
    return [name for name in names if (ROOT / name).is_file()]


def test_the_rules_see_the_files_without_git():
    walk = set(walked(ROOT))
    assert {"README.md", THIS, ".clang-format"} <= walk
    assert set(listed_by_git() or []) - walk == set()


def lines_of(name: str) -> list[str]:
    try:
        return (ROOT / name).read_text().splitlines()
    except UnicodeDecodeError:
        return []


def written() -> list[str]:
    return [name for name in tracked() if not GENERATED.match(name)]


def test_no_file_is_too_long():
    long = {name: len(lines_of(name)) for name in written() if name not in LONGER}
    assert {name: count for name, count in long.items() if count > MAX_LINES} == {}


def test_exceptions_are_still_needed():
    assert [name for name in LONGER if len(lines_of(name)) <= MAX_LINES] == []


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE_PATH], ids=["unfinished", "machine"])
def test_nothing_of_this_kind_is_left(pattern):
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in written()
        if name != THIS
        for number, line in enumerate(lines_of(name), start=1)
        if pattern.search(line)
    ]
    assert not found, "\n" + "\n".join(found)


def test_headers_are_guarded_and_sources_named_as_the_house_does():
    for name in written():
        # Highway compiles an -inl.h once for each instruction set.
        if name.endswith((".h", ".cuh")) and not name.endswith("-inl.h"):
            assert "#pragma once" in lines_of(name), name
        assert not name.endswith((".cpp", ".hpp", ".cxx", ".hh")), name
