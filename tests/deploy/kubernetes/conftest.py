import sys

import harness
import pytest

sys.path.insert(0, str(harness.ROOT / "scripts"))

from manifests import rendered  # noqa: E402


@pytest.fixture(scope="session", params=rendered.OVERLAYS)
def overlay(request) -> rendered.Overlay:
    return rendered_or_skip(request.param)


@pytest.fixture(scope="session")
def demo() -> rendered.Overlay:
    return rendered_or_skip("cpu-demo")


def rendered_or_skip(name: str) -> rendered.Overlay:
    if not rendered.kubectl():
        pytest.skip(rendered.NO_KUBECTL)
    return rendered.render(name)


@pytest.fixture(scope="session")
def baton_is_built():
    if not harness.BIN.exists():
        pytest.exit(f"{harness.BIN} is not there; run scripts/build.sh", returncode=1)
