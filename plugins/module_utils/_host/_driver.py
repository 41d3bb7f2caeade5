# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An NVIDIA driver that the host itself has installed. A driver container's files lie below /run/nvidia and do not count."""

from __future__ import annotations

import re

from . import _system
from ._sysfs import Host

#: Files that only an installed driver leaves.
_ANY = ("/usr/bin/nvidia-smi", "/var/lib/dkms/nvidia", "/etc/vulkan/icd.d/nvidia_icd.json")
#: Files that only a vGPU manager, the host's part of vGPU, leaves.
_MANAGER = ("/usr/bin/nvidia-vgpud", "/usr/bin/nvidia-vgpu-mgr", "/usr/lib/nvidia/sriov-manage")
#: Where a driver that is not loaded shows its version: in a name. Debian and Ubuntu, EL, and the packages of DKMS.
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")
_VERSION = r"\d{3,}\.\d+(?:\.\d+)*"


def host_driver(host: Host, unknown: _system.Unknown) -> _system.Facts:
    """``{present, kind, version, branch, source}``: which driver, of which branch (the first number of its version), found by which files."""
    if not host.exists("/usr"):
        unknown.reasons["host_driver"] = "there is no /usr"
        return {"present": None, "kind": None, "version": None, "branch": None, "source": []}
    sources = [path for path in _ANY if host.exists(path)]
    manager = [path for path in _MANAGER if host.exists(path)]
    present = bool(sources or manager)
    version = _version(host) if present else None
    if present and version is None:
        unknown.reasons["host_driver.version"] = "the driver is not loaded, and no file's name has its version"
    return {
        "present": present,
        "kind": ("vgpu_host" if manager else "datacenter") if present else None,
        "version": version,
        "branch": int(version.partition(".")[0]) if version else None,
        "source": sources + manager,
    }


def _version(host: Host) -> str | None:
    """The version of the loaded driver, else of the one that is installed."""
    for path in ("/sys/module/nvidia/version", "/proc/driver/nvidia/version"):
        found = re.search(rf"\b{_VERSION}\b", host.quiet(path) or "")
        if found:
            return found.group()
    named = [name for name in host.names("/var/lib/dkms/nvidia") if re.fullmatch(_VERSION, name)]
    for directory in _LIBRARIES:
        for name in host.names(directory):
            match = re.fullmatch(rf"libnvidia-ml\.so\.({_VERSION})", name)
            if match:
                named.append(match.group(1))
    return max(named, key=_system.release_key, default=None)
