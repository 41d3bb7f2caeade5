# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages of Debian's archive, fetched with a state of our own and unpacked: nothing of this machine's own package state changes.

The address of the archive is the one that this machine's own apt uses; ``$GPUFLEET_DEBIAN_ARCHIVE`` names another (on Ubuntu, say), and
``$GPUFLEET_DEBIAN_SECURITY`` that of its security updates.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from tests.kernel.cached import KernelLabError
from tests.tools import env

SUITE = "bookworm"
BACKPORTS = f"{SUITE}-backports"
#: Names that a Debian archive's suites go by, so that a machine of another release still tells us where its archive is.
_SUITES = {"bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}
_KEYRINGS = [Path(f"/usr/share/keyrings/debian-archive-keyring.{end}") for end in ("gpg", "pgp")]
#: How long what was asked of the archive is believed, in seconds, if all that it leads to is in the cache.
BELIEVED = 86400


@functools.cache
def addresses() -> tuple[str, str]:
    """Those of the archive and of its security updates."""
    given = os.environ.get("GPUFLEET_DEBIAN_ARCHIVE")
    if given:
        return given, os.environ.get("GPUFLEET_DEBIAN_SECURITY") or f"{given.rstrip('/')}-security"
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    try:
        printed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise KernelLabError(f"Asking apt for the address of Debian's archive: {error}. Set GPUFLEET_DEBIAN_ARCHIVE to it.") from None
    found = dict(line.split(maxsplit=1) for line in reversed(printed.splitlines()) if " " in line)
    archive = next((uri for release, uri in found.items() if release in _SUITES), None)
    if archive is None:
        raise KernelLabError(
            f"Asking apt for the address of Debian's archive: none of its sources is one (it has {', '.join(sorted(found)) or 'none'}). "
            "Set GPUFLEET_DEBIAN_ARCHIVE to it."
        )
    security = next(
        (uri for release, uri in found.items() if release.removesuffix("-security") in _SUITES and "-security" in release), None
    )
    return archive, security or f"{archive.rstrip('/')}-security"


def keyring() -> Path:
    found = next((path for path in _KEYRINGS if path.exists()), None)
    if found is None:
        raise KernelLabError(f"Trusting Debian's archive: {_KEYRINGS[0]} is not there. Install the package debian-archive-keyring.")
    return found


def sources() -> list[str]:
    """The lines of a sources.list: the suite, its security updates, its backports."""
    archive, security = addresses()
    return [
        f"deb [signed-by={keyring()}] {uri} {suite} main"
        for uri, suite in ((archive, SUITE), (security, f"{SUITE}-security"), (archive, BACKPORTS))
    ]


def call(doing: str, *command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 900) -> str:
    """Run a program; what it printed, or a KernelLabError with the end of it."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=env, cwd=cwd, timeout=timeout
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelLabError(f"{doing}: {error}.") from None
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise KernelLabError(
            f"{doing}: {Path(command[0]).name} ended with {done.returncode}.\n{end}\nMend that and run again; the cache has nothing of it."
        )
    return done.stdout


class Archive:
    """apt with a state of our own below the cache: it believes that nothing is installed, so that whole closures are fetched."""

    def __init__(self) -> None:
        self.directory = env.cache() / "kernel-apt"
        self._environment = {**os.environ, "APT_CONFIG": str(self.directory / "apt.conf"), "LC_ALL": "C.UTF-8"}

    def update(self) -> None:
        """Read the archive's indices, unless that was done a moment ago."""
        with env.alone(self.directory):
            stamp = self.directory / "updated"
            lines = "\n".join(sources()) + "\n"
            listed = self.directory / "sources.list"
            if stamp.exists() and time.time() - stamp.stat().st_mtime < 600 and listed.read_text() == lines:
                return
            for name in ("state/lists/partial", "cache/archives/partial"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            (self.directory / "status").touch()
            listed.write_text(lines)
            # The machine's own apt.conf.d still counts: it may name a proxy.
            (self.directory / "apt.conf").write_text(
                f'Dir::State "{self.directory}/state"; Dir::State::status "{self.directory}/status"; Dir::Cache "{self.directory}/cache";\n'
                f'Dir::Etc::sourcelist "{listed}"; Dir::Etc::sourceparts "/dev/null";\n'
                'Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";\n'
                'Acquire::Languages "none"; Acquire::Retries "3"; APT::Sandbox::User "";\n'
                'APT::Architecture "amd64"; APT::Architectures { "amd64"; };\n'
            )
            call("Reading the indices of Debian's archive", "apt-get", "-qq", "update", env=self._environment)
            stamp.touch()

    def shown(self, package: str, field: str, suite: str | None = None) -> str:
        """A field of the version that would be taken."""
        target = ["-t", suite] if suite else []
        printed = call(f"Looking {package} up", "apt-cache", *target, "show", "--no-all-versions", package, env=self._environment)
        match = re.search(rf"^{field}: (.*)$", printed, re.MULTILINE)
        if not match:
            raise KernelLabError(f"Looking {package} up in Debian's archive: it has no field {field}. Is {SUITE} still in the archive?")
        return match[1]

    def unpack(self, packages: list[str], into: Path, suite: str | None = None, closure: bool = True) -> None:
        """Fetch packages, with all that they depend on unless told otherwise, and unpack them into one directory."""
        target = ["-t", suite] if suite else []
        with tempfile.TemporaryDirectory(dir=env.cache(), prefix="new-kernel-") as scratch:
            (Path(scratch) / "partial").mkdir()
            doing = f"Fetching {', '.join(packages)}"
            if closure:
                options = ["-o", f"Dir::Cache::archives={scratch}", "-y", "--no-install-recommends", "--download-only"]
                call(doing, "apt-get", "-qq", *options, *target, "install", *packages, env=self._environment)
            else:
                call(doing, "apt-get", "-qq", *target, "download", *packages, env=self._environment, cwd=Path(scratch))
            for package in sorted(Path(scratch).glob("*.deb")):
                call(f"Unpacking {package.name}", "dpkg-deb", "-x", package, into)

    def proxies(self) -> list[str]:
        """The machine's proxy settings, as lines of an apt.conf."""
        printed = call("Reading apt's settings", "apt-config", "dump")
        return [line for line in printed.splitlines() if re.match(r"Acquire::[\w:.-]*Proxy\S* ", line, re.IGNORECASE)]
