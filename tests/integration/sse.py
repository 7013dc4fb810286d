"""Server-sent events, read strictly: a frame that a browser would forgive is an error here."""

import json


class SseError(AssertionError):
    pass


class SseParser:
    """Feed it bytes as they arrive; it gives back the data of each event that is whole.

    Every event must be `data: ...` and an empty line, and valid UTF-8 by itself: a character
    must never be cut in two.
    """

    def __init__(self):
        self._buffer = b""
        self.done = False

    def feed(self, chunk: bytes) -> list[str]:
        self._buffer += chunk
        *events, self._buffer = self._buffer.split(b"\n\n")
        return [data for event in events if (data := self._data(event)) is not None]

    def _data(self, event: bytes) -> str | None:
        if self.done:
            raise SseError(f"after [DONE]: {event!r}")
        if event.startswith(b":"):
            return None  # a comment, sent to keep the connection alive
        if not event.startswith(b"data: ") or b"\n" in event or b"\r" in event:
            raise SseError(f"not one data line: {event!r}")
        try:
            text = event[len(b"data: ") :].decode("utf-8", errors="strict")
        except UnicodeDecodeError as error:
            raise SseError(f"broken UTF-8: {event!r}") from error
        self.done = text == "[DONE]"
        return text

    def finish(self) -> None:
        if self._buffer:
            raise SseError(f"the stream ends inside an event: {self._buffer!r}")


def events_of(chunks) -> list[dict]:
    """All events of a whole body, parsed; [DONE] must be the last unless an error was."""
    parser, events = SseParser(), []
    for chunk in chunks:
        events += [json.loads(data) for data in parser.feed(chunk) if data != "[DONE]"]
    parser.finish()
    if not parser.done and not (events and "error" in events[-1]):
        raise SseError("the stream ended with neither [DONE] nor an error")
    return events


def text_of(events: list[dict], choice: int = 0) -> str:
    """The text of one choice, of /v1/completions or /v1/chat/completions."""
    parts = []
    for event in events:
        for item in event.get("choices", []):
            if item["index"] == choice:
                parts.append(item.get("text") or item.get("delta", {}).get("content") or "")
    text = "".join(parts)
    text.encode("utf-8")  # a lone surrogate would fail here
    return text
