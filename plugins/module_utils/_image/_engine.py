# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Container engines: how each is told to build an image and to push it, with credentials of a file that goes away."""

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _programs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._login import Login
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

#: In the order in which ``auto`` takes them: the first two need no daemon.
ENGINES = ("podman", "buildah", "docker")


def find(wanted: str) -> tuple[str, str]:
    """Name and path of the engine. Raises Refused."""
    names = ENGINES if wanted == "auto" else (wanted,)
    for name in names:
        path = shutil.which(name)
        if path:
            return name, path
    problem = f"{'none of ' if len(names) > 1 else ''}{', '.join(names)} is installed here, on the machine that builds"
    raise Refused("engine", problem, f"Install {' or '.join(names)}, or build on another host (group gpu_image_builder)")


class Engine:
    """One engine with its credentials and CA below ``scratch``, a directory of ours, 0700."""

    def __init__(self, name: str, path: str, scratch: str, login: Login, ca_cert: str | None, timeout: float) -> None:
        self.name, self._path, self._timeout = name, path, timeout
        self._directory = os.path.join(scratch, "engine")
        os.mkdir(self._directory, 0o700)
        # DOCKER_CONFIG is a directory with config.json in it; the other two take any file of the same form.
        self._auth = os.path.join(self._directory, "config.json")
        with os.fdopen(os.open(self._auth, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"auths": dict(login.auths)}, file)
        self._certificates = os.path.join(self._directory, "certificates")
        os.mkdir(self._certificates, 0o700)
        if ca_cert:
            # Every *.crt in it is a CA (containers-certs.d(5)).
            shutil.copyfile(ca_cert, os.path.join(self._certificates, "ca.crt"))

    def build(self, context: str, reference: str, arguments: t.Iterable[tuple[str, str]], labels: t.Mapping[str, str], fresh: bool) -> None:
        """Raises Refused with the end of what the engine said."""
        command = [self._path, "bud" if self.name == "buildah" else "build", *self._access()]
        command += ["--no-cache"] if fresh else []
        command += [part for key, value in arguments for part in ("--build-arg", f"{key}={value}")]
        command += [part for key, value in sorted(labels.items()) for part in ("--label", f"{key}={value}")]
        self._run(f"building {reference}", reference, [*command, "-t", reference, "-f", os.path.join(context, "Dockerfile"), context])

    def push(self, reference: str) -> str | None:
        """Push; the digest that the engine says it has pushed, if it says one. Raises Refused."""
        if self.name == "docker":
            printed = self._run(f"pushing {reference}", reference, [self._path, "push", reference])
            # "TAG: digest: sha256:... size: N"; podman's socket may leave that out.
            found = re.findall(r"digest: (sha256:[0-9a-f]{64})", printed)
            return found[-1] if found else None
        file = os.path.join(self._directory, "digest")
        to = [reference, f"docker://{reference}"]
        self._run(f"pushing {reference}", reference, [self._path, "push", "-q", *self._access(), "--digestfile", file, *to])
        with open(file, encoding="ascii") as digest:
            return digest.read().strip()

    def _access(self) -> list[str]:
        return [] if self.name == "docker" else ["--authfile", self._auth, "--cert-dir", self._certificates, "--tls-verify=true"]

    def _run(self, doing: str, reference: str, command: t.Sequence[str]) -> str:
        # A directory of our own in place of the user's: with it, docker finds neither the user's logins nor the plugins of the user.
        own = {"DOCKER_CONFIG": self._directory, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"} if self.name == "docker" else {}
        try:
            return _programs.run(command, self._timeout, own)
        except _programs.Failed as error:
            raise Refused(reference, f"{doing} with {self.name} failed: {error.end}", self._remedy(error.end)) from None

    def _remedy(self, end: str) -> str:
        if "certificate signed by unknown authority" in end and self.name == "docker":
            return "Docker's daemon trusts CAs of its own: put the registry's into /etc/docker/certs.d/HOST:PORT/ca.crt of the machine it runs on"
        if "annot connect to the Docker daemon" in end:
            return "Start Docker's daemon, set DOCKER_HOST, or take another engine"
        if "no space left" in end:
            return "Make room where the engine keeps its images, and in TMPDIR"
        return "Do what it says and run again; what is in the registry was left as it was"
