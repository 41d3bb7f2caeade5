# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import typing as t
from pathlib import Path

import fake_registry
import pytest

from tests.bmc import certificates

Json = dict[str, t.Any]

VERSION = "580.95.02"
INSTALLER = f"NVIDIA-Linux-x86_64-{VERSION}-vgpu-kvm.run"

#: An engine as a program. It keeps what it was given, and pushes into the directories of the fake registry.
ENGINE = """#!/bin/sh
set -eu; PATH=/usr/bin:/bin
echo "${0##*/} $*" >>"$FAKE/calls"
verb=$1; shift
labels= auth=${DOCKER_CONFIG:-/nowhere}/config.json digestfile=/dev/null
if [ "$verb" != push ]; then
    while [ $# -gt 1 ]; do
        case $1 in
        --label) labels="$labels${labels:+,}\\"${2%%=*}\\":\\"${2#*=}\\""; shift ;;
        --authfile) auth=$2; shift ;;
        --cert-dir) ls "$2" >"$FAKE/certificates"; shift ;;
        --build-arg) echo "$2" >>"$FAKE/arguments"; shift ;;
        -f | -t) shift ;;
        esac
        shift
    done
    if [ -e "$FAKE/fail" ]; then cat "$FAKE/fail" >&2; exit 3; fi
    (cd "$1" && find . -type f | sort) >"$FAKE/context"; stat -c %a "$1" "$auth" >"$FAKE/modes"; cp "$auth" "$FAKE/auth"
    printf %s "{\\"config\\":{\\"Labels\\":{$labels}}}" >"$FAKE/config"
else
    while [ $# -gt 1 ]; do case $1 in --digestfile) digestfile=$2; shift ;; --authfile | --cert-dir) shift ;; -*) ;; *) ref=$1 ;; esac; shift; done
    ref=${ref:-$1}
    sum() { echo "sha256:$(sha256sum <"$1" | cut -c1-64)"; }
    c=$(sum "$FAKE/config"); cp "$FAKE/config" "$FAKE/registry/blobs/$c"
    printf %s "{\\"config\\":{\\"digest\\":\\"$c\\"},\\"layers\\":[{\\"digest\\":\\"$c\\"}]}" >"$FAKE/manifest"
    m=$(sum "$FAKE/manifest"); cp "$FAKE/manifest" "$FAKE/registry/manifests/${ref##*:}"; cp "$FAKE/manifest" "$FAKE/registry/manifests/$m"
    [ -e "$FAKE/wrong" ] && m=sha256:$(printf %064d 0)
    printf %s "$m" >"$digestfile"
    [ "$digestfile" != /dev/null ] || [ -e "$FAKE/silent" ] || echo "${ref##*:}: digest: $m size: 1"
fi
"""


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    certificates.make(directory)
    return directory


@dataclasses.dataclass
class Bench:
    """A machine that builds, with engines, sources and an installer, and a registry."""

    directory: Path
    registry: fake_registry.Registry
    ca_cert: Path
    installer: Path
    source: Path
    forbid: t.Callable[[str], None]

    def params(self, **more: t.Any) -> Json:
        params = {
            "run_file": str(self.installer),
            "source": str(self.source),
            "os_tags": ["ubuntu22.04"],
            "registry": f"{self.registry.host}/nvidia",
            "username": fake_registry.USER,
            "password": fake_registry.PASSWORD,
            "ca_cert": str(self.ca_cert),
            **more,
        }
        return {key: value for key, value in params.items() if value is not None}

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.installer.read_bytes()).hexdigest()

    def said(self, name: str) -> list[str]:
        """Lines that the engine kept: ``calls``, ``context``, ``arguments``, ``auth``, ``certificates``, ``modes``."""
        file = self.directory / name
        return file.read_text().splitlines() if file.exists() else []

    def forget(self) -> None:
        for name in ("calls", "context", "arguments", "auth"):
            (self.directory / name).unlink(missing_ok=True)
        self.registry.requests.clear()

    def engines(self, *names: str) -> None:
        """Have these engines and no others."""
        shutil.rmtree(self.directory / "bin", ignore_errors=True)
        (self.directory / "bin").mkdir()
        for name in names:
            program = self.directory / "bin" / name
            program.write_text(ENGINE)
            program.chmod(0o755)
        for name in ("git",):
            (self.directory / "bin" / name).symlink_to(str(shutil.which(name, path=os.defpath)))


class MakeBench(t.Protocol):
    def __call__(self, auth: str = "basic", certificate: str = "server") -> Bench: ...


@pytest.fixture
def make_bench(tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[MakeBench]:
    made: list[fake_registry.Registry] = []

    def forbid(place: str) -> None:
        """Neither a file nor a directory can be read there. Root may read all, so that the system's calls are made to say it."""

        def refusing(call: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
            def asked(path: t.Any, *arguments: t.Any, **more: t.Any) -> t.Any:
                if path == place:
                    raise PermissionError(13, "Permission denied", place)
                return call(path, *arguments, **more)

            return asked

        monkeypatch.setattr("os.scandir", refusing(os.scandir))
        monkeypatch.setattr("builtins.open", refusing(open))

    def make(auth: str = "basic", certificate: str = "server") -> Bench:
        made.append(fake_registry.Registry(tmp_path / "registry", pki, auth, certificate))
        installer = tmp_path / INSTALLER
        installer.write_text("#!/bin/sh\nexit 0\n")
        source = tmp_path / "source"
        for directory in ("ubuntu22.04", "rhel9"):
            place = source / "vgpu-manager" / directory
            (place / "certs").mkdir(parents=True)
            (place / "Dockerfile").write_text("FROM scratch\n")
            (place / "nvidia-driver").write_text(f"#!/bin/sh\n# {directory}\n")
            (place / "nvidia-driver").chmod(0o755)
            (place / "certs" / ".keep").touch()
            (place / "NVIDIA-Linux-x86_64-1.2-vgpu-kvm.run").write_text("left over")
        bench = Bench(tmp_path, made[-1], pki / "ca.crt", installer, source, forbid)
        bench.engines("podman", "buildah", "docker")
        (tmp_path / "tmp").mkdir()
        monkeypatch.setenv("FAKE", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        return bench

    yield make
    for registry in made:
        registry.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()
