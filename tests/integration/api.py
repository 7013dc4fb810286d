"""Calls to the server as the tests make them."""

import harness
import requests
import sse


def post(cluster, path: str, body: dict, **extra) -> requests.Response:
    body = {"model": cluster.model_name} | body
    return requests.post(cluster.url + path, json=body, timeout=60 * harness.PATIENCE, **extra)


def complete(cluster, prompt, **fields) -> dict:
    answer = post(cluster, "/v1/completions", {"prompt": prompt, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat(cluster, content, **fields) -> dict:
    messages = [{"role": "user", "content": content}]
    answer = post(cluster, "/v1/chat/completions", {"messages": messages, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream_complete(cluster, prompt, **fields) -> list[dict]:
    body = {"prompt": prompt, "stream": True, **fields}
    answer = post(cluster, "/v1/completions", body, stream=True)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return sse.events_of(answer.iter_content(None))
