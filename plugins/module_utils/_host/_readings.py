# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small readings that several parts of the host domain share."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

Facts = t.Dict[str, t.Any]


def quiet(host: Host, path: str) -> str | None:
    """The stripped text of a file that many hosts lack, or cannot read: None then."""
    try:
        content = host.read_text(path)
    except HostError:
        return None
    return None if content is None else content.strip()


def os_release(text: str) -> t.Dict[str, str]:
    """``/etc/os-release`` as a mapping, quotes removed."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _equals, value in pairs}


def processes(host: Host) -> t.List[int]:
    return sorted(int(name) for name in host.names("/proc") if name.isdigit())


def is_qemu(comm: str) -> bool:
    """Is this the name of a process that runs a VM? (Names are cut at 15 characters; the guest agent is none.)"""
    return comm.startswith("qemu-system-") or comm in ("qemu-kvm", "qemu")


def unseen(host: Host) -> str | None:
    """Why the processes of the host itself cannot be seen, or None if they can. In its first PID namespace, process 2 is kthreadd."""
    if not host.exists("/proc/1"):
        return "/proc shows no process"
    if quiet(host, "/proc/2/comm") != "kthreadd":
        return "/proc shows the processes of a container, not those of the host"
    return None
