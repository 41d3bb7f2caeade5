# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Removing an NVIDIA driver that the host itself has installed, through its package manager and nothing else.

A driver container's files lie below ``/run/nvidia`` and are none of this. What NVIDIA's installer (a ``.run`` file) has put there only
that installer can take away.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import (
    _at_work,
    _driver_packages,
    _holders,
    _initramfs,
    _modprobe,
    _pci,
    _system,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._driver_packages import Package
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._names import NVIDIA

REMOVE_SECONDS = 1200
ASK_SECONDS = 120
STOP_SECONDS = 90
#: Modules of the driver. Others that have NVIDIA's name belong to the kernel (nvidiafb, i2c-nvidia-gpu, nvidia-wmi-ec-backlight).
MODULES = frozenset(("nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia_peermem", "nvidia_vgpu_vfio"))
#: Daemons of the driver that hold its devices as long as they run: name of the process, cut at 15 characters, and unit.
DAEMONS = {
    "nvidia-persiste": "nvidia-persistenced.service",
    "nv-fabricmanage": "nvidia-fabricmanager.service",
    "nvidia-powerd": "nvidia-powerd.service",
    "nvidia-vgpud": "nvidia-vgpud.service",
    "nvidia-vgpu-mgr": "nvidia-vgpu-mgr.service",
}
#: Files that only an installed driver leaves; the second ones only the vGPU manager.
_TRACES = ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-uninstall")
_MANAGER = ("/usr/bin/nvidia-vgpud", "/usr/bin/nvidia-vgpu-mgr")
_DPKG_STATUS = "/var/lib/dpkg/status"
_APT = "/usr/bin/apt-get"
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
    if host.exists(_DPKG_STATUS) and host.exists(_APT):
        return _APT
    return next((program for program in _DNF if host.exists(program)), None) if host.exists(_RPM) else None


def _packages(host: Host, commands: Commands, manager: t.Optional[str]) -> t.Tuple[t.List[Package], t.Optional[str]]:
    """All packages of the host, and why they are not known."""
    if manager == _APT:
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
    if manager == _APT:
        return [_APT, "--assume-yes", "-o", "APT::Get::AutomaticRemove=false", "purge", *names(packages)]
    return [manager, "--assumeyes", "--setopt=clean_requirements_on_remove=False", "remove", *_rpm_names(packages)]


def _asked(commands: Commands, manager: t.Optional[str], packages: t.Sequence[Package]) -> t.Tuple[t.List[str], t.Optional[str]]:
    """What the package manager says that it would do beside removing these, and why it would not do it at all."""
    if manager is None or not packages or not commands.can_run:
        return [], None
    if manager == _APT:
        command = [_APT, "--simulate", "-o", "APT::Get::AutomaticRemove=false", "purge", *names(packages)]
    else:
        command = [_RPM, "--erase", "--test", *_rpm_names(packages)]
    ended = commands.run(command, ASK_SECONDS)
    problem = ended.problem(" ".join(command[:3]), ASK_SECONDS)
    if problem:
        return [], problem
    asked = {package.name for package in packages}
    return (_driver_packages.apt_side_effects(ended.output, asked) if manager == _APT else []), None


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
    return manager not in (None, _APT) and commands.run([_RPM, "--query", "--file", path], ASK_SECONDS).code == 0


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
    return _system.quiet(host, "/sys/module/nvidia/version") or "of unknown version"


def foreign(holders: t.Iterable[_holders.Holder]) -> t.List[_holders.Holder]:
    """The holders that are no daemons of the driver itself."""
    return [holder for holder in holders if holder.comm not in DAEMONS]


def units(seen: Seen) -> t.List[str]:
    """The units of the driver's daemons that hold its devices."""
    return sorted({DAEMONS[holder.comm] for holder in seen.holders or () if holder.comm in DAEMONS})


def make_plan(seen: Seen, owner: str, can_run: bool) -> Plan:
    """What to remove. Without ``can_run``, only files are: the rest is left to whoever can run the package manager."""
    plan = Plan()
    if not seen.present:
        if seen.unread is not None and seen.running is not None:
            plan.blockers.append(_undecided(seen.unread))
        return plan
    plan.blockers += _refusals(seen, owner)
    if can_run:
        if not seen.packages and seen.traces:
            plan.blockers.append(
                Blocker(
                    "host driver",
                    f"no package owns it ({', '.join(seen.traces)}), so NVIDIA's installer has put it there",
                    "Run nvidia-uninstall (or the .run file with --uninstall) yourself, and run this again",
                )
                if seen.unread is None
                else _undecided(seen.unread)
            )
        plan.changes += [Change(f"unit {unit}", "stop", "running", None, "it holds the driver's devices") for unit in units(seen)]
        verb = "purge" if seen.manager == _APT else "remove"
        plan.changes += [
            Change(f"package {package.name}", verb, f"{package.version} {package.arch}".strip(), None, "it is part of an NVIDIA driver")
            for package in seen.packages
        ]
        if not any("dkms" in package.name for package in seen.packages):
            plan.changes += [Change(f"dkms {name}", "remove", None, None, "no package removes it") for name in seen.dkms]
    plan.changes += [
        Change(f"file {path}", "remove", None, None, "it sets modules of the driver, and no package owns it") for path in seen.settings
    ]
    if can_run:
        plan.changes += [Change(f"image {image.path}", "rebuild", None, None, "the driver is in it") for image in seen.images]
    return plan


def _undecided(why: str) -> Blocker:
    return Blocker("host driver", f"which packages it is made of is not known: {why}", "Remove it yourself, and run this again")


def _refusals(seen: Seen, owner: str) -> t.List[Blocker]:
    found = []
    if seen.has_manager and owner == "host":
        problem = "it is a vGPU manager, and this host makes its own vGPUs with it (gpufleet_device_owner: host)"
        found.append(Blocker("host driver", problem, "Leave it, or give the devices to the operator first"))
    if seen.holders is None:
        found.append(Blocker("GPUs", f"who holds them is not known: {seen.unseen}", "Run this as root in the host's own process namespace"))
    found += [
        Blocker(f"process {holder.pid}", f"{holder} has {holder.device} open", "End it (a pod: drain the node) and run again")
        for holder in foreign(seen.holders or ())
    ]
    if seen.refusal is not None:
        found.append(Blocker("packages", seen.refusal, "Mend that, or remove the packages yourself"))
    if seen.side_effects:
        problem = f"removing the driver would also {', '.join(seen.side_effects)}"
        found.append(Blocker("packages", problem, "Remove what depends on the driver yourself, if you do not need it, and run again"))
    return found + list(seen.obstacles)


def apply(host: Host, commands: Commands, seen: Seen, changes: t.Sequence[Change]) -> t.List[Blocker]:
    """Stop the daemons, look once more who holds a GPU, keep the images, remove, and build the images anew. The first failure ends it."""
    by_kind: t.Dict[str, t.List[Change]] = {}
    for change in changes:
        by_kind.setdefault(change.target.partition(" ")[0], []).append(change)
    try:
        for change in by_kind.get("unit", []):
            failed = _run(commands, change, ["/usr/bin/systemctl", "stop", change.target.partition(" ")[2]], STOP_SECONDS)
            if failed:
                return [failed]
        if by_kind.get("package") or by_kind.get("dkms"):
            late = _held_now(host)
            if late:
                return late
        for image in seen.images:
            _initramfs.keep(host, image)
        packages = by_kind.get("package", [])
        if packages and seen.manager is not None:
            failed = _run(commands, packages[0], removal(seen.manager, seen.packages), REMOVE_SECONDS)
            if failed:
                return [Blocker("packages", failed.problem, failed.remedy)]
        for change in by_kind.get("dkms", []):
            name, _slash, version = change.target.partition(" ")[2].partition("/")
            failed = _run(commands, change, ["/usr/sbin/dkms", "remove", "-m", name, "-v", version, "--all"], REMOVE_SECONDS)
            if failed:
                return [failed]
        for change in by_kind.get("file", []):
            host.remove(change.target.partition(" ")[2])
    except HostError as error:
        return [Blocker(f"file {error.path}", error.reason, "Mend that and run again before you reboot")]
    return _rebuilt(host, commands)


def _held_now(host: Host) -> t.List[Blocker]:
    holders, unknown = holding(host)
    if holders is None:
        return [Blocker("GPUs", f"who holds them is not known: {unknown}", "Run this as root in the host's own process namespace")]
    return [
        Blocker(f"process {holder.pid}", f"{holder} has {holder.device} open", "End it and run again; no package was removed")
        for holder in holders
    ]


def _rebuilt(host: Host, commands: Commands) -> t.List[Blocker]:
    """Build the images that still hold the driver: those of Debian's packages have been built by the package manager already."""
    return [
        found
        for image in _initramfs.images(host, commands, look=True)
        if (image.modules or frozenset()) & MODULES
        for found in [_initramfs.rebuild(host, commands, image)]
        if found
    ]


def _run(commands: Commands, change: Change, command: t.Sequence[str], seconds: int) -> t.Optional[Blocker]:
    problem = commands.run(command, seconds).problem(" ".join(command[:2]), seconds)
    return Blocker(change.target, problem, "Mend that and run again before you reboot") if problem else None


def left(seen: Seen) -> t.List[Blocker]:
    """What is still there after the removal."""
    found = [Blocker(f"package {package.name}", "it is still there", "Look at the package manager's log") for package in seen.packages]
    found += [Blocker(f"dkms {name}", "it is still there", f"Run: dkms remove {name} --all") for name in seen.dkms]
    found += [Blocker(f"file {path}", "it is still there", "Look for another writer of it") for path in seen.settings]
    found += [
        Blocker(f"file {path}", "it is still there, and no package owned it", "Run nvidia-uninstall, or remove it yourself")
        for path in seen.traces
    ]
    return found + [
        Blocker(f"image {image.path}", "the driver is still in it", "Look at what your own configuration puts into it")
        for image in seen.images
    ]
