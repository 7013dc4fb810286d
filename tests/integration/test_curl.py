"""The requests that the README shows, by curl."""

import json
import subprocess

import sse


def curl(*args: str) -> str:
    shown = subprocess.run(
        ["curl", "-sS", "-i", "--max-time", "30", *args], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def split_answer(shown: str) -> tuple[int, dict[str, str], str]:
    head, body = shown.replace("\r\n", "\n").split("\n\n", 1)
    status, *fields = head.split("\n")
    headers = {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}
    return int(status.split()[1]), headers, body


def post(split, path: str, body: dict, *args: str):
    body = {"model": split.model_name} | body
    return split_answer(
        curl(
            split.url + path, "-H", "Content-Type: application/json", "-d", json.dumps(body), *args
        )
    )


def test_chat(split):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    status, headers, text = post(split, "/v1/chat/completions", body)
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    assert json.loads(text)["choices"][0]["message"]["role"] == "assistant"


def test_stream_is_server_sent_events(split):
    body = {"prompt": "hi", "max_tokens": 5, "stream": True}
    status, headers, text = post(split, "/v1/completions", body, "-N")
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert "no-cache" in headers["cache-control"]
    assert text.endswith("data: [DONE]\n\n")
    assert sse.events_of([text.encode()])


def test_tokenize_and_back(split):
    text = "Pass the baton, 日本 😀!"
    status, _, body = post(split, "/tokenize", {"prompt": text})
    assert status == 200
    tokens = json.loads(body)["tokens"]
    assert json.loads(body)["count"] == len(tokens)
    status, _, body = post(split, "/detokenize", {"tokens": tokens})
    assert status == 200
    assert json.loads(body)["prompt"] == text


def test_small_endpoints(split):
    for path in ["/health", "/ready", "/version", "/metrics", "/v1/models"]:
        status, _, body = split_answer(curl(split.url + path))
        assert status == 200, path
        assert body or path in ("/health", "/ready")
    assert json.loads(split_answer(curl(split.url + "/version"))[2])["version"]


def test_keep_alive_serves_several_requests(split):
    health = split.url + "/health"
    shown = curl("-v", "--stderr", "-", health, health)
    assert shown.count("HTTP/1.1 200") >= 2
    assert "Re-using existing connection" in shown or "Reusing existing connection" in shown


def test_expect_continue(split):
    body = {"model": split.model_name, "prompt": "word " * 600, "max_tokens": 1}
    shown = curl(
        split.url + "/v1/completions", "-H", "Content-Type: application/json",
        "-H", "Expect: 100-continue", "-d", json.dumps(body),
    )  # fmt: skip
    assert "HTTP/1.1 100" in shown
    assert "HTTP/1.1 200" in shown


def test_error_is_json(split):
    status, _, body = post(split, "/v1/completions", {"prompt": "x", "model": "nobody"})
    assert status == 404
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
