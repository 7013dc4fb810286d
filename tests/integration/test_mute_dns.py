"""A name server that never answers holds up nothing but what needs the name."""

import harness
import mute_dns
import pytest

pytestmark = pytest.mark.skipif(
    mute_dns.why_not() != "", reason=f"no network of our own can be had: {mute_dns.why_not()}"
)


@pytest.mark.parametrize("place", ["dns:pool.example:9000", "worker.example:9000"])
def test_the_end_of_a_router_does_not_wait_for_a_name(tiny, tmp_path, baton_is_built, place):
    options = {"listen": "127.0.0.1:0", "workers": [place], "model": tiny}
    router = harness.Process("router", "router", options, tmp_path, within=mute_dns.COMMAND)
    try:
        router.wait_ready()
        harness.wait_for(lambda: mute_dns.is_asked(router.pid), 10, "the name is looked up")
        assert router.stop(seconds=5) == 0
    finally:
        router.kill()
