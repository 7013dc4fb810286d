"""Broken model files: one sentence that names file, tensor and reason; never a crash."""

import re
import subprocess

import broken_models
import harness
import pytest
import tiny_model


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory):
    return tiny_model.write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def start(model) -> subprocess.CompletedProcess:
    return subprocess.run(
        [harness.BIN, "up", "--model", model, "--mixed", "1", "--kv-gib", "0.02", "--port", "0",
         "--once", "hello", "--ask-tokens", "4"],
        capture_output=True, text=True, errors="replace", timeout=40 * harness.PATIENCE,
    )  # fmt: skip


def test_the_good_files_answer(tiny, tiny_gguf, baton_is_built):
    for model in [tiny, tiny_gguf]:
        run = start(model)
        assert run.returncode == 0, run.stderr
        assert run.stdout


def check(path, names: str):
    run = start(path)
    said = run.stderr
    assert run.returncode > 0, said
    assert "killed by" not in said and "Sanitizer" not in said, said
    sentences = [line for line in said.splitlines() if str(path) in line or path.name in line]
    assert sentences, f"it does not name the file: {said}"
    assert any(broken_models.names_match(names, line) for line in sentences), said
    assert all(len(line) < 1000 for line in said.splitlines())
    assert not re.search(r"terminate called|std::|what\(\)", said), said


@pytest.mark.parametrize("name", broken_models.GGUF)
def test_gguf(tiny_gguf, tmp_path, name, baton_is_built):
    check(*broken_models.make_gguf(name, tiny_gguf, tmp_path))


@pytest.mark.parametrize("name", broken_models.HF)
def test_hugging_face(tiny, tmp_path, name, baton_is_built):
    check(*broken_models.make_hf(name, tiny, tmp_path))


def test_not_a_model_at_all(tmp_path, baton_is_built):
    for path in [tmp_path / "nowhere", "/dev/null"]:
        run = start(path)
        assert run.returncode > 0
        assert str(path) in run.stderr
