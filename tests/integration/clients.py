"""Clients that ask again and again, and know what the answers must be."""

import itertools
import random
import threading

import harness
import hash_model
import requests
import sse

VOCAB, EOS = 512, (2,)  # of tiny_model


class EmulatedAsker:
    """Asks emulated workers, whose answers can be computed; every other one is a stream."""

    def __init__(self, url: str, model: str):
        self._url, self._model = url, model

    def __call__(self, session: requests.Session, draw: random.Random, turn: int):
        prompt = [draw.randrange(3, 300) for _ in range(draw.randrange(20, 200))]
        tokens = draw.randrange(5, 80)
        text = complete(
            session,
            self._url,
            model=self._model,
            prompt=prompt,
            max_tokens=tokens,
            seed=turn,
            stream=turn % 2 == 0,
        )
        wanted = hash_model.output(prompt, tokens, VOCAB, EOS, turn)
        shown = session.post(
            self._url + "/detokenize", json={"model": self._model, "tokens": wanted}, timeout=20
        )
        assert shown.status_code == 200, shown.text
        expected = shown.json()["prompt"].replace("<|endoftext|>", "").replace("<|im_start|>", "")
        assert text == expected, f"seed {turn}"


def complete(session: requests.Session, url: str, **body) -> str:
    """The text of one completion, streamed or not."""
    answer = session.post(url + "/v1/completions", json=body, timeout=60 * harness.PATIENCE)
    assert answer.status_code == 200, answer.text
    if body.get("stream"):
        return sse.text_of(sse.events_of([answer.content]))
    return answer.json()["choices"][0]["text"]


class Client(threading.Thread):
    """Asks again and again over one connection."""

    def __init__(self, ask, number: int, stopped: threading.Event):
        super().__init__(daemon=True)
        self._ask, self._number, self._stopped = ask, number, stopped
        self.answered = 0
        self.wrong: list[str] = []
        self.start()

    def run(self):
        draw = random.Random(self._number)
        with requests.Session() as session:
            for turn in itertools.count():
                if self._stopped.is_set():
                    return
                try:
                    self._ask(session, draw, turn)
                except Exception as failure:  # reported by the main thread
                    self.wrong.append(repr(failure))
                self.answered += 1


class Clients:
    """Many at once, for as long as a block lasts; at its end none of them may have seen a fault.

    `ask(session, draw, turn)` is called by all of them, and raises what is wrong with an answer.
    """

    def __init__(self, ask, count: int):
        self._stopped = threading.Event()
        self._clients = [Client(ask, i, self._stopped) for i in range(count)]

    @property
    def answered(self) -> int:
        return sum(client.answered for client in self._clients)

    def wait_for_each(self, count: int):
        """Until each of them has had so many more answers."""
        wanted = [client.answered + count for client in self._clients]
        harness.wait_for(
            lambda: all(c.answered >= most for c, most in zip(self._clients, wanted)),
            30,
            f"{count} more answers for each client",
        )

    def wait_more(self, count: int):
        wanted = self.answered + count
        harness.wait_for(lambda: self.answered >= wanted, 30, f"{count} more answers")

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, failed, *_):
        self._stopped.set()
        for client in self._clients:
            client.join(60 * harness.PATIENCE)
        if not failed:
            assert [wrong for client in self._clients for wrong in client.wrong] == []
