"""Rules that hold for every file of the project."""

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


def tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


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
        if name.endswith(".h") and not name.endswith("-inl.h"):
            assert "#pragma once" in lines_of(name), name
        assert not name.endswith((".cpp", ".hpp", ".cxx", ".hh")), name
