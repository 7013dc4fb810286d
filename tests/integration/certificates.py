"""Certificates as an operator's authority would issue them, by the openssl command."""

import pathlib
import subprocess

NAMES = ("baton-router", "baton-worker")


class Authority:
    def __init__(self, folder: pathlib.Path, name: str):
        self.folder = folder / name
        self.folder.mkdir()
        usage = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]
        self._make("ca", [f"-addext={extension}" for extension in usage])

    def issue(self, name: str, names=NAMES, addresses=()) -> dict[str, pathlib.Path]:
        """The options of a router or worker that has it."""
        sans = ",".join([f"DNS:{dns}" for dns in names] + [f"IP:{ip}" for ip in addresses])
        by = ["-CA", self.folder / "ca.crt", "-CAkey", self.folder / "ca.key"]
        self._make(
            name, [*by, f"-addext=subjectAltName={sans}", "-addext=basicConstraints=CA:FALSE"]
        )
        files = {"tls_cert": f"{name}.crt", "tls_key": f"{name}.key", "tls_ca": "ca.crt"}
        return {option: self.folder / file for option, file in files.items()}

    def _make(self, name: str, how: list):
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-keyout", self.folder / f"{name}.key", "-out", self.folder / f"{name}.crt"]
        subprocess.run(
            ["openssl", "req", "-x509", "-days", "1", "-subj", f"/CN={name}", *curve, *files, *how],
            check=True,
            capture_output=True,
        )
        (self.folder / f"{name}.key").chmod(0o600)
