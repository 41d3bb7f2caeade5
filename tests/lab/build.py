# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's programs: compiled once from the Go modules in `go/`, kept in a cache outside the checkout, keyed by what they are made of."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.layout import CHECKOUT, COMMAND, LabError

SOURCES = Path(__file__).resolve().parent / "go"
# The registry's module stands apart: most of what the lab is used for needs none.
REGISTRY_SOURCES = SOURCES.with_name("go_registry")
# Names under which the one control-plane binary is called.
KUBELAB_NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
PROGRAMS = ("kubelab", "helm", "kwok", "kubelab-kubevirt", "virt-api", "virt-controller", *KUBELAB_NAMES)
# Of these an envtest installation has its own: KUBEBUILDER_ASSETS wins over what was built.
ENVTEST_NAMES = ("etcd", "kube-apiserver", "kubectl")
_FLAGS = "-mod=readonly -modcacherw -buildvcs=false"
# Go module in go/ -> the packages that become programs.
_PACKAGES = {
    "control": (".", "helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kwok/cmd/kwok"),
    "kubevirt": (".", "kubevirt.io/kubevirt/cmd/virt-api", "kubevirt.io/kubevirt/cmd/virt-controller"),
}


def cache_directory() -> Path:
    """`$GPUFLEET_CACHE`, else `gpufleet-kubevirt` in the user's cache directory."""
    if given := os.environ.get("GPUFLEET_CACHE"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpufleet-kubevirt"


def key(sources: Path, go_version: str) -> str:
    """Hash of everything that decides what is built: compiler, flags, packages, module files and sources."""
    digest = hashlib.sha256(f"{go_version}\0{_FLAGS}\0{_PACKAGES}\0".encode())
    for path in sorted(p for p in sources.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(sources)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def module_version(go_mod: str, module: str) -> str:
    """The version that the text of a go.mod requires of a module, such as `v1.37.2`."""
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(module)}\s+(v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise LabError(f"Building the lab's programs: go.mod does not require {module}.")
    return found.group(1)


def version_flags(go_mod: str) -> str:
    """Linker flags: without them the API server calls itself v0.0.0-master (charts' kubeVersion reads it) and helm only v4.3."""
    kubernetes = module_version(go_mod, "k8s.io/kubernetes")
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    version = "k8s.io/component-base/version"
    values = {
        f"{version}.gitVersion": kubernetes,
        f"{version}.gitMajor": major,
        f"{version}.gitMinor": minor,
        f"{version}.gitTreeState": "clean",
        "helm.sh/helm/v4/internal/version.version": module_version(go_mod, "helm.sh/helm/v4"),
    }
    return "-s -w " + " ".join(f"-X {name}={value}" for name, value in values.items())


def go_binary() -> str:
    """Path of a Go compiler, as `tests/tools/go.py` finds or fetches it."""
    finder = CHECKOUT / "tests" / "tools" / "go.py"
    done = subprocess.run([sys.executable, str(finder)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode or not done.stdout.strip():
        raise LabError(
            f"Looking for the Go compiler that builds the lab's programs: {done.stderr.strip() or done.stdout.strip() or finder}"
        )
    return done.stdout.strip().splitlines()[-1]


def programs() -> Path:
    """The directory of the programs, built first if the cache does not have them; `GPUFLEET_LAB_BIN` names a given one instead."""
    if given := os.environ.get("GPUFLEET_LAB_BIN"):
        directory = Path(given).absolute()
        if missing := [name for name in PROGRAMS[:6] if not os.access(directory / name, os.X_OK)]:
            raise LabError(
                f"Using the lab's programs in {directory} (GPUFLEET_LAB_BIN): {', '.join(missing)} missing. Unset it, then `{COMMAND} build`."
            )
        _link(directory)
        return directory
    go = go_binary()
    version = subprocess.run(
        [go, "version"], capture_output=True, text=True, check=True, env=_environment(cache_directory())
    ).stdout.strip()
    cache = cache_directory()
    directory = cache / f"lab-bin-{key(SOURCES, version)}"
    if directory.is_dir():
        return directory
    with _lock(cache):
        if not directory.is_dir():  # nobody built it while we waited
            _build(go, cache, directory)
    return directory


def registry_program() -> Path:
    """The lab's OCI registry, built first if the cache does not have it."""
    go = go_binary()
    cache = cache_directory()
    version = subprocess.run([go, "version"], capture_output=True, text=True, check=True, env=_environment(cache)).stdout.strip()
    directory = cache / f"lab-registry-{key(REGISTRY_SOURCES, version)}"
    if not directory.is_dir():
        with _lock(cache):
            if not directory.is_dir():
                print(f"Building the lab's registry into {directory} (a minute or two on 2 cores).", flush=True)
                _into(cache, directory, lambda fresh: _compile(go, cache, REGISTRY_SOURCES, ["."], "-s -w", fresh))
    return directory / "labregistry"


def program(directory: Path, name: str) -> str:
    """The path of one program."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and name in ENVTEST_NAMES and os.access(Path(assets) / name, os.X_OK):
        return str(Path(assets) / name)
    return str(directory / name)


def _link(directory: Path) -> None:
    for name in KUBELAB_NAMES:
        if not (directory / name).exists():
            (directory / name).symlink_to("kubelab")


@contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """One build at a time in this cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lab-build.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another build of the lab's programs in {cache} ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _environment(cache: Path) -> dict[str, str]:
    work = cache / "lab-build"
    # A caller's Go settings are for the caller's Go; what names module proxies stays.
    inherited = {k: v for k, v in os.environ.items() if k not in ("GOROOT", "GOOS", "GOARCH", "GOBIN", "GOEXPERIMENT")}
    return {
        **inherited,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": _FLAGS,
        "GOWORK": "off",
        "GOCACHE": str(work / "go-build"),
        "GOMODCACHE": str(work / "go-mod"),
        "GOPATH": str(work / "go-path"),
        "GOTMPDIR": str(work / "go-tmp"),
    }


def _build(go: str, cache: Path, directory: Path) -> None:
    """Compile all programs of the control plane and KubeVirt into a new directory."""
    print(
        f"Building the lab's programs into {directory} (about 11 minutes on 2 cores, 7 GB in {cache / 'lab-build'} meanwhile).", flush=True
    )
    flags = {"control": version_flags((SOURCES / "control" / "go.mod").read_text()), "kubevirt": "-s -w"}

    def compile_all(fresh: Path) -> None:
        for module, packages in _PACKAGES.items():
            _compile(go, cache, SOURCES / module, packages, flags[module], fresh)
        _link(fresh)

    _into(cache, directory, compile_all)


def _into(cache: Path, directory: Path, make: Callable[[Path], None]) -> None:
    """Make a new directory beside `directory` and rename it; the compile and module caches go when all is well."""
    work = cache / "lab-build"
    (work / "go-tmp").mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    fresh = Path(tempfile.mkdtemp(prefix="lab-bin-new-", dir=cache))
    try:
        make(fresh)
        fresh.chmod(0o755)
        fresh.rename(directory)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(work)
    print(f"  built in {time.monotonic() - began:.0f} s", flush=True)


def _compile(go: str, cache: Path, sources: Path, packages: Sequence[str], flags: str, into: Path) -> None:
    """Compile packages of one Go module into programs."""
    step = time.monotonic()
    log = cache / "lab-build" / f"{sources.name}.log"
    print(f"  {sources.name}: downloading and compiling, log in {log} ...", flush=True)
    with open(log, "w") as out:
        argv = [go, "build", "-trimpath", "-o", f"{into}/", "-ldflags", flags, *packages]
        code = subprocess.run(
            argv, cwd=sources, env=_environment(cache), stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
        ).returncode
    if code:
        end = "\n".join("  " + line for line in log.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"Building the lab's programs from {sources}: the compiler ended with {code}. The end of {log}:\n{end}")
    print(f"  {sources.name}: done after {time.monotonic() - step:.0f} s", flush=True)
