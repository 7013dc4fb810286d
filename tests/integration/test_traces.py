"""--otlp-endpoint: what a collector gets, read with the protocol's own messages."""

import http.server
import json
import ssl
import subprocess
import threading

import api
import certificates
import harness
import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service


SECRET_WORDS = "the baton goes from hand to hand"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Keeps the spans that it is sent."""

    def __init__(self, certificate: dict | None = None):
        self.spans, self.headers, self.resources = [], [], []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                collector.take(dict(self.headers), body)
                answer = trace_service.ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme, host = "http", "127.0.0.1"
        if certificate:
            scheme, host = "https", "localhost"
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(certificate["tls_cert"], certificate["tls_key"])
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{scheme}://{host}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, headers: dict, body: bytes) -> None:
        message = trace_service.ExportTraceServiceRequest()
        message.ParseFromString(body)
        # Nothing that the official messages do not know.
        message.DiscardUnknownFields()
        assert message.SerializeToString(deterministic=True) and len(body) == message.ByteSize()
        self.headers.append(headers)
        for resource in message.resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def trace_of(self, request_id: str) -> list:
        """All spans of that request's trace, its first one first."""

        def find():
            roots = [s for s in self.spans if attributes(s).get("baton.request_id") == request_id]
            if not roots:
                return None
            return [roots[0]] + [
                s for s in self.spans if s.trace_id == roots[0].trace_id and s is not roots[0]
            ]

        return harness.wait_for(find, 10, f"spans of {request_id}")


def attributes(of) -> dict:
    values = {a.key: a.value for a in of.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}


@pytest.fixture(scope="module")
def collector():
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("access") / "access.jsonl"


@pytest.fixture(scope="module")
def cluster(start_shared_cluster, tiny, collector, log, tmp_path_factory):
    headers = tmp_path_factory.mktemp("headers") / "headers"
    harness.write_private(headers, "# for the collector\nx-token: s3cret\n")
    options = harness.ALL_HANDED_OFF | {
        "otlp_endpoint": collector.url, "otlp_headers_file": headers, "access_log": log,
        "trace_sample_ratio": 1,
    }  # fmt: skip
    return start_shared_cluster(tiny, options, prefill=1, decode=1)


def ask(cluster, name: str, traceparent=None, tracestate=None, **fields) -> requests.Response:
    headers = {"x-request-id": name, "traceparent": traceparent, "tracestate": tracestate}
    body = {"prompt": SECRET_WORDS * 4, "max_tokens": 5, "ignore_eos": True} | fields
    return api.post(cluster, "/v1/completions", body, headers=headers)


def line_of(log, name: str) -> dict:
    def find():
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return next((line for line in lines if line["id"] == name), None)

    return harness.wait_for(find, 5, f"line of {name}")


def test_a_request_is_a_tree_of_stages_below_the_callers_span(cluster, collector, log):
    ask(cluster, "mine", f"00-{TRACE}-{PARENT}-01", "vendor=1,other=2", stream=True).content
    root, *parts = collector.trace_of("mine")
    assert root.trace_id.hex() == TRACE and root.parent_span_id.hex() == PARENT
    assert root.trace_state == "vendor=1,other=2"
    assert root.name == "POST /v1/completions"
    by_name = {span.name: span for span in parts}
    assert set(by_name) == {
        "parse", "admission", "reserve", "prefill", "prefill_queue", "prefill_compute", "handover",
        "parked", "exposed_transfer", "decode_queue", "first_step", "relay", "decode",
    }  # fmt: skip
    below = {span.name: span.span_id for span in [root, *parts]}
    for span in parts:
        assert len(span.span_id) == 8 and span.trace_id == root.trace_id
        assert root.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= root.end_time_unix_nano
    for name in ["parse", "admission", "reserve", "prefill", "handover", "decode"]:
        assert by_name[name].parent_span_id == root.span_id
    for name in ["prefill_queue", "prefill_compute"]:
        assert by_name[name].parent_span_id == below["prefill"]
    for name in ["parked", "exposed_transfer", "decode_queue", "first_step", "relay"]:
        assert by_name[name].parent_span_id == below["handover"]
    said = attributes(root)
    assert said["gen_ai.usage.output_tokens"] == 5 and said["http.response.status_code"] == 200
    assert attributes(by_name["prefill"])["baton.worker"] == "prefill-0"
    assert attributes(by_name["decode"])["baton.worker"] == "decode-0"
    assert attributes(by_name["handover"])["baton.kv_bytes"] > 0
    assert line_of(log, "mine")["trace_id"] == TRACE
    assert collector.resources[-1]["service.name"] == "baton-router"
    assert collector.headers[-1]["x-token"] == "s3cret"


@pytest.mark.parametrize("given", [None, "nonsense", f"00-{TRACE}-{'0' * 16}-01",
                                   f"00-{TRACE.upper()}-{PARENT}-01"])  # fmt: skip
def test_without_a_proper_traceparent_a_trace_begins_here(cluster, collector, log, given):
    name = f"own-{abs(hash(given))}"
    ask(cluster, name, given, "vendor=1", max_tokens=1)
    root = collector.trace_of(name)[0]
    assert root.parent_span_id == b"" and root.trace_state == ""
    assert root.trace_id.hex() not in (TRACE, "0" * 32)
    assert line_of(log, name)["trace_id"] == root.trace_id.hex()


