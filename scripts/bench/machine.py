"""What the figures were measured on."""

import datetime
import os
import pathlib
import platform
import subprocess

SIMD = ["avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"]


def describe(root: pathlib.Path) -> dict[str, str]:
    cpuinfo = dict(
        (key.strip(), value.strip())
        for key, _, value in (
            line.partition(":") for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        )
    )
    flags = cpuinfo.get("flags", cpuinfo.get("Features", "")).split()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True
    )
    return {
        "CPU": f"{cpuinfo.get('model name', platform.processor())}, family "
        f"{cpuinfo.get('cpu family', '?')} model {cpuinfo.get('model', '?')}, "
        f"{len(os.sched_getaffinity(0))} cores",
        "SIMD": " ".join(flag for flag in SIMD if flag in flags),
        "Memory": f"{memory_gib():.0f} GiB",
        "System": platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform()),
        "Commit": commit.stdout.strip(),
        "Date": datetime.date.today().isoformat(),
        "Load before": f"{os.getloadavg()[0]:.1f}",
    }


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
