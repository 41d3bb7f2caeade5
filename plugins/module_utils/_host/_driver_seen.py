# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host says about an NVIDIA driver that it has installed itself: packages, what DKMS has, settings, who holds a GPU.

A driver container's files lie below ``/run/nvidia`` and are none of this.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._change import Blocker
from .._device_names import NVIDIA
from . import (
    _at_work,
    _driver_packages,
    _holders,
    _initramfs,
    _modprobe,
    _pci,
)
from ._commands import Commands
from ._driver_packages import Package
from ._sysfs import Host

ASK_SECONDS = 120
#: Modules of the driver. Others that have NVIDIA's name belong to the kernel (nvidiafb, i2c-nvidia-gpu, nvidia-wmi-ec-backlight).
MODULES = frozenset(("nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia_peermem", "nvidia_vgpu_vfio"))
#: Files that only an installed driver leaves; the second ones only the vGPU manager.
_TRACES = ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-uninstall")
_MANAGER = ("/usr/bin/nvidia-vgpud", "/usr/bin/nvidia-vgpu-mgr")
_DPKG_STATUS = "/var/lib/dpkg/status"
APT = "/usr/bin/apt-get"
_DNF = ("/usr/bin/dnf", "/usr/bin/yum")
_RPM = "/usr/bin/rpm"
_DKMS = "/var/lib/dkms"
_SETTINGS = ("/etc/modprobe.d", "/etc/modules-load.d")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a host says about a driver of its own, read once."""

    manager: t.Optional[str]  #: the package manager's program; None if there is none that is known
    packages: t.Tuple[Package, ...]  #: those of the driver
    unread: t.Optional[str]  #: why it is not known which packages there are
    side_effects: t.Tuple[str, ...]  #: what removing them would do beside
    refusal: t.Optional[str]  #: why the package manager would not
    dkms: t.Tuple[str, ...]  #: ``nvidia/580.95.05``
    settings: t.Tuple[str, ...]  #: files of modprobe.d and modules-load.d that no package owns
    traces: t.Tuple[str, ...]
    has_manager: bool  #: is it, or is a part of it, the vGPU manager
    holders: t.Optional[t.Tuple[_holders.Holder, ...]]
    unseen: t.Optional[str]  #: why the holders are not known
    images: t.Tuple[_initramfs.Image, ...]
    obstacles: t.Tuple[Blocker, ...]
    running: t.Optional[str]  #: version of the driver in the kernel, if it is there and no driver container's

    @property
    def present(self) -> bool:
        return bool(self.packages or self.dkms or self.settings or self.traces)


def observe(host: Host, commands: Commands, again: bool = False) -> Seen:
    """Read a host. ``again``: after a removal, when the images are looked into whatever the packages say."""
    manager = _manager(host)
    packages, unread = _packages(host, commands, manager)
    ours = tuple(package for package in packages if package.is_driver)
    side_effects, refusal = _asked(commands, manager, ours)
    dkms, traces = _dkms(host), [path for path in (*_TRACES, *_MANAGER) if host.exists(path)]
    settings = [path for path in _settings(host, packages) if not _owned(commands, manager, path)] if unread is None else []
    look = again or bool(ours or dkms or settings or traces)
    images = [image for image in _initramfs.images(host, commands, look) if (image.modules or frozenset()) & MODULES]
    holders, unseen = holding(host)
    return Seen(
        manager=manager,
        packages=ours,
        unread=unread,
        side_effects=tuple(side_effects),
        refusal=refusal,
        dkms=tuple(dkms),
        settings=tuple(settings),
        traces=tuple(traces),
        has_manager=any(host.exists(path) for path in _MANAGER) or any(package.is_vgpu_host for package in ours),
        holders=None if holders is None else tuple(holders),
        unseen=unseen,
        images=tuple(images),
        obstacles=(*_at_work.at_work(host), *(found for image in images for found in [_initramfs.room_problem(host, image)] if found)),
        running=_running(host),
    )


def _manager(host: Host) -> t.Optional[str]:
    if host.exists(_DPKG_STATUS) and host.exists(APT):
        return APT
    return next((program for program in _DNF if host.exists(program)), None) if host.exists(_RPM) else None


def _packages(host: Host, commands: Commands, manager: t.Optional[str]) -> t.Tuple[t.List[Package], t.Optional[str]]:
    """All packages of the host, and why they are not known."""
    if manager == APT:
        return _driver_packages.dpkg(host.read_text(_DPKG_STATUS) or ""), None
    if manager is None:
        return [], "the host has neither apt-get nor dnf"
    if not commands.can_run:
        return [], "only rpm can read its database, and no program is run here"
    ended = commands.run([_RPM, "--query", "--all", "--queryformat", _driver_packages.RPM_FORMAT], ASK_SECONDS)
    problem = ended.problem(_RPM, ASK_SECONDS)
    return ([], problem) if problem else (_driver_packages.rpm(ended.output), None)


def names(packages: t.Iterable[Package]) -> t.List[str]:
    """Packages as their manager takes them on its command line."""
    return [f"{package.name}:{package.arch}" if package.arch not in ("all", "") else package.name for package in packages]


def _rpm_names(packages: t.Iterable[Package]) -> t.List[str]:
    return [f"{package.name}-{package.version}.{package.arch}" for package in packages]


def removal(manager: str, packages: t.Sequence[Package]) -> t.List[str]:
    """The command that removes the packages, their configuration files with them, and nothing that is no longer needed by anybody."""
    if manager == APT:
        return [APT, "--assume-yes", "-o", "APT::Get::AutomaticRemove=false", "purge", *names(packages)]
    return [manager, "--assumeyes", "--setopt=clean_requirements_on_remove=False", "remove", *_rpm_names(packages)]


def _asked(commands: Commands, manager: t.Optional[str], packages: t.Sequence[Package]) -> t.Tuple[t.List[str], t.Optional[str]]:
    """What the package manager says that it would do beside removing these, and why it would not do it at all."""
    if manager is None or not packages or not commands.can_run:
        return [], None
    if manager == APT:
        command = [APT, "--simulate", "-o", "APT::Get::AutomaticRemove=false", "purge", *names(packages)]
    else:
        command = [_RPM, "--erase", "--test", *_rpm_names(packages)]
    ended = commands.run(command, ASK_SECONDS)
    problem = ended.problem(" ".join(command[:3]), ASK_SECONDS)
    if problem:
        return [], problem
    asked = {package.name for package in packages}
    return (_driver_packages.apt_side_effects(ended.output, asked) if manager == APT else []), None


def _dkms(host: Host) -> t.List[str]:
    return [
        f"{name}/{version}"
        for name in host.names(_DKMS)
        if re.fullmatch(r"nvidia(-.*)?", name) and not name.startswith("nvidia-fs")
        for version in host.names(f"{_DKMS}/{name}")
        if re.match(r"\d", version)
    ]


def _settings(host: Host, packages: t.Iterable[Package]) -> t.List[str]:
    """Files that set the driver's modules and nothing else, and that no package owns."""
    owned = {path for package in packages for path in package.files}
    found = []
    for directory in _SETTINGS:
        for name in host.names(directory):
            path = f"{directory}/{name}"
            if name.startswith("nvidia") and name.endswith(".conf") and path not in owned and _only_the_driver(host.read_text(path) or ""):
                found.append(path)
    return found


