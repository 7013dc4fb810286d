"""Hostile and malformed requests, each with the answer that it must get."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Bad:
    name: str
    raw: bytes
    status: int  # 0: none
    says: str = ""  # in the error's message
    param: str | None = None
    half_close: bool = False  # shut down our side after sending


def post(path: str, body: bytes, extra: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


def get(target: str, extra: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()


def completion(model_name: str, **fields) -> bytes:
    body = {"model": model_name, "prompt": "x", "max_tokens": 2} | fields
    return post("/v1/completions", json.dumps(body).encode())


def chat(model_name: str, **fields) -> bytes:
    messages = [{"role": "user", "content": "x"}]
    body = {"model": model_name, "messages": messages, "max_tokens": 2}
    return post("/v1/chat/completions", json.dumps(body | fields).encode())


def chunked(body: bytes, extra: str = "") -> bytes:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{extra}Transfer-Encoding: chunked\r\n\r\n"
    return head.encode() + body


def coded(transfer_encoding: str) -> bytes:
    """With a length as well, which another server may go by."""
    both = f"Transfer-Encoding: {transfer_encoding}\r\nContent-Length".encode()
    return post("/v1/completions", b"{}").replace(b"Content-Length", both)


def protocol() -> list[Bad]:
    """Below the API: what is hardly HTTP."""
    long_header = "X-Long: " + "a" * 100_000 + "\r\n"
    many_headers = "".join(f"X-{i}: y\r\n" for i in range(5_000))
    over_cap = 64 << 20
    smuggled = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
    return [
        Bad("binary garbage", bytes(range(256)) * 4 + b"\r\n\r\n", 400),
        Bad("tls hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n", 400),
        Bad("no version", b"GET /health\r\n\r\n", 400),
        Bad("http 9.9", b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        Bad("http2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        Bad("method with blanks", b"G ET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        Bad("header without colon", b"GET /health HTTP/1.1\r\nHost x\r\n\r\n", 400),
        Bad("nul in header", b"GET /health HTTP/1.1\r\nHost: localhost\0y\r\n\r\n", 400),
        Bad("blank before colon", b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        Bad("header too long", get("/health", long_header), 431),
        Bad("too many headers", get("/health", many_headers), 431),
        Bad("target too long", get("/" + "a" * 100_000), 431),
        Bad("length over the cap", post("/v1/completions", b"", "").replace(
            b"Content-Length: 0", b"Content-Length: %d" % over_cap), 413),
        Bad("length is no number", post("/v1/completions", b"").replace(
            b"Content-Length: 0", b"Content-Length: ten"), 400),
        Bad("length is negative", post("/v1/completions", b"").replace(
            b"Content-Length: 0", b"Content-Length: -5"), 400),
        Bad("length overflows", post("/v1/completions", b"").replace(
            b"Content-Length: 0", b"Content-Length: 99999999999999999999999"), 400),
        Bad("two lengths", post("/v1/completions", b"{}", "Content-Length: 7\r\n"), 400),
        Bad("length and chunked", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            + smuggled.encode() + b"\r\n0\r\n\r\n", 400),
        Bad("chunk size is no number", chunked(b"zz\r\n"), 400),
        Bad("chunk size overflows", chunked(b"ffffffffffffffffff\r\n"), 400),
        Bad("one chunk over the cap", chunked(b"7fffffff\r\n"), 413),
        Bad("sum of chunks over the cap",
            chunked((b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 65), 413, str(4 << 20)),
        Bad("long trailer", chunked(b"0\r\nA: " + b"a" * 100_000 + b"\r\n\r\n"), 413),
        Bad("many trailers", chunked(b"0\r\n" + b"A: b\r\n" * 20_000 + b"\r\n"), 413),
        Bad("endless trailer", chunked(b"0\r\nA: " + b"a" * 100_000), 413),
        Bad("endless chunk extension", chunked(b"2;" + b"a" * 100_000), 413),
        Bad("endless chunk size", chunked(b"0" * 100_000), 413),
        Bad("long trailer, no API path",
            chunked(b"0\r\nA: " + b"a" * 100_000 + b"\r\n\r\n").replace(
                b"POST /v1/completions", b"GET /health"), 413),
        Bad("unknown transfer coding", coded("xchunked"), 501, "Transfer-Encoding"),
        Bad("identity as transfer coding", coded("identity"), 501),
        Bad("length, then a transfer coding",
            post("/v1/completions", b"{}", "Transfer-Encoding: identity\r\n"), 400),
        Bad("two transfer codings", chunked(b"0\r\n\r\n", "Transfer-Encoding: gzip\r\n"), 501),
        Bad("compressed, then chunked", chunked(b"0\r\n\r\n").replace(
            b": chunked", b": gzip, chunked"), 501),
        Bad("compressed body", post("/v1/completions", b"{}", "Content-Encoding: gzip\r\n"),
            415, "Content-Encoding"),
        Bad("body cut short", post("/v1/completions", b'{"model"').replace(
            b"Content-Length: 8", b"Content-Length: 80"), 400, half_close=True),
        Bad("header cut short", b"POST /v1/comp", 400, half_close=True),
        Bad("unknown expectation", post("/v1/completions", b"{}", "Expect: a miracle\r\n"),
            417),
        Bad("empty", b"", 0, half_close=True),
    ]  # fmt: skip


def routes() -> list[Bad]:
    return [
        Bad("unknown path", get("/v2/completions"), 404),
        Bad("path climbs", get("/../../etc/passwd"), 404),
        Bad("path climbs encoded", get("/v1/%2e%2e/%2e%2e/etc/passwd"), 404),
        Bad("wrong method", get("/v1/completions"), 405),
        Bad("post to models", post("/v1/models", b"{}"), 405),
        Bad("delete health", b"DELETE /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        Bad("unknown method", b"FROB /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        Bad("connect", b"CONNECT example.org:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        Bad("unknown model page", get("/v1/models/nobody"), 404),
    ]


def bodies(model: str) -> list[Bad]:
    """JSON that is none, or not of the right shape."""
    name = json.dumps(model).encode()

    def text(body: bytes) -> bytes:
        return post("/v1/completions", body)

    deep = b'{"model": ' + name + b', "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    return [
        Bad("empty body", text(b""), 400),
        Bad("not json", text(b"hello"), 400),
        Bad("cut json", text(b'{"model": "x", "prompt": "'), 400),
        Bad("json then more", text(b'{"model": ' + name + b', "prompt": "x"} {"a": 1}'), 400),
        Bad("array for object", text(b"[1, 2]"), 400),
        Bad("null for object", text(b"null"), 400),
        Bad("deep nesting", text(deep), 400),
        Bad("not utf-8", text(b'{"model": ' + name + b', "prompt": "\xff\xfe"}'), 400),
        Bad("half a surrogate", text(b'{"model": ' + name + b', "prompt": "\\ud800"}'), 400),
        Bad("overlong utf-8", text(b'{"model": ' + name + b', "prompt": "\xc0\xaf"}'), 400),
        Bad("number overflows", text(
            b'{"model": ' + name + b', "prompt": "x", "temperature": 1e9999}'), 400),
        Bad("nan", text(b'{"model": ' + name + b', "prompt": "x", "temperature": NaN}'), 400),
        Bad("doubled field", text(
            b'{"model": ' + name + b', "prompt": "x", "prompt": "y"}'), 400),
        Bad("doubled long field", text(
            b'{"model": ' + name + 2 * (b', "' + b"x" * 1_000_000 + b'": 1') + b"}"), 400,
            "twice"),
        Bad("utf-16", text('{"model": "x"}'.encode("utf-16")), 400),
    ]  # fmt: skip


def fields(model: str, context: int) -> list[Bad]:
    """Well-formed requests that ask for what cannot be."""

    def bad(param: str, value, says: str = "", build=completion) -> Bad:
        shown = str(value)
        shown = shown if len(shown) < 60 else f"{shown[:50]}... ({len(shown)})"
        return Bad(f"{build.__name__} {param}={shown}", build(model, **{param: value}), 400,
                   says, param.split(".")[0])  # fmt: skip

    unsupported = [
        bad(param, value, param, chat)
        for param, value in {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": "auto",
            "functions": [{"name": "f"}],
            "response_format": {"type": "json_object"},
            "chat_template": "{{ 1 }}",
            "modalities": ["audio"],
        }.items()
    ]
    image = [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]
    messages = [
        [], "hello", [1], [{"role": "user"}], [{"content": "x"}],
        [{"role": "king", "content": "x"}],
        [{"role": "user", "content": 5}], [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": image}], [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": "x"}] * 10_000,
    ]  # fmt: skip
    too_long = Bad("context too long", completion(model, prompt=[1] * (context + 1)), 400,
                   str(context))  # fmt: skip
    return [
        *unsupported,
        *(bad("messages", value, build=chat) for value in messages),
        too_long,
        Bad("prompt and output too long",
            completion(model, prompt=[1] * (context - 10), max_tokens=50), 400, str(context)),
        bad("temperature", -0.1),
        bad("temperature", 99),
        bad("temperature", "hot"),
        bad("top_p", 0),
        bad("top_p", 1.5),
        bad("top_k", -7),
        bad("min_p", 2),
        bad("seed", 1.5),
        bad("seed", "x"),
        bad("n", 0),
        bad("n", 1_000_000),
        bad("n", True),
        bad("max_tokens", -1),
        bad("max_tokens", 1.5),
        bad("max_tokens", 10**30),
        bad("min_tokens", -1),
        bad("presence_penalty", 3),
        bad("frequency_penalty", -3),
        bad("repetition_penalty", 0),
        bad("logprobs", 1000),
        bad("logprobs", -1),
        bad("top_logprobs", 5, build=chat),
        # Each of these has its place on the other path.
        bad("top_logprobs", 2),
        bad("messages", [{"role": "user", "content": "x"}]),
        bad("tools", [{"type": "function", "function": {"name": "f"}}]),
        bad("max_completion_tokens", 0),
        bad("best_of", 2, build=chat),
        bad("echo", True, build=chat),
        bad("prompt", "x", build=chat),
        bad("stop", ["x"] * 1000),
        bad("stop", "x" * 100_000),
        bad("stop", ""),
        bad("stop", {"a": 1}),
        bad("stop_token_ids", [-1]),
        bad("logit_bias", {"x": 1}),
        bad("logit_bias", {"1": 1e6}),
        bad("logit_bias", {"99999999": 1}),
        bad("logit_bias", {str(i): 1 for i in range(5000)}),
        bad("stream", "yes"),
        bad("stream_options", 7),
        bad("echo", "no"),
        bad("ignore_eos", 1),
        bad("best_of", 5),
        bad("suffix", "end", "suffix"),
        bad("prompt", None),
        bad("prompt", ""),
        bad("prompt", []),
        bad("prompt", [[]]),
        bad("prompt", 7),
        bad("prompt", {"text": "x"}),
        bad("prompt", ["a", 1]),
        bad("prompt", [1, "a"]),
        bad("prompt", [-1]),
        bad("prompt", [10**9]),
        bad("prompt", [1.5]),
        bad("prompt", ["x"] * 100_000),
        bad("model", 5),
        Bad("unknown model", completion("nobody"), 404, "nobody", "model"),
        Bad("unknown model in chat", chat("../../etc/passwd"), 404, param="model"),
        Bad("detokenize what is no token",
            post("/detokenize", json.dumps({"model": model, "tokens": [10**8]}).encode()), 400),
        Bad("tokenize a number",
            post("/tokenize", json.dumps({"model": model, "prompt": 5}).encode()), 400),
    ]  # fmt: skip
