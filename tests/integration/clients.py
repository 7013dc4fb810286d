"""Clients that ask again and again, of emulated workers, and know what the answers must be."""

import itertools
import random
import threading

import harness
import hash_model
import requests
import sse

VOCAB, EOS = 512, (2,)  # of tiny_model


class Client(threading.Thread):
    """Asks again and again over one connection; half of its answers are streams."""

    def __init__(self, url: str, model: str, number: int, stopped: threading.Event):
        super().__init__(daemon=True)
        self._url, self._model, self._number, self._stopped = url, model, number, stopped
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

    def _ask(self, session, draw: random.Random, turn: int):
        prompt = [draw.randrange(3, 300) for _ in range(draw.randrange(20, 200))]
        tokens, streams = draw.randrange(5, 80), turn % 2 == 0
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "seed": turn,
            "stream": streams,
        }
        answer = session.post(
            self._url + "/v1/completions", json=body, timeout=60 * harness.PATIENCE
        )
        assert answer.status_code == 200, answer.text
        if streams:
            text = sse.text_of(sse.events_of([answer.content]))
        else:
            text = answer.json()["choices"][0]["text"]
        wanted = hash_model.output(prompt, tokens, VOCAB, EOS, turn)
        shown = session.post(
            self._url + "/detokenize", json={"model": self._model, "tokens": wanted}, timeout=20
        )
        assert shown.status_code == 200, shown.text
        expected = shown.json()["prompt"].replace("<|endoftext|>", "").replace("<|im_start|>", "")
        assert text == expected, f"seed {turn}"


class Clients:
    """Many at once, for as long as a block lasts; at its end none of them may have seen a fault."""

    def __init__(self, url: str, model: str, count: int):
        self._stopped = threading.Event()
        self._clients = [Client(url, model, i, self._stopped) for i in range(count)]

    @property
    def answered(self) -> int:
        return sum(client.answered for client in self._clients)

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
