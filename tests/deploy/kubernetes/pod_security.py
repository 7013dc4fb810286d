"""The Pod Security Standard "restricted" (of Kubernetes 1.25 and later, Linux), for what pods here
say."""

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip


def violations(spec: dict) -> set[str]:
    """Of a pod, each in a few words; empty: "restricted" admits it."""
    found = {key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)}
    for volume in spec.get("volumes", []):
        found |= {f"volume {kind}" for kind in volume if kind != "name" and kind not in VOLUMES}
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            found |= _of_container(container, spec.get("securityContext", {}))
    return found


def _of_container(container: dict, pod: dict) -> set[str]:
    own = container.get("securityContext", {})
    merged = pod | own
    capabilities = own.get("capabilities", {})
    found = {f"adds {name}" for name in set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}}
    if "ALL" not in capabilities.get("drop", []):
        found.add("keeps capabilities")
    if own.get("privileged"):
        found.add("privileged")
    if own.get("allowPrivilegeEscalation") is not False:
        found.add("may escalate")
    if merged.get("runAsNonRoot") is not True:
        found.add("may be root")
    if merged.get("runAsUser") == 0:
        found.add("is root")
    if merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.add("no seccomp profile")
    if any("hostPort" in port for port in container.get("ports", [])):
        found.add("host port")
    return found
