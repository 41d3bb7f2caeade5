# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules at boot: what a host has, what has to be written for a wish, and writing it.

Three places decide: our file in modules-load.d, our file in modprobe.d, and the initramfs, which holds a copy of the second one.
"""

from __future__ import annotations

import dataclasses
import posixpath
import typing as t

from .._change import Blocker, Change, Plan
from .._device_names import NVIDIA
from . import (
    _at_work,
    _bootloader,
    _cmdline,
    _disk,
    _initramfs,
    _modprobe,
    _modprobe_wish,
    _pci,
)
from ._commands import Commands
from ._sysfs import Host, HostError

#: Drivers whose name on the PCI bus is another than their module's.
_MODULE_OF = {"NovaCore": "nova_core"}


class Holder(t.NamedTuple):
    """A function of NVIDIA's that a driver has: its address and the driver's module."""

    address: str
    module: str


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a host says about its modules at boot, read once."""

    own: t.Optional[str]  #: text of our file in modprobe.d
    own_load: t.Optional[str]  #: text of our file in modules-load.d
    own_modified: t.Optional[float]
    others: t.Tuple[_modprobe.Directive, ...]
    available: t.Optional[t.FrozenSet[str]]
    built_in: t.FrozenSet[str]
    by_argument: t.FrozenSet[str]  #: modules that the arguments of the next boot block, in the initramfs too
    loaded: t.FrozenSet[str]
    holders: t.Tuple[Holder, ...]
    release: t.Optional[str]
    provider: str
    images: t.Tuple[_initramfs.Image, ...]
    commands: t.Mapping[str, t.Optional[t.List[str]]]  #: how each image is built, by its path
    outlived: t.Tuple[str, ...]
    obstacles: t.Tuple[Blocker, ...]  #: what makes building an image unsafe now


def observe(host: Host, commands: Commands, wish: bool) -> Seen:
    """Read a host. Without a ``wish`` for modprobe, now and before, nobody looks into the images, which takes a second each."""
    own = host.read_text(_modprobe.OWN)
    images = _initramfs.images(host, commands, look=wish or own is not None)
    release = host.quiet("/proc/sys/kernel/osrelease")
    running = _cmdline.split(host.read_text("/proc/cmdline") or "")
    following = _bootloader.configured(host)
    obstacles = [*_at_work.at_work(host), *(found for image in images for found in [_initramfs.room_problem(host, image)] if found)]
    return Seen(
        own=own,
        own_load=host.read_text(_modprobe_wish.OWN_LOAD),
        own_modified=_disk.modified(host, _modprobe.OWN),
        others=(*_modprobe.read(host), *_modprobe.from_arguments(_cmdline.blocking(running))),
        available=_modprobe.available(host, release) if release else None,
        built_in=_modprobe.built_in(host, release) if release else frozenset(),
        by_argument=frozenset(
            _modprobe.canonical(module) for module, _key in _cmdline.blocking(running if following is None else following)
        ),
        loaded=frozenset(host.names("/sys/module")),
        holders=tuple(holders(host)),
        release=release,
        provider=_bootloader.provider(host),
        images=tuple(images),
        commands={image.path: _initramfs.build_command(host, image) for image in images},
        outlived=tuple(_initramfs.outlived(_initramfs.kept_images(host), _initramfs.booted_at(host))),
        obstacles=tuple(obstacles),
    )


def holders(host: Host) -> t.List[Holder]:
    """The functions of NVIDIA's that have a driver."""
    return [
        Holder(function.address, module_of(host, function.driver))
        for function in _pci.functions(host)
        if function.vendor == NVIDIA and function.driver is not None
    ]


def module_of(host: Host, driver: str) -> str:
    """The module of a PCI driver, by its canonical name: the kernel links to it, unless the driver is built in."""
    link = host.link(f"/sys/bus/pci/drivers/{driver}/module")
    return _MODULE_OF.get(driver, _modprobe.canonical(driver)) if link is None else posixpath.basename(link)


def in_the_way(wish: _modprobe_wish.Wish, seen: Seen) -> t.List[Holder]:
    """Blocked modules that hold a GPU, or another function of its board, now: only a boot frees it."""
    blocked = {_modprobe.canonical(name) for name in wish.block}
    return [holder for holder in seen.holders if holder.module in blocked]


def concerns(wish: _modprobe_wish.Wish, seen: Seen) -> t.FrozenSet[str]:
    """The modules for which the image counts: those with options, and the blocked ones that no boot argument blocks as well."""
    options = frozenset(_modprobe.canonical(module) for module, _value in wish.options)
    return options | (wish.concerns - seen.by_argument)


def stale(wish: _modprobe_wish.Wish, seen: Seen) -> t.List[_initramfs.Image]:
    """The images that are not what the wish needs."""
    text = _modprobe_wish.own_text(wish)
    modified = seen.own_modified if seen.own == text else None
    return [image for image in seen.images if _initramfs.differs(image, concerns(wish, seen), text is not None, modified)]


def not_loaded(wish: _modprobe_wish.Wish, seen: Seen) -> t.List[str]:
    """The modules to load at boot that the running kernel has not loaded. Of those built in, it does not show every one."""
    return [name for name in wish.load if not {_modprobe.canonical(name)} & {*seen.loaded, *seen.built_in}]


