"""What somebody gets who reaches a worker's port and has no business there."""

import socket
import ssl
import subprocess

import api
import certificates
import harness
import pytest
import requests
import up

# Frame.router_hello{protocol_min: 1, protocol_max: 9, router: 7}, behind its length.
ROUTER_HELLO = b"\x08\x00\x00\x00" + b"\x0a\x06\x08\x01\x10\x09\x18\x07"
# Frame.pair_reply.error, which is no UTF-8.
BAD_TEXT = b"\x0c\x00\x00\x00" + b"\x82\x01\x09" + b"\x12\x07secre\xff\xfe"


@pytest.fixture
def authority(tmp_path):
    return certificates.Authority(tmp_path, "ours")


def log_of(cluster, name: str) -> str:
    process = cluster.router if name == "router" else cluster.workers[name].process
    return process.log.read_text()


def rpc_address(cluster, name: str) -> tuple[str, int]:
    return "127.0.0.1", cluster.workers[name].process.ports["rpc"]


def say(connection: socket.socket, said: bytes) -> bytes:
    """All that is answered until the other side hangs up."""
    heard = b""
    try:
        connection.sendall(said)
        while part := connection.recv(4096):
            heard += part
    except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
        pass
    return heard


def test_malformed_text_is_not_printed(start_cluster, tiny):
    cluster = start_cluster(tiny, mixed=1)
    with socket.create_connection(rpc_address(cluster, "mixed-0"), 5) as connection:
        assert say(connection, BAD_TEXT) == b""
    said = "12 bytes is no Frame message"
    harness.wait_for(lambda: said in log_of(cluster, "mixed-0"), 5, "the worker says so")
    for word in ["libprotobuf", "UTF-8", "secre", "pair_reply", "PairReply"]:
        assert word not in log_of(cluster, "mixed-0")


def test_certificates_on_both_sides(start_cluster, tiny, authority, tmp_path):
    router = authority.issue("router", ["baton-router"])
    worker = authority.issue("worker", ["baton-worker"])
    cluster = start_cluster(tiny, router, prefill=1, decode=1, **worker)
    assert api.complete(cluster, "pass it on", max_tokens=8)["usage"]["completion_tokens"] == 8
    assert cluster.metrics("decode-0").sum("baton_kv_read_bytes_total") > 0

    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    of_another = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    of_another.check_hostname = False
    of_another.verify_mode = ssl.CERT_NONE
    theirs = certificates.Authority(tmp_path, "theirs").issue("worker")
    of_another.load_cert_chain(theirs["tls_cert"], theirs["tls_key"])
    for name in ["prefill-0", "decode-0"]:
        with socket.create_connection(rpc_address(cluster, name), 5) as plain:
            heard = say(plain, ROUTER_HELLO)
        assert b"it speaks no TLS, which is needed here" in heard
        assert b"tiny" not in heard and len(heard) < 100, "that, and no more"
        for context in [anybody, of_another]:
            with socket.create_connection(rpc_address(cluster, name), 5) as plain:
                with context.wrap_socket(plain) as connection:
                    assert say(connection, ROUTER_HELLO) == b""
        metrics = cluster.metrics(name)
        assert metrics.sum("baton_rpc_refused_total", reason="tls") == 3
        assert metrics.sum("baton_rpc_refused_total") == 3
        assert "connections were refused, the last: 127.0.0.1:" in log_of(cluster, name)
    assert api.complete(cluster, "still there", max_tokens=2)


@pytest.mark.parametrize("router_has_them", [False, True])
def test_one_side_without_certificates(baton_is_built, tiny, authority, tmp_path, router_has_them):
    files = authority.issue("both")
    has = {"router": files if router_has_them else {}, "worker": {} if router_has_them else files}
    options = {"model": tiny, "role": "mixed", "kv_gib": 0.05, **has["worker"]}
    worker = harness.Process("worker", "worker", options, tmp_path)
    address = f"127.0.0.1:{worker.wait_ready()['rpc']}"
    options = {"model": tiny, "listen": "127.0.0.1:0", "workers": address, **has["router"]}
    router = harness.Process("router", "router", options, tmp_path)
    router.wait_ready()
    how = "is refused:" if router_has_them else "refuses us:"
    line = f"no connection: {address} {how} it speaks no TLS, which is needed here\n"
    why = "it speaks TLS, and no certificate is set here"
    if not router_has_them:
        why = "it speaks no TLS, which is needed here"
    try:
        harness.wait_for(lambda: line in router.log.read_text(), 5, "the router says so")
        harness.wait_for(lambda: worker.log.read_text().count(why) > 1, 5, "the worker says so")
        assert router.log.read_text().count(line) == 1, "once, not at each attempt"
        url = f"http://127.0.0.1:{router.ports['http']}/ready"
        assert requests.get(url, timeout=5).status_code == 503
    finally:
        assert router.stop() == 0
        assert worker.stop() == 0


def test_up_with_certificates(baton_is_built, tiny, authority):
    files = harness.flags(authority.issue("all"))
    ran = up.Up(tiny, "--once", "pass it on", "--ask-tokens", "4", "--log-level", "info", *files)
    status, out, err = ran.end()
    assert status == 0, err
    assert out.strip()
    assert "no connection" not in err and "refused" not in err


def run(command: str, options: dict) -> tuple[int, str]:
    ran = subprocess.run(
        [harness.BIN, command, *harness.flags(options)], capture_output=True, text=True, timeout=20
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("command", ["up", "router", "worker"])
def test_files_that_cannot_be_used_are_named(command, baton_is_built, tiny, authority):
    files = authority.issue("postgres", ["postgres"])
    options = {"model": tiny, **files} | ({"workers": "127.0.0.1:1"} if command == "router" else {})
    status, err = run(command, options)
    assert status == 2
    assert f"tls-cert '{files['tls_cert']}' cannot be used: its DNS names lack 'baton-" in err
    del options["tls_key"]
    status, err = run(command, options)
    assert status == 2
    assert "tls-cert, tls-key and tls-ca go together" in err
