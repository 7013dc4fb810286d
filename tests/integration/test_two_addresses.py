"""Two of a router's addresses that lead to one worker: it is used once, and the other is told of."""

import time

import api
import harness


def test_one_connection_stays(start_cluster, tiny):
    cluster = start_cluster(tiny, mixed=1)
    port = cluster.workers["mixed-0"].process.ports["rpc"]
    options = {
        "model": tiny,
        "listen": "127.0.0.1:0",
        "workers": [f"127.0.0.1:{port}", f"localhost:{port}"],
    }
    first, cluster.router = cluster.router, harness.Process(
        "router-2", "router", options, cluster.log_folder
    )  # fmt: skip
    try:
        cluster.router.wait_ready()
        cluster.wait_ready()
        log = cluster.router.log
        harness.wait_for(lambda: "is connected as" in log.read_text(), 10, "it says so")
        until = time.monotonic() + 3  # some attempts
        while time.monotonic() < until:
            body = {"prompt": "the baton", "max_tokens": 2, "ignore_eos": True}
            assert api.post(cluster, "/v1/completions", body).status_code == 200
        text = log.read_text()
        assert text.count("joined") == 1 and text.count("is lost") == 0
        assert text.count("is connected as") == 1, "once is enough"
    finally:
        assert cluster.router.stop() == 0
        cluster.router = first