def _owned(commands: Commands, manager: t.Optional[str], path: str) -> bool:
    """Does a package of rpm's own this file? dpkg's status file has said so already."""
    return manager not in (None, APT) and commands.run([_RPM, "--query", "--file", path], ASK_SECONDS).code == 0


def _only_the_driver(text: str) -> bool:
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", ";"))]
    modules = {_modprobe.canonical(words[1] if len(words) > 1 else words[0]) for words in lines}
    return bool(modules) and modules <= {*MODULES, "nouveau", "lbm_nouveau"}


def holding(host: Host) -> t.Tuple[t.Optional[t.List[_holders.Holder]], t.Optional[str]]:
    """Who holds a device of the driver's, or a GPU by any other way; None and why if that is unknown."""
    opened = _holders.Opened(host)
    nodes: t.Dict[str, t.Optional[str]] = {}
    for directory in ("/dev", "/dev/nvidia-caps"):
        for name in host.names(directory):
            if name.startswith("nvidia"):
                nodes[f"{directory}/{name}"] = host.device_number(f"{directory}/{name}")
    functions = [function for function in _pci.functions(host) if function.vendor == NVIDIA]
    for function in functions:
        nodes.update(_holders.nodes(host, function.path, function.group, function.address))
    return opened.of(nodes, vfio=any("vfio" in (function.driver or "") for function in functions)), opened.unknown


def _running(host: Host) -> t.Optional[str]:
    if not host.exists("/sys/module/nvidia") or host.names("/run/nvidia"):
        return None
    return host.quiet("/sys/module/nvidia/version") or "of unknown version"
