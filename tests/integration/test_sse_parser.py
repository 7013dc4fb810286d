"""The parser that the other tests trust."""

import pytest
import sse


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_survive_any_cut(size):
    body = 'data: {"a": "é😀"}\n\n: still here\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'.encode()
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    assert sse.events_of(chunks) == [{"a": "é😀"}, {"b": 2}]


@pytest.mark.parametrize(
    "body",
    [
        b"data: {}\n\n",
        b"data: [DONE]\n\ndata: {}\n\n",
        b"data: {}\ndata: {}\n\ndata: [DONE]\n\n",
        b"event: x\n\ndata: [DONE]\n\n",
        b'data: "\xf0\x9f"\n\ndata: [DONE]\n\n',
        b"data: {}\r\n\r\ndata: [DONE]\n\n",
        b"data: [DONE]\n\ndata: x",
        b"",
    ],
)
def test_what_is_not_strict_is_refused(body):
    with pytest.raises(sse.SseError):
        sse.events_of([body])


def test_an_error_may_end_a_stream():
    assert "error" in sse.events_of([b'data: {"error": {"message": "m"}}\n\n'])[-1]
