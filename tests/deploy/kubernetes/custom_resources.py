"""The shapes of the custom resources that are used here, as far as they are used."""

# A type; a list of one shape; "name?" may be left out; "*" is any other name.
PARENT = {"name": str, "namespace?": str, "sectionName?": str}
PATH = {"type": str, "value": str}
RULE = {
    "matches": [{"path": PATH}],
    "timeouts?": {"request": str},
    "backendRefs": [{"name": str, "port": int}],
}
POLICY = {"type": str, "value": int, "periodSeconds": int}
SCALING = {"stabilizationWindowSeconds": int, "policies?": [POLICY]}
TRIGGER = {
    "type": str,
    "metricType": str,
    "metadata": {"serverAddress": str, "ignoreNullValues": str, "query": str, "threshold": str},
}
SPECS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": {"matchLabels": {"*": str}},
        "podTargetLabels?": [str],
        "podMetricsEndpoints": [{"port": str, "path": str, "interval": str}],
    },
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): {
        "parentRefs": [PARENT],
        "hostnames": [str],
        "rules": [RULE],
    },
    ("keda.sh/v1alpha1", "ScaledObject"): {
        "scaleTargetRef": {"kind": str, "name": str},
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "pollingInterval": int,
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {"scaleUp": SCALING, "scaleDown": SCALING},
            },
        },
        "triggers": [TRIGGER],
    },
}


def misfits(value, shape, path: str = "spec") -> list[str]:
    """What of a value is not as its shape says."""
    if isinstance(shape, type):
        fits = isinstance(value, shape) and not (shape is int and isinstance(value, bool))
        return [] if fits else [f"{path} is no {shape.__name__}"]
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{path} is no list, or empty"]
        return [m for i, item in enumerate(value) for m in misfits(item, shape[0], f"{path}[{i}]")]
    if not isinstance(value, dict):
        return [f"{path} is no map"]
    return _misfits_of_map(value, shape, path)


def _misfits_of_map(value: dict, shape: dict, path: str) -> list[str]:
    known = {name.rstrip("?"): below for name, below in shape.items()}
    found = [f"{path} lacks {n}" for n in shape if n[-1] not in "?*" and n not in value]
    for name, below in value.items():
        if name not in known and "*" not in known:
            found.append(f"{path}.{name} is unknown")
        else:
            found += misfits(below, known.get(name, known.get("*")), f"{path}.{name}")
    return found


def is_custom(found: dict) -> bool:
    return (found["apiVersion"], found["kind"]) in SPECS


def misfits_of(found: dict) -> list[str]:
    return misfits(found["spec"], SPECS[found["apiVersion"], found["kind"]])
