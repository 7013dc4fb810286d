"""What Grafana's dashboards are made of: panels with queries, laid out in rows of 24 columns."""

import dataclasses

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
# As prometheus.yaml names jobs. Routers and workers have series of the same names.
ROUTER = 'job=~".*router.*"'
WORKER = 'job=~".*worker.*"'
MODEL = 'model_name=~"$model"'


@dataclasses.dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    kind: str  # of Grafana: timeseries, stat, table
    unit: str
    queries: tuple[Query, ...]
    help: str = ""
    width: int = 8
    height: int = 8
    stacked: bool = False
    instant: bool = False
    most: float | None = None  # of the axis
    good_from: float | None = None  # green from here on, red below


def chart(title: str, unit: str, *queries, **options) -> Panel:
    """`queries`: pairs of an expression and its legend."""
    return Panel(title, "timeseries", unit, tuple(Query(*q) for q in queries), **options)


def stat(title: str, unit: str, expr: str, legend: str, **options) -> Panel:
    options = {"width": 6, "height": 5, "instant": True} | options
    return Panel(title, "stat", unit, (Query(expr, legend),), **options)


def rate(metric: str, matchers: str = "") -> str:
    return f"rate({metric}{{{matchers}}}[$__rate_interval])"


def total(metric: str, matchers: str = "", by: str = "") -> str:
    """The rate of a counter, summed."""
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, matchers)})"


def quantile(q: float, histogram: str, matchers: str = "", by: str = "") -> str:
    labels = "le" + (f", {by}" if by else "")
    return f"histogram_quantile({q:g}, sum by ({labels}) ({rate(histogram + '_bucket', matchers)}))"


def quantiles(histogram: str, matchers: str = "") -> list[tuple[str, str]]:
    return [(quantile(q, histogram, matchers), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]


def mean(histogram: str, matchers: str = "", by: str = "") -> str:
    return (
        f"{total(histogram + '_sum', matchers, by)} / {total(histogram + '_count', matchers, by)}"
    )


# --- as Grafana reads it -------------------------------------------------------------------------


def target(query: Query, index: int, instant: bool) -> dict:
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "refId": "ABCDEFGHIJKLMNOP"[index],
        "instant": instant,
        "range": not instant,
    }


def thresholds(panel: Panel) -> dict:
    if panel.good_from is None:
        return {"mode": "absolute", "steps": [{"color": "green", "value": None}]}
    steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.good_from}]
    return {"mode": "absolute", "steps": steps}


def field_config(panel: Panel) -> dict:
    defaults = {"unit": panel.unit, "thresholds": thresholds(panel)}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        fill = 40 if panel.stacked else 8
        # What counts or takes time begins at nothing; ratios show where they move.
        defaults["min"] = 0
        defaults["custom"] = {"fillOpacity": fill, "stacking": stacking, "showPoints": "never"}
    return {"defaults": defaults, "overrides": []}


def options_of(panel: Panel) -> dict:
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduced, "colorMode": "value", "textMode": "value_and_name"}
    return {}


def as_grafana(panel: Panel, number: int, x: int, y: int) -> dict:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": field_config(panel),
        "options": options_of(panel),
        "targets": [target(q, i, panel.instant) for i, q in enumerate(panel.queries)],
    }


def laid_out(panels: list[Panel]) -> list[dict]:
    found, x, y, row_height = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > COLUMNS:
            x, y, row_height = 0, y + row_height, 0
        found.append(as_grafana(panel, number, x, y))
        x, row_height = x + panel.width, max(row_height, panel.height)
    return found


def datasource_variable() -> dict:
    return {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
    }


def model_variable() -> dict:
    query = "label_values(vllm:num_requests_running, model_name)"
    everything = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "models"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": everything,
    }


def dashboard(uid: str, title: str, panels: list[Panel]) -> dict:
    needs_model = any("$model" in q.expr for panel in panels for q in panel.queries)
    variables = [datasource_variable(), *([model_variable()] if needs_model else [])]
    others = {
        "type": "dashboards",
        "title": "Baton",
        "tags": ["baton"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
    }
    return {
        "uid": uid,
        "title": title,
        "tags": ["baton"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [others],
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": laid_out(panels),
    }