def test_a_caller_that_samples_not_is_heeded(cluster, collector, log):
    ask(cluster, "unsampled", f"00-{'1' * 32}-{PARENT}-00", max_tokens=1)
    ask(cluster, "after-it", max_tokens=1)
    collector.trace_of("after-it")
    assert not [s for s in collector.spans if s.trace_id.hex() == "1" * 32]
    assert line_of(log, "unsampled")["trace_id"] == "1" * 32


def test_who_is_turned_away_does_not_fill_a_collector(start_cluster, tiny):
    asked = Collector()
    options = {"otlp_endpoint": asked.url, "trace_sample_ratio": 0}
    cluster = start_cluster(tiny, options, mixed=1)
    sampled = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "away"}
    answer = requests.post(cluster.url + "/nowhere", headers=sampled, timeout=10)
    assert answer.status_code == 404
    ask(cluster, "let-in", f"00-{TRACE}-{PARENT}-01", max_tokens=1)
    asked.trace_of("let-in")
    assert {attributes(span).get("baton.request_id") for span in asked.spans} <= {"let-in", None}
    asked.server.shutdown()
    asked.server.server_close()


def test_refusals_are_a_span_each(cluster, collector):
    assert ask(cluster, "wrong", max_tokens=-1).status_code == 400
    (root,) = collector.trace_of("wrong")
    assert root.status.code == 0 and attributes(root)["http.response.status_code"] == 400


def test_nothing_that_was_said_is_sent(cluster, collector):
    text = ask(cluster, "said").json()["choices"][0]["text"]
    collector.trace_of("said")
    sent = b"".join(span.SerializeToString() for span in collector.spans)
    assert SECRET_WORDS.encode() not in sent
    assert len(text) < 4 or text.encode() not in sent


def test_it_is_counted(cluster, collector):
    ask(cluster, "counted", max_tokens=1)
    collector.trace_of("counted")
    assert cluster.metrics().sum("baton_router_traces_exported_total") > 0
    assert cluster.metrics().sum("baton_router_traces_dropped_total") == 0


def test_a_collector_that_is_away_costs_requests_nothing(start_cluster, tiny):
    gone = Collector()
    gone.server.server_close()  # nobody listens at its port
    cluster = start_cluster(tiny, {"otlp_endpoint": gone.url}, mixed=1)
    for number in range(20):
        assert ask(cluster, f"untold-{number}", max_tokens=2).status_code == 200
    harness.wait_for(
        lambda: "traces: cannot connect" in cluster.router.log.read_text(), 10, "a warning"
    )
    assert cluster.router.log.read_text().count("traces: ") == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return certificates.Authority(tmp_path_factory.mktemp("collector"), "authority")


@pytest.fixture(scope="module")
def tls_collector(authority):
    collector = Collector(authority.issue("collector", names=["localhost"]))
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def test_a_collector_may_speak_tls(start_cluster, tiny, authority, tls_collector):
    env = {"SSL_CERT_FILE": str(authority.folder / "ca.crt")}
    cluster = start_cluster(tiny, {"otlp_endpoint": tls_collector.url}, env, mixed=1)
    assert ask(cluster, "over-tls").status_code == 200
    assert tls_collector.trace_of("over-tls")


@pytest.mark.parametrize("wrong", ["authority", "name", "no authority"])
def test_a_collector_that_does_not_prove_itself_is_told_nothing(
    start_cluster, tiny, authority, tls_collector, tmp_path, wrong
):
    files = {
        "authority": certificates.Authority(tmp_path, "another").folder / "ca.crt",
        "name": authority.folder / "ca.crt",
        "no authority": "/nowhere",
    }
    # Its certificate is of a name, not of an address.
    url = tls_collector.url
    if wrong == "name":
        url = url.replace("localhost", "127.0.0.1")
    env = {"SSL_CERT_FILE": str(files[wrong]), "SSL_CERT_DIR": "/nowhere"}
    before = len(tls_collector.spans)
    cluster = start_cluster(tiny, {"otlp_endpoint": url}, env, mixed=1)
    assert ask(cluster, "untold").status_code == 200
    said = cluster.router.log.read_text
    harness.wait_for(lambda: "traces: no TLS with" in said(), 10, said)
    assert "certificate verify failed" in said()
    assert len(tls_collector.spans) == before


@pytest.mark.parametrize("options, says", [
    ({"--otlp-endpoint": "grpc://c:4317"}, "begins with neither http:// nor https://"),
    ({"--otlp-headers-file": "/nowhere"}, "--otlp-headers-file needs --otlp-endpoint"),
    ({"--trace-sample-ratio": 1.5}, "--trace-sample-ratio is not in [0, 1]"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused_at_the_start(tiny, options, says):
    flags = [word for name, value in options.items() for word in (name, str(value))]
    command = [harness.BIN, "router", "--model", tiny, "--workers", "127.0.0.1:1", *flags]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=20)
    assert ended.returncode == 2 and says in ended.stderr
