import pathlib
import subprocess

import harness
import pytest
import tiny_model

# About a millisecond a token: long enough to be caught in the act.
MEDIUM = tiny_model.Shape(hidden=256, layers=8, heads=4, kv_heads=2, ffn=704, vocab=1024, seed=2)


@pytest.fixture(scope="session")
def baton_is_built():
    if not harness.BIN.exists():
        pytest.exit(f"{harness.BIN} is not there; run scripts/build.sh", returncode=1)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> pathlib.Path:
    return tiny_model.write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def medium(tmp_path_factory) -> pathlib.Path:
    return tiny_model.write_tiny_model(tmp_path_factory.mktemp("models") / "medium", MEDIUM)


@pytest.fixture(scope="session")
def quickstart_model() -> pathlib.Path:
    """The real one: SmolLM2-135M-Instruct, fetched once into the cache."""
    script = harness.ROOT / "scripts/get_model.sh"
    shown = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True)
    return pathlib.Path(shown.stdout.splitlines()[-1])


class ClusterStarter:
    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._clusters: list[harness.Cluster] = []

    def __call__(self, model, router_options=None, env=None, **options) -> harness.Cluster:
        folder = self._folder / f"cluster-{len(self._clusters)}"
        folder.mkdir()
        cluster = harness.Cluster(model, folder, router_options, env)
        self._clusters.append(cluster)
        return cluster.start(**options)

    def stop(self):
        clusters, self._clusters = self._clusters, []
        errors = []
        for cluster in clusters:
            try:
                cluster.stop()
            except AssertionError as error:
                errors.append(str(error))
        assert not errors, "\n".join(errors)


@pytest.fixture
def start_cluster(tmp_path, baton_is_built):
    """start_cluster(model, prefill=1, decode=1, ...): stopped, and checked, after the test."""
    starter = ClusterStarter(tmp_path)
    yield starter
    starter.stop()


@pytest.fixture(scope="module")
def start_shared_cluster(tmp_path_factory, baton_is_built):
    """The same for a whole file of tests that do not harm the cluster."""
    starter = ClusterStarter(tmp_path_factory.mktemp("shared"))
    yield starter
    starter.stop()


@pytest.fixture(scope="module")
def split(start_shared_cluster, tiny) -> harness.Cluster:
    """One prefill and one decode worker with the tiny model."""
    return start_shared_cluster(tiny, prefill=1, decode=1)
