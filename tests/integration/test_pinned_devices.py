"""KV's ports are where the worker listens, and nowhere else: pinned_devices.py, in networks of its
own."""

import pathlib

import harness
import networks
import pytest


@pytest.mark.timeout(180 * harness.PATIENCE)
def test_kv_ports_are_on_the_worker_s_network_alone(baton_is_built, tmp_path):
    if why := networks.why_not():
        pytest.skip(f"no networks of our own can be had: {why}")
    file = pathlib.Path(__file__).with_name("pinned_devices.py")
    ran = networks.run_pytest_in_them(file, "-rP", f"--basetemp={tmp_path}/within")
    assert ran.returncode == 0, ran.stdout
