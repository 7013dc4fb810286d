"""Streamed completions that go on in the background, whatever happens to the cluster."""

import threading

import api
import harness
import sse


class Stream(threading.Thread):
    """One streamed completion, read in the background."""

    def __init__(self, cluster, prompt: str, **fields):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.body = {"prompt": prompt, "stream": True, "temperature": 0, "ignore_eos": True}
        self.body |= fields
        self.events: list[dict] = []
        self.failure: Exception | None = None
        self.refusal: dict | None = None
        self.start()

    def run(self):
        try:
            answer = api.post(self.cluster, "/v1/completions", self.body, stream=True)
            if answer.status_code != 200:
                self.refusal = answer.json()["error"]
                return
            parser = sse.SseParser()
            for chunk in answer.iter_content(None):
                self.events += [
                    sse.json.loads(data) for data in parser.feed(chunk) if data != "[DONE]"
                ]
            parser.finish()
            assert parser.done or self.error, "neither [DONE] nor an error"
        except Exception as failure:  # reported by the main thread
            self.failure = failure

    @property
    def error(self) -> dict | None:
        """The one clear error that ended it, if any did."""
        if self.refusal:
            return self.refusal
        errors = [event["error"] for event in self.events if "error" in event]
        assert len(errors) <= 1
        assert not errors or "error" in self.events[-1]
        return errors[0] if errors else None

    @property
    def text(self) -> str:
        return sse.text_of(self.events)

    def end(self) -> "Stream":
        self.join(60 * harness.PATIENCE)
        assert not self.is_alive(), "the stream hangs"
        assert self.failure is None, self.failure
        return self


def reference(cluster, bodies: list[dict]) -> list[str]:
    """Their texts. What comes next is placed on workers that the router knows to be idle."""
    streams = [Stream(cluster, **body) for body in bodies]
    texts = [stream.end().text for stream in streams]
    assert all(stream.error is None for stream in streams)
    harness.wait_for(lambda: looks_idle(cluster), 10, "the router has heard that all are idle")
    return texts


def looks_idle(cluster) -> bool:
    """Workers tell of their load every 50 ms: until then, what has ended counts as running."""
    router = cluster.metrics()
    names = ["vllm:num_requests_running", "vllm:kv_cache_usage_perc"]
    return all(router.has(name) and router.sum(name) == 0 for name in names)


def check(streams: list[Stream], expected: list[str]) -> int:
    """Each has its whole text, or a part of it and one error; returns how many were whole."""
    whole = 0
    for stream, text in zip(streams, expected):
        stream.end()
        if error := stream.error:
            assert set(error) == {"message", "type", "param", "code"}
            assert error["message"]
            assert text.startswith(stream.text)
        else:
            assert stream.text == text, "a token was lost, doubled or changed"
            whole += 1
    return whole


def blocks_held(cluster) -> float:
    scrapes = [cluster.metrics(worker) for worker in cluster.workers]
    return sum(
        scrape.sum("baton_kv_blocks", state=state)
        for scrape in scrapes
        for state in ["active", "quarantined"]
    )
