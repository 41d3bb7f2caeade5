# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt's own definition of its object in several releases, from the published Go modules. Nothing is compiled for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.lab import build
from tests.lab.layout import LabError

MODULE = "kubevirt.io/kubevirt"
# What `go mod download` says that a release's module is: before and after 1.8, which brought mediatedDevicesConfiguration.enabled.
SUMS = {
    "v1.7.0": "h1:Emz0v1IGKwTvWvD+d0mZmfZFvVCxreSAPAUQnp0ZhZI=",
    "v1.8.0": "h1:zhHIWSsV9k1IWrNHuL+ylfvYH6mXUJY6ZIuHxsTgydU=",
    "v1.9.0": "h1:eauQfI39dRALNciMIQtR7UsbTUjUft5V6IBO57Icl/k=",
}
FILE = "manifests/generated/kv-resource.yaml"


def kubevirt(version: str) -> dict[str, Any]:
    """The CustomResourceDefinition `kubevirts.kubevirt.io` of a release; kept in the cache once it has been downloaded (10 MB each)."""
    kept = build.cache_directory() / "kubevirt-definitions" / f"{version}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="download-", dir=kept.parent))
        try:
            fresh = scratch / kept.name
            fresh.write_text(json.dumps(_downloaded(version, scratch)))
            fresh.replace(kept)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    definition: dict[str, Any] = json.loads(kept.read_text())
    return definition


def _downloaded(version: str, scratch: Path) -> dict[str, Any]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("GOROOT", "GOBIN", "GOFLAGS")}
    own = {
        "GOMODCACHE": str(scratch / "mod"),
        "GOPATH": str(scratch / "path"),
        "GOFLAGS": "-modcacherw",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
    }
    argv = [build.go_binary(), "mod", "download", "-json", f"{MODULE}@{version}"]
    done = subprocess.run(
        argv, cwd=scratch, env={**inherited, **own}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    answer = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    if done.returncode or answer.get("Error"):
        raise LabError(f"Downloading {MODULE} {version} for its definitions: {answer.get('Error') or done.stderr.strip()}.")
    if answer["Sum"] != SUMS[version]:
        raise LabError(
            f"Downloading {MODULE} {version} for its definitions: its sum is {answer['Sum']}, not {SUMS[version]}. It was tampered with."
        )
    definition: dict[str, Any] = yaml.safe_load((Path(answer["Dir"]) / FILE).read_text())
    return definition