def to_load(load: t.Sequence[str], if_present: t.Sequence[str], seen: Seen) -> t.Tuple[str, ...]:
    """The modules to load: those of ``if_present`` only where the kernel has them."""
    there = [name for name in if_present if seen.available is not None and _modprobe.canonical(name) in seen.available]
    return tuple(dict.fromkeys((*load, *there)))


def make_plan(wish: _modprobe_wish.Wish, seen: Seen, may_build: bool) -> Plan:
    """What to write for a wish. ``may_build``: an image that differs is built anew, and not left to somebody else."""
    plan = Plan()
    plan.blockers += [blocker for _line, blocker in _modprobe_wish.contradicting(wish, seen.others)]
    plan.warnings += [
        f"{line.path} line {line.line} makes vfio-pci take every device of {_modprobe.parameters(line.rest)['ids']} at boot"
        for line in _modprobe.claims(seen.others)
    ]
    if seen.available is not None:
        plan.blockers += [
            Blocker(
                f"module {name}",
                f"kernel {seen.release} does not have it",
                f"Install the package of this kernel that has it (Ubuntu: linux-modules-extra-{seen.release}), or boot another kernel",
            )
            for name in wish.load
            if _modprobe.canonical(name) not in seen.available
        ]
    for path, before, after in (
        (_modprobe_wish.OWN_LOAD, seen.own_load, _modprobe_wish.own_load_text(wish.load)),
        (_modprobe.OWN, seen.own, _modprobe_wish.own_text(wish)),
    ):
        if before != after:
            reason = "modules to load at boot" if path == _modprobe_wish.OWN_LOAD else "modules that must not load, and options"
            plan.changes.append(Change(f"file {path}", "write" if after else "remove", before, after, reason))
    if plan.changes and seen.provider in ("ostree", "bootc", "openshift"):
        plan.blockers.append(_by_hand(seen.provider))
    behind = stale(wish, seen)
    if may_build:
        for image in behind:
            target = f"image {image.path}"
            if seen.commands.get(image.path) is None:
                plan.blockers.append(
                    Blocker(target, "this host has neither update-initramfs nor dracut", "Build it yourself, or set initramfs: never")
                )
            plan.changes.append(Change(target, "rebuild", None, None, "it loads modules before the files on disk count"))
        if behind:
            plan.blockers += seen.obstacles
    if may_build and concerns(wish, seen) and seen.release not in [image.release for image in seen.images]:
        plan.warnings.append(f"/boot has no initramfs of kernel {seen.release} under a usual name. If there is one, build it anew yourself")
    plan.changes += [
        Change(f"file {path}", "remove", "the image that was there before", None, "the host has booted with the new image")
        for path in seen.outlived
    ]
    return plan


def _by_hand(provider: str) -> Blocker:
    files = f"{_modprobe.OWN} and {_modprobe_wish.OWN_LOAD}"
    if provider == "openshift":
        return Blocker("file system", "OpenShift writes the files of this host", f"Apply a MachineConfig that writes {files}")
    if provider == "bootc":
        return Blocker(
            "initramfs", "it comes with the image of this host", f"Put {files} into that image, build it, and run: bootc upgrade"
        )
    command = f"rpm-ostree initramfs-etc --track={_modprobe.OWN}"
    return Blocker("initramfs", "rpm-ostree builds the initramfs of this host", f"Write {files} yourself, run: {command}")


def apply(host: Host, commands: Commands, changes: t.Sequence[Change], images: t.Sequence[_initramfs.Image]) -> t.List[Blocker]:
    """Write the files, then build the images. A file that cannot be written ends it; each image is on its own."""
    by_target = {f"image {image.path}": image for image in images}
    failed: t.List[Blocker] = []
    for change in changes:
        try:
            if change.action == "rebuild":
                failed += [found for found in [_initramfs.rebuild(host, commands, by_target[change.target])] if found]
            elif change.action == "remove":
                host.remove(change.target[len("file ") :])
            else:
                host.write_text(change.target[len("file ") :], change.after)
        except HostError as error:
            failed.append(Blocker(change.target, str(error), "Mend that and run again before you reboot"))
            if change.action == "write":
                break
    return failed


def left(wish: _modprobe_wish.Wish, seen: Seen, may_build: bool) -> t.List[Blocker]:
    """What a second look finds still to be done."""
    images = {f"image {image.path}": image for image in stale(wish, seen)}
    arguments = f"modprobe.blacklist={','.join(wish.block)}"
    found = []
    for change in make_plan(wish, seen, may_build).changes:
        problem, remedy = f"{change.action} was done but did not take", "Look for another writer of it"
        image = images.get(change.target)
        if (
            image is not None
            and image.files is not None
            and (_modprobe.OWN not in image.files) == (_modprobe_wish.own_text(wish) is not None)
        ):
            inside = ", ".join(sorted((image.modules or frozenset()) & concerns(wish, seen))) or "none of these modules"
            problem = f"built anew, it still does not agree with {_modprobe.OWN}, and holds {inside}"
            remedy = (
                f"A generic image takes no file of /etc/modprobe.d: set the kernel argument {arguments} (gpufleet_kernel_arguments) too"
            )
        elif image is not None:
            problem, remedy = "its time says that it was not built anew", "Look at the clock of this host and at what builds its images"
        found.append(Blocker(change.target, problem, remedy))
    return found
