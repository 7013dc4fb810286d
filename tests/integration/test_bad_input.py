"""Hostile and malformed requests over raw sockets: the right answer to each, and it serves on."""

import concurrent.futures
import json
import random
import re
import socket
import time

import api
import bad_requests
import harness
import pytest

CONTEXT = 4096  # of the tiny model
CASES = [
    *bad_requests.protocol(),
    *bad_requests.routes(),
    *bad_requests.bodies("MODEL"),
    *bad_requests.fields("MODEL", CONTEXT),
]


def connect(cluster, seconds: float = 15) -> socket.socket:
    return socket.create_connection(("127.0.0.1", cluster.port), seconds * harness.PATIENCE)


def exchange(cluster, raw: bytes, half_close: bool = False) -> bytes:
    """Sends all of it and reads until one whole answer is there or the server hangs up."""
    with connect(cluster) as connection:
        try:
            connection.sendall(raw)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it need not read on once it has refused
        got = b""
        while not is_whole(got):
            try:
                part = connection.recv(1 << 16)
            except ConnectionResetError:
                break
            if not part:
                break
            got += part
        return got


def is_whole(answer: bytes) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return body.endswith(b"0\r\n\r\n")


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {n.lower(): v.strip() for n, v in (line.split(":", 1) for line in lines)}
    return int(status.split()[1]), headers, body


def test_the_table_is_large_and_names_are_distinct():
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_as_it_must_be(split, case):
    raw = case.raw
    if b"MODEL" in raw:
        raw = with_model(raw, split.model_name.encode())
    answer = exchange(split, raw, case.half_close)
    if case.status == 0:
        assert answer == b""
        return
    assert answer, "it hung up without a word"
    status, headers, body = parse(answer)
    assert status == case.status, answer[:500]
    assert headers["content-type"].startswith("application/json")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert len(error["message"]) < 1000, "an error does not carry the request back"
    assert case.says in error["message"]
    if case.param is not None:
        assert (error["param"] or "").split("[")[0].split(".")[0] == case.param
    if status == 405:
        assert headers["allow"]


def with_model(raw: bytes, name: bytes) -> bytes:
    """The table is made before any server is up: puts the model's real name in."""
    head, _, body = raw.partition(b"\r\n\r\n")
    changed = body.replace(b"MODEL", name)
    head = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % len(changed))
    return head + b"\r\n\r\n" + changed


@pytest.fixture(autouse=True)
def _serves_on(split):
    yield
    assert api.complete(split, "still there", max_tokens=1)["choices"]


def test_pipelined_requests_are_answered_in_order(split):
    with connect(split) as connection:
        wanted = [b"/health", b"/nowhere", b"/version"] * 3
        connection.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % p for p in wanted))
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = b""
        while part := connection.recv(1 << 16):
            got += part
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", got)]
    assert statuses == [200, 404, 200] * 3 + [200]


def test_a_body_byte_by_byte(split):
    raw = bad_requests.completion(split.model_name)
    with connect(split) as connection:
        for i in range(len(raw)):
            connection.sendall(raw[i : i + 1])
        assert b"200 OK" in connection.recv(1 << 16)


def test_chunked_body_is_taken(split):
    body = json.dumps({"model": split.model_name, "prompt": "x", "max_tokens": 1}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7])
                      for i in range(0, len(body), 7))  # fmt: skip
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse(exchange(split, head + chunks + b"0\r\n\r\n"))[0] == 200


def test_hundreds_of_idle_connections_harm_nobody(split):
    idle = [connect(split) for _ in range(300)]
    for connection in idle[::2]:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-")
    assert api.complete(split, "others", max_tokens=2)
    for connection in idle:
        connection.close()


@pytest.mark.slow
@pytest.mark.timeout(120 * harness.PATIENCE)
def test_slow_headers_are_cut_off(split):
    with connect(split, seconds=90) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        started = time.monotonic()
        answer = connection.recv(1 << 16)
        assert time.monotonic() - started < 60 * harness.PATIENCE
        assert answer == b"" or b" 408 " in answer or b" 400 " in answer


def test_random_bytes_never_stop_the_server(split):
    source = random.Random(7)
    good = bad_requests.completion(split.model_name)

    def one(_):
        raw = bytearray(good)
        for _ in range(source.randrange(1, 8)):
            raw[source.randrange(len(raw))] = source.randrange(256)
        return exchange(split, bytes(raw), half_close=True)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for answer in pool.map(one, range(200)):
            if answer:
                assert parse(answer)[0] in range(200, 506)
                assert parse(answer)[0] != 500, answer


@pytest.mark.parametrize("end", ["close", "reset"])
def test_clients_that_leave_at_once(split, end):
    raw = bad_requests.completion(split.model_name, max_tokens=500, stream=True)
    for i in range(40):
        connection = connect(split)
        connection.sendall(raw[: len(raw) - (i % 3)])
        if end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    def quiet() -> bool:
        return all(
            split.metrics(worker).sum("baton_kv_blocks", state="active") == 0
            for worker in split.workers
        )

    harness.wait_for(quiet, 1, "nothing is held for who left")


def test_a_slow_reader_is_cut_off_and_slows_nobody(start_cluster, tiny):
    cluster = start_cluster(tiny, prefill=1, decode=1)
    raw = bad_requests.completion(
        cluster.model_name, prompt="x", max_tokens=3900, n=20, stream=True, ignore_eos=True,
        logprobs=20,
    )  # fmt: skip
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", cluster.port))
    slow.sendall(raw)  # and reads nothing
    started = time.monotonic()
    api.complete(cluster, "quick", max_tokens=20, ignore_eos=True)
    assert time.monotonic() - started < 20 * harness.PATIENCE

    def cut_off() -> bool:
        return cluster.metrics().sum("baton_router_cut_off_total", reason="too_slow") == 1

    harness.wait_for(cut_off, 60, "the slow reader is cut off")
    decode = cluster.metrics("decode-0")
    assert decode.sum("vllm:generation_tokens_total") < 20 * 3900, "before all of it was computed"
    slow.close()


def test_api_key(start_cluster, tiny, tmp_path):
    keys = tmp_path / "keys"
    harness.write_private(keys, "first-key\nsecond-key\n")
    cluster = start_cluster(tiny, router_options={"api_key_file": keys}, mixed=1)
    body = json.dumps({"prompt": "x", "model": "tiny", "max_tokens": 1}).encode()

    def status(header: str) -> int:
        return parse(exchange(cluster, bad_requests.post("/v1/completions", body, header)))[0]

    for header in ["", "Authorization: Bearer \r\n", "Authorization: Bearer wrong\r\n",
                   "Authorization: Basic first-key\r\n", "Authorization: Bearer first-ke\r\n",
                   "Authorization: Bearer first-key2\r\n"]:  # fmt: skip
        assert status(header) == 401, header
    for key in ["first-key", "second-key"]:
        assert status(f"Authorization: Bearer {key}\r\n") == 200
    assert parse(exchange(cluster, bad_requests.get("/health")))[0] == 200
