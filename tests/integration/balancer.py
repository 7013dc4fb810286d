"""Debian's haproxy before several routers, as docs/operations.md would have it."""

import pathlib
import shutil
import socket
import subprocess

import harness
import requests

PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
CONFIG = """\
global
  stats socket {folder}/stats.sock mode 600 level admin
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 610s
  retries 3
  option redispatch 1
  retry-on conn-failure
frontend api
  bind 127.0.0.1:{port}
  default_backend routers
backend routers
  balance leastconn
  option httpchk GET /ready
  http-check expect status 200
  default-server check inter 500ms fall 2 rise 1
"""


class Balancer:
    """To the harness's calls it is a cluster: it has a `url` and a `model_name`."""

    def __init__(self, folder: pathlib.Path, routers: list[harness.Process], model_name: str):
        self.port, self.model_name, self._folder = harness.free_port(), model_name, folder
        servers = "".join(f"  server {r.name} 127.0.0.1:{r.ports['http']}\n" for r in routers)
        file = folder / "haproxy.cfg"
        file.write_text(CONFIG.format(folder=folder, port=self.port) + servers)
        self.log = folder / "haproxy.log"
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-db", "-f", file], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        harness.wait_for(self._serves, 10, lambda: f"it serves: {harness.tail(self.log)}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serves(self) -> bool:
        try:
            return requests.get(self.url + "/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def sees(self, router: harness.Process) -> str:
        """UP or DOWN, as its health check has it."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(5)
            stats.connect(str(self._folder / "stats.sock"))
            stats.sendall(b"show stat\n")
            rows = stats.makefile().read().splitlines()
        head = rows[0].lstrip("# ").split(",")
        for row in rows[1:]:
            fields = dict(zip(head, row.split(","), strict=False))
            if fields.get("svname") == router.name:
                return fields["status"].split()[0]
        raise AssertionError(f"haproxy knows no {router.name}: {rows}")

    def stop(self):
        harness.end(self._process, 10)
