"""The cable between prefill and decode is pulled: pulled_cable.py, in networks of its own."""

import pathlib

import harness
import networks
import pytest


@pytest.mark.slow
@pytest.mark.timeout(180 * harness.PATIENCE)
@pytest.mark.parametrize("seconds", [1, 8], ids=["briefly", "for_longer_than_the_lease"])
def test_the_cable_is_pulled_in_mid_transfer(baton_is_built, tmp_path, seconds):
    if why := networks.why_not():
        pytest.skip(f"no networks of our own can be had: {why}")
    file = pathlib.Path(__file__).with_name("pulled_cable.py")
    ran = networks.run_pytest_in_them(
        file, "-k", f"{seconds}_s", "-rP", f"--basetemp={tmp_path}/within"
    )
    assert ran.returncode == 0, ran.stdout
    print(ran.stdout)
