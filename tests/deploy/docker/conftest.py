import harness
import pytest


@pytest.fixture(scope="session")
def baton_is_built():
    if not harness.BIN.exists():
        pytest.exit(f"{harness.BIN} is not there; run scripts/build.sh", returncode=1)
