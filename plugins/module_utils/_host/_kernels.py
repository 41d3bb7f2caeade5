# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernels that a host has on its disk, and what the running one could load."""

from __future__ import annotations

import typing as t

from . import _cmdline, _modprobe, _system
from ._sysfs import Host, HostError

#: Modules that a GPU host needs from its distribution, or that may take a GPU at boot. Names as sysfs spells them.
LOADABLE = ("mdev", "nouveau", "nova_core", "nvidiafb", "vfio_pci")
#: Drivers that take a GPU as soon as they load.
TAKERS = ("nouveau", "nova_core", "nvidiafb")


def kernels(host: Host, running: str | None, arguments: t.Sequence[str] | None, unknown: _system.Unknown) -> _system.Facts:
    """``{installed, newest, headers, modules, blocked}``: see ``RETURN`` of ``gpu_node_info``.

    ``arguments``: those of the running kernel, or None if they are not known.
    """
    installed = _installed(host)
    if not installed:
        unknown.reasons["kernels.installed"] = "neither /boot nor /usr/lib/modules shows a kernel"
    return {
        "installed": installed or None,
        "newest": installed[-1] if installed else None,
        # A directory, or a link to one: of Debian's header package, or of EL's kernel-devel.
        "headers": None if running is None else host.exists(f"/lib/modules/{running}/build/Makefile"),
        "modules": _modules(host, running, unknown),
        "blocked": _blocked(host, arguments, unknown),
    }


def _installed(host: Host) -> t.List[str]:
    """The releases, oldest first. Directories of modules outlive their kernel, so that kernel images are counted."""
    found = {name.partition("-")[2] for name in _names(host, "/boot") if name.startswith("vmlinuz-")}
    found |= {name for name in _names(host, "/usr/lib/modules") if host.exists(f"/usr/lib/modules/{name}/vmlinuz")}
    return sorted((name for name in found if not name.startswith("0-rescue-")), key=_system.release_key)


def _names(host: Host, path: str) -> t.List[str]:
    try:
        return host.names(path)
    except HostError:
        return []


def _modules(host: Host, running: str | None, unknown: _system.Unknown) -> t.Dict[str, t.Optional[bool]]:
    """Whether the running kernel has each module, built in or not; None if its list cannot be read."""
    found = None
    try:
        found = None if running is None else _modprobe.available(host, running)
        reason = f"there is no /lib/modules/{running}/modules.dep"
    except HostError as error:
        reason = str(error)
    if found is None:
        unknown.reasons["kernels.modules"] = reason
        return dict.fromkeys(LOADABLE)
    return {name: name in found for name in LOADABLE}


def _blocked(host: Host, arguments: t.Sequence[str] | None, unknown: _system.Unknown) -> t.Optional[t.List[str]]:
    """Those of TAKERS that do not load by themselves."""
    try:
        own = _modprobe.directives(_modprobe.OWN, host.read_text(_modprobe.OWN) or "")
        lines = [*_modprobe.read(host), *own, *_modprobe.from_arguments(_cmdline.blocking(arguments or ()))]
    except HostError as error:
        unknown.reasons["kernels.blocked"] = str(error)
        return None
    return sorted(_modprobe.blocked(lines) & set(TAKERS))
