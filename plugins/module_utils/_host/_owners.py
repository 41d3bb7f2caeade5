# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who else makes devices on this host: the GPU Operator's device manager at run time, mdevctl or a unit of the site at boot.

Two of them undo each other's work, so each is found and named.
"""

from __future__ import annotations

import re
import typing as t

from .._change import Blocker
from ._sysfs import Host, HostError

#: NVIDIA/vgpu-device-manager, cmd/nvidia-k8s-vgpu-dm; the kernel cuts a process's name at 15 characters.
_DEVICE_MANAGER = "nvidia-k8s-vgpu-dm"[:15]
_MDEVCTL = "/etc/mdevctl.d"
_UNITS = "/etc/systemd/system"
_MAKES_DEVICES = re.compile(r"sriov-manage|sriov_numvfs|mdev_supported_types|current_vgpu_type|\bmdevctl\b")
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
#: A program that a unit of the site starts is read if it lies where sites put theirs, and is no larger than this.
_SITE_PROGRAM = re.compile(r"^Exec\w+=[-@+!:]*.*?((?:/usr/local|/opt|/etc|/root|/srv)/[^\s;'\"]+)", re.MULTILINE)
_LARGEST_PROGRAM = 1 << 16


def device_manager(host: Host) -> t.List[Blocker]:
    """A Blocker if the operator's device manager runs here."""
    for pid in host.processes():
        if host.quiet(f"/proc/{pid}/comm") == _DEVICE_MANAGER:
            problem = f"NVIDIA's vGPU device manager runs on it (process {pid}) and would undo this"
            return [
                Blocker("host", problem, "Give the host one owner: gpufleet_device_owner: operator, or take the operator's off this node")
            ]
    return []


def operator(owner: str) -> t.List[Blocker]:
    """A Blocker if the host's devices are the operator's by decision."""
    if owner != "operator":
        return []
    problem = "the GPU Operator owns its devices (owner: operator)"
    return [Blocker("host", problem, "Let the operator make them, or decide for owner: host")]


def at_boot(host: Host, parents: t.Mapping[str, t.Sequence[str]], own: t.Container[str]) -> t.Dict[str, Blocker]:
    """For each of these GPUs or physical functions (address -> its virtual functions), who else makes its devices at boot; ``own``: our own files."""
    units = _site_units(host, own)
    found = {}
    for address, functions in parents.items():
        who = _mdevctl(host, {address, *functions}) or _unit_for(units, {address, *functions})
        if who:
            problem = f"{who} makes its devices at boot too"
            found[address] = Blocker(f"function {address}", problem, "Remove that, or leave this one to it", stops="target")
    return found


def _mdevctl(host: Host, functions: t.Set[str]) -> str | None:
    # Virtual functions that do not exist yet will be on the bus of their GPU.
    buses = {address.rpartition(":")[0] for address in functions}
    for parent in host.names(_MDEVCTL):
        if parent.rpartition(":")[0] in buses and host.names(f"{_MDEVCTL}/{parent}"):
            return f"mdevctl ({_MDEVCTL}/{parent})"
    return None


def _unit_for(units: t.Mapping[str, t.Set[str]], functions: t.Set[str]) -> str | None:
    """A unit that names one of the functions, or none at all (it then means every GPU)."""
    for path, named in units.items():
        if not named or named & functions:
            return f"the unit {path}"
    return None


def _site_units(host: Host, own: t.Container[str]) -> t.Dict[str, t.Set[str]]:
    """Units that make devices, with the addresses that they name."""
    found = {}
    for name in host.names(_UNITS):
        paths = [f"{_UNITS}/{name}"]
        if name.endswith(".service.d"):
            paths = [f"{_UNITS}/{name}/{part}" for part in host.names(f"{_UNITS}/{name}") if part.endswith(".conf")]
        elif not name.endswith(".service"):
            continue
        for path in paths:
            text = None if path in own else _text(host, path)
            if text and _MAKES_DEVICES.search(text):
                found[path] = {address.lower() for address in _ADDRESS.findall(text)}
    return found


def _text(host: Host, path: str) -> str:
    """A unit without its comments, and the programs of the site that it starts."""
    unit = re.sub(r"(?m)^\s*[#;].*$", "", host.quiet(path) or "")
    programs = []
    for program in _SITE_PROGRAM.findall(unit):
        try:
            content = host.read_bytes(program) or b""
        except HostError:
            continue
        if len(content) <= _LARGEST_PROGRAM and b"\0" not in content:
            programs.append(re.sub(r"(?m)^\s*#.*$", "", content.decode("utf-8", "replace")))
    return "\n".join([unit, *programs])
