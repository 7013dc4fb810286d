"""The images: how their files are written, and that they have what the binary needs."""

import pathlib
import re
import subprocess

import dockerfiles
import harness
import pytest

ROOT = harness.ROOT
FOLDER = ROOT / "deploy/docker"
NAMES = ["Dockerfile.cpu", "Dockerfile.cuda"]
BAD = """\
FROM debian AS build
ADD https://example.com/a.tar.gz /
COPY . /src
COPY nowhere /src
RUN apt-get install -y g++
RUN curl https://example.com/x | sh
FROM build
ENV API_KEY=abc
USER root
CMD baton
"""


def stages(name: str) -> list[dockerfiles.Stage]:
    return dockerfiles.parse((FOLDER / name).read_text())


def test_each_file_is_looked_at():
    names = {file.name.removesuffix(".dockerignore") for file in FOLDER.glob("Dockerfile*")}
    assert names == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_to_complain_of(name):
    assert dockerfiles.complaints((FOLDER / name).read_text(), ROOT) == []


def test_what_is_bad_is_seen():
    found = "\n".join(dockerfiles.complaints(BAD, ROOT))
    for what in (
        "debian is not pinned", "ADD", "COPY .", "nowhere: is not there", "recommends",
        "older layer", "lists stay", "runs what it fetches", "API_KEY", "runs as root",
        "ENTRYPOINT",
    ):  # fmt: skip
        assert what in found


def modules() -> set[str]:
    """The folders that the build adds, but for the tests."""
    text = (ROOT / "CMakeLists.txt").read_text()
    return {name.split("/")[0] for name in re.findall(r"add_subdirectory\((\S+)\)", text)} - {
        "tests"
    }


def copied(name: str) -> set[str]:
    """What of the project its stages copy."""
    found = set()
    for stage in stages(name):
        for word, rest in stage.steps:
            if word == "COPY" and "--from=" not in rest:
                found |= set(rest.split()[:-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_built_from_is_copied_and_not_ignored(name):
    assert modules() <= copied(name)
    ignored, *admitted = (
        line
        for line in (FOLDER / f"{name}.dockerignore").read_text().splitlines()
        if not line.startswith("#")
    )
    assert ignored == "*"
    assert {line.removeprefix("!") for line in admitted} == copied(name)


def test_the_same_base_builds_and_runs():
    [build, run] = stages("Dockerfile.cuda")
    assert build.base.replace("-devel-", "-runtime-") == run.base
    bases = {stage.name: stage.base for stage in stages("Dockerfile.cpu")}
    assert bases["build"] == bases["runtime"]


def test_packages_that_the_binary_needs_are_found(baton_is_built):
    run = subprocess.run(
        [FOLDER / "runtime_packages.sh", harness.BIN], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    packages = set(run.stdout.split())
    assert {"libc6", "libstdc++6", "libucx0", "libpcre2-8-0"} <= packages
    assert not [package for package in packages if package.endswith("-dev")]
    owned = subprocess.run(["dpkg-query", "-W", *packages], capture_output=True, text=True)
    assert owned.returncode == 0, owned.stderr
    libraries = subprocess.run(["ldd", harness.BIN], capture_output=True, text=True).stdout
    assert len(packages) > len(libraries.splitlines()) / 3


def test_a_program_without_its_libraries_is_refused(tmp_path):
    fake = tmp_path / "ldd"
    fake.write_text("#!/bin/sh\necho '\tlibnone.so.1 => not found'\n")
    fake.chmod(0o755)
    run = subprocess.run(
        [FOLDER / "runtime_packages.sh", "/bin/true"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert run.returncode != 0
    assert "libnone.so.1" in run.stderr


def test_what_is_copied_is_enough_to_build(tmp_path):
    """Its configuration works without the rest of the project, and names no source that is gone."""
    for name in copied("Dockerfile.cpu"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    steps = stages("Dockerfile.cpu")[0].steps
    [run] = [rest for word, rest in steps if word == "RUN" and rest.startswith("cmake")]
    configured = subprocess.run(run.split(" && ")[0].split(), cwd=tmp_path, capture_output=True,
                                text=True)  # fmt: skip
    assert configured.returncode == 0, configured.stdout + configured.stderr
    ninja = ["ninja", "-C", tmp_path / "build/release", "-t", "inputs", "baton"]
    inputs = subprocess.run(ninja, capture_output=True, text=True, check=True).stdout.split()
    sources = [i for i in inputs if i.startswith(f"{tmp_path}/") and "/build/" not in i]
    assert len(sources) > 100
    assert [source for source in sources if not pathlib.Path(source).exists()] == []
