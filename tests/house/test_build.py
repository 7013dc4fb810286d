"""What the build says of itself."""

import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BATON_TEST_BIN", ROOT / "build/release/bin/baton"))
SOURCES = [".cc", ".h", ".cmake", ".py", ".sh"]


def version() -> str:
    return re.search(r"project\(baton VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


def test_the_version_is_written_once():
    shown = subprocess.run([BIN, "version"], capture_output=True, text=True, check=True).stdout
    assert shown == f"baton {version()}\n"
    folders = ["cli", "cmake", "common", "router", "scripts", "worker"]
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in SOURCES]
    assert [str(p) for p in files if f'"{version()}"' in p.read_text()] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "BATON_CUDA needs NVIDIA's nvcc 12.4 or newer, and none was found"),
        (["-DBATON_SANITIZE=address"], "BATON_CUDA does not go with BATON_SANITIZE"),
    ],
    ids=["no nvcc", "sanitizers"],
)
def test_cuda_that_cannot_be_is_refused(tmp_path, options, said):
    """Rather than built without it, in silence."""
    run = subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path, "-DBATON_CUDA=ON", *options],
                         capture_output=True, text=True,
                         env=os.environ | {"CUDACXX": str(tmp_path / "nvcc")})  # fmt: skip
    assert run.returncode != 0
    assert said in " ".join(run.stderr.split())


@pytest.mark.parametrize("kind", ["configurePresets", "buildPresets"])
def test_presets_use_options_that_exist(kind):
    presets = json.loads((ROOT / "CMakePresets.json").read_text())
    lists = (ROOT / "CMakeLists.txt").read_text()
    for preset in presets[kind]:
        for name in preset.get("cacheVariables", {}):
            assert name.startswith("CMAKE_") or re.search(rf"(option|set)\({name} ", lists), name
    names = {preset["name"] for preset in presets["configurePresets"]}
    assert {preset["configurePreset"] for preset in presets["buildPresets"]} == names - {"base"}
