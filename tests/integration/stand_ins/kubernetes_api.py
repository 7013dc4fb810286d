"""An API server that has the EndpointSlices of one Service: list and watch, over TLS, by a token.

What clients of the real one must bear can be asked of it: bookmarks, versions that expire, watches
that break off in the middle of a line, a token that is no longer valid, no answer to anybody.
"""

import http.server
import json
import ssl
import threading
import time
import urllib.parse

PATH = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"


class ApiServer:
    def __init__(self, cert, key, token: str, namespace="baton", service="pool"):
        self.token = token
        self.namespace, self.service = namespace, service
        self.forbidden = False
        self.away = False  # connections end without an answer
        self.version = 100
        self.oldest = 0  # what a watch may go on from
        self.events: list[tuple[int, dict]] = []
        self.slices: dict[str, dict] = {}
        self.lists = 0
        self.watches: list[int] = []  # the versions that they went on from
        self.refused = 0
        self.open = 0  # watches now
        self._break = 0  # each change ends the watches that run,
        self._broken_at = 0  # which tell of nothing later
        self._changed = threading.Condition()
        self._stopped = False
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self):
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- what there is

    def put(self, *ports: int, terminating=False, port_name="rpc"):
        """Of each worker's port. Pods have addresses of their own; here they have slices."""
        for port in ports:
            self._put(self._name(port), port, terminating, port_name)

    @staticmethod
    def _name(port: int) -> str:
        return f"slice-{port}"

    def _put(self, name: str, port: int, terminating: bool, port_name: str):
        with self._changed:
            known = name in self.slices
            self.version += 1
            self.slices[name] = {
                "metadata": {"name": name, "resourceVersion": str(self.version)},
                "addressType": "IPv4",
                "endpoints": [
                    {
                        "addresses": ["127.0.0.1"],
                        "conditions": {"ready": not terminating, "terminating": terminating},
                    }
                ],
                "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
            }
            self._tell("MODIFIED" if known else "ADDED", self.slices[name])

    def delete(self, port: int):
        with self._changed:
            self.version += 1
            gone = self.slices.pop(self._name(port))
            gone["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", gone)

    def bookmark(self):
        with self._changed:
            self.version += 1
            self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def _tell(self, kind: str, what: dict):
        self.events.append((self.version, {"type": kind, "object": json.loads(json.dumps(what))}))
        self._changed.notify_all()

    # --- what goes wrong

    def break_watches(self):
        """Each ends in the middle of a line, after all that has happened so far."""
        with self._changed:
            self._end_watches()

    def go_away(self):
        self.away = True
        self.break_watches()

    def expire(self, by_status: bool):
        """Nothing of the past is known any more. A watch that runs hears of it, or the next one."""
        with self._changed:
            self.version += 1
            self.oldest = self.version
            if by_status:
                self._end_watches()
            else:
                self._tell("ERROR", {"kind": "Status", "code": 410, "message": "too old"})

    def _end_watches(self):
        self._break += 1
        self._broken_at = self.version
        self._changed.notify_all()

    # --- HTTP

    def _handler(self):
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except (OSError, ssl.SSLError):
                    pass  # a client that goes away

            def do_GET(self):
                self.close_connection = True
                if api.away:
                    return
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                selector = f"kubernetes.io/service-name={api.service}"
                if self.headers["Authorization"] != f"Bearer {api.token}":
                    self._refuse(401)
                elif api.forbidden:
                    self._refuse(403)
                elif url.path != PATH.format(api.namespace) or query["labelSelector"] != selector:
                    self._refuse(404)
                elif query.get("watch") == "1":
                    self._watch(int(query["resourceVersion"]), float(query["timeoutSeconds"]))
                else:
                    self._list()

            def _refuse(self, status: int):
                api.refused += status in (401, 403)
                self._answer(status, {"kind": "Status", "code": status})

            def _answer(self, status: int, what: dict):
                body = json.dumps(what).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _list(self):
                with api._changed:
                    api.lists += 1
                    what = {
                        "kind": "EndpointSliceList",
                        "metadata": {"resourceVersion": str(api.version)},
                        "items": list(api.slices.values()),
                    }
                    what = json.loads(json.dumps(what))
                self._answer(200, what)

            def _watch(self, version: int, seconds: float):
                with api._changed:
                    api.watches.append(version)
                    expired = version < api.oldest
                    broken = api._break
                if expired:
                    return self._refuse(410)
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                api.open += 1
                try:
                    self._events(version, time.monotonic() + seconds, broken)
                finally:
                    api.open -= 1

            def _events(self, version: int, until: float, broken: int):
                while time.monotonic() < until:
                    with api._changed:
                        fresh = [e for e in api.events if e[0] > version]
                        if not fresh and not api._stopped and api._break == broken:
                            api._changed.wait(0.1)
                            continue
                        stop = api._stopped or api._break != broken
                        if stop:
                            fresh = [e for e in fresh if e[0] <= api._broken_at]
                    for version, event in fresh:
                        self._line(json.dumps(event).encode() + b"\n")
                        if event["type"] == "ERROR":
                            self._chunk(b"")
                            return
                    if stop:
                        self._chunk(b'{"type":"ADD')
                        return
                self._chunk(b"")

            def _line(self, line: bytes):
                """In two parts: a chunk is not a line."""
                self._chunk(line[:7])
                self._chunk(line[7:])

            def _chunk(self, part: bytes):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()

        return Handler
