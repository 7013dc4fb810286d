"""A real Prometheus that watches a cluster, with the rules of deploy/ in fast motion."""

import math
import pathlib
import shutil
import subprocess
import sys

import harness
import requests
import yaml

FOLDER = harness.ROOT / "deploy/prometheus"
PROGRAM = shutil.which("prometheus")


def write_config(folder: pathlib.Path, cluster: harness.Cluster, scale: int):
    """deploy/prometheus as it is, but for whom it scrapes and how fast its clocks go."""
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    subprocess.run(
        [sys.executable, harness.ROOT / "scripts/make_slo_rules", "--scale", str(scale),
         "--out", folder / "rules"],
        check=True,
    )  # fmt: skip
    workers = [f"{w.host}:{w.process.ports['metrics']}" for w in cluster.workers.values()]
    targets = {"routers": [f"127.0.0.1:{cluster.port}"], "workers": workers}
    (folder / "targets").mkdir()
    for name, addresses in targets.items():
        (folder / f"targets/{name}.yaml").write_text(yaml.safe_dump([{"targets": addresses}]))


class Prometheus:
    def __init__(self, folder: pathlib.Path, cluster: harness.Cluster, scale: int):
        write_config(folder, cluster, scale)
        self.port = harness.free_port()
        self.log = folder / "prometheus.log"
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "--config.file=prometheus.yaml", "--storage.tsdb.path=data",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        harness.wait_for(self._is_ready, 20, self._tail)

    def _is_ready(self) -> bool:
        try:
            return requests.get(self._url("/-/ready"), timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def _tail(self) -> str:
        return f"Prometheus is ready; it says: {harness.tail(self.log)}"

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def query(self, expr: str) -> list[dict]:
        """Samples, each {"metric": labels, "value": [time, text]}."""
        answer = requests.get(self._url("/api/v1/query"), params={"query": expr}, timeout=10).json()
        assert answer["status"] == "success", (expr, answer)
        return answer["data"]["result"]

    def values(self, expr: str) -> list[float]:
        return [float(sample["value"][1]) for sample in self.query(expr)]

    def value(self, expr: str) -> float:
        """Of the only series; NaN where there is none."""
        found = self.values(expr)
        assert len(found) <= 1, (expr, found)
        return found[0] if found else math.nan

    def has_data(self, expr: str) -> bool:
        return any(math.isfinite(value) for value in self.values(expr))

    def firing(self) -> set[tuple[str, str]]:
        """(alert, what it is of)."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {(s["metric"]["alertname"], subject(s["metric"])) for s in found}

    def is_firing(self, alert: str, of: str) -> bool:
        return (alert, of) in self.firing()

    def stop(self):
        harness.end(self._process, 15)


def subject(labels: dict) -> str:
    """The label that tells alerts of one name apart."""
    for name in ("class", "reason", "role", "what"):
        if name in labels and labels[name] != "unknown":
            return labels[name]
    return ""
