"""The programs that scripts/gpu_check runs: where a build has them, and packed for a machine that
has neither our compiler nor our libraries."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

from bench import gpu_facts

PROGRAMS = ["ops_cuda_test", "generate", "gpu_bench"]
# What every Linux has, and must be its own: the loader would mix two of them up.
SYSTEM = re.compile(
    r"(linux-vdso|ld-linux|libc|libm|libdl|librt|libpthread|libresolv|libutil|libnss\w*)[.\-]"
)
# What belongs to the GPU's driver or is too large: taken where the bundle runs.
GPU = re.compile(r"lib(cuda|cublas|cublasLt|cudart|nvidia\S*|nvrtc|nvJitLink)[.\-]")
# Only for machines whose own are older.
FALLBACK = re.compile(r"lib(stdc\+\+|gcc_s)\.")


@dataclasses.dataclass
class Programs:
    folder: pathlib.Path  # of the programs
    libraries: pathlib.Path | None  # of a bundle
    scripts: pathlib.Path
    commit: str

    @staticmethod
    def of_build(root: pathlib.Path, build: pathlib.Path) -> "Programs":
        return Programs(build.resolve() / "bin", None, root / "scripts", commit_of(root))

    @staticmethod
    def of_bundle(folder: pathlib.Path) -> "Programs":
        folder = folder.resolve()
        made = folder / "bundle.json"
        if not made.exists():
            sys.exit(f"gpu_check: {folder} is no bundle; make one with --bundle")
        commit = json.loads(made.read_text())["commit"]
        return Programs(folder / "bin", folder / "lib", folder / "scripts", commit)

    def program(self, name: str) -> pathlib.Path:
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there")
        return path

    def environment(self) -> dict[str, str]:
        """With the loader's path set so that the programs find what they need; says what they do
        not find."""
        environment = dict(os.environ)
        if self.libraries is None:
            return environment
        folders = [self.libraries]
        missing = self._missing(environment, folders)
        if any("GLIBCXX" in line or FALLBACK.search(line) for line in missing):
            folders.insert(0, self.libraries / "fallback")
            missing = self._missing(environment, folders)
        for name in sorted(set(re.findall(r"(libcublas\w*\.so[.\d]*)", "\n".join(missing)))):
            found = gpu_facts.find_library(name)
            if found is None:
                print(f"gpu_check: {name} is nowhere here; the programs need it", file=sys.stderr)
            elif found.parent not in folders:
                folders.append(found.parent)
        if missing := self._missing(environment, folders):
            print("gpu_check: not found: " + "; ".join(sorted(set(missing))), file=sys.stderr)
        return with_path(environment, folders)

    def _missing(self, environment: dict, folders: list[pathlib.Path]) -> list[str]:
        found = []
        for program in sorted(self.folder.iterdir()):
            shown = subprocess.run(
                ["ldd", program], capture_output=True, text=True,
                env=with_path(environment, folders),
            )  # fmt: skip
            lines = shown.stdout.splitlines() + shown.stderr.splitlines()
            found += [line.strip() for line in lines if "not found" in line]
        return found


def with_path(environment: dict[str, str], folders: list[pathlib.Path]) -> dict[str, str]:
    path = [str(folder) for folder in folders]
    if before := environment.get("LD_LIBRARY_PATH"):
        path.append(before)
    return environment | {"LD_LIBRARY_PATH": ":".join(path)}


def commit_of(root: pathlib.Path) -> str:
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True
    )
    return shown.stdout.strip() or "unknown"


def build(root: pathlib.Path, also: list[str]) -> None:
    if gpu_facts.find_program("nvcc") is None:
        sys.exit(
            "gpu_check: no nvcc here to build with; make a bundle where there is one "
            "(--bundle DIR), bring it here, and run it (--run DIR)"
        )
    subprocess.run([root / "scripts/build.sh", "cuda", *PROGRAMS, *also], check=True)


def pack(root: pathlib.Path, where: Programs, target: pathlib.Path, also: list[str]) -> None:
    """Into a folder, or an archive if that is what it is called (*.tar.xz, of a third the size)."""
    if not target.name.endswith(".tar.xz"):
        fill(root, where, target, also)
        enter = ""
    else:
        name = target.name.removesuffix(".tar.xz")
        with tempfile.TemporaryDirectory() as folder:
            fill(root, where, pathlib.Path(folder) / name, also)
            with tarfile.open(target, "w:xz") as archive:
                archive.add(pathlib.Path(folder) / name, name)
        enter = f"tar xf {target.name}; cd {name}; "
    size = sum(path.stat().st_size for path in [target, *target.rglob("*")] if path.is_file())
    print(f"gpu_check: {target} has {size / (1 << 20):.0f} MiB; there: {enter}"
          f"scripts/gpu_check --run .")  # fmt: skip


def fill(root: pathlib.Path, where: Programs, folder: pathlib.Path, also: list[str]) -> None:
    """Programs without symbols, the libraries that they load, and these scripts."""
    for part in ("bin", "lib", "scripts"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for part in ("bin", "lib/fallback", "scripts/bench"):
        (folder / part).mkdir(parents=True)
    libraries: dict[str, pathlib.Path] = {}
    for name in [*PROGRAMS, *also]:
        program = where.program(name)
        subprocess.run(["strip", "-o", folder / "bin" / name, program], check=True)
        libraries |= libraries_of(program)
    for name, path in libraries.items():
        target = folder / "lib" / ("fallback" if FALLBACK.match(name) else "") / name
        subprocess.run(["strip", "--strip-unneeded", "-o", target, path.resolve()], check=True)
    shutil.copy2(root / "scripts/gpu_check", folder / "scripts")
    for script in (root / "scripts/bench").glob("*.py"):
        shutil.copy2(script, folder / "scripts/bench")
    made = {"commit": where.commit, "libraries": sorted(libraries)}
    (folder / "bundle.json").write_text(json.dumps(made, indent=1) + "\n")


def libraries_of(program: pathlib.Path) -> dict[str, pathlib.Path]:
    """What the loader loads for it, but for what a target has itself."""
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in shown.splitlines():
        name, _, rest = (part.strip() for part in line.partition("=>"))
        name = name.split()[0]
        if SYSTEM.match(name.rpartition("/")[2]) or GPU.match(name):
            continue
        if "not found" in rest:
            sys.exit(f"gpu_check: {program} needs {name}, which is not here")
        if rest.startswith("/"):
            found[name] = pathlib.Path(rest.split()[0])
    return found
