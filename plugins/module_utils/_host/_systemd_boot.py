# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd-boot: ``/etc/kernel/cmdline`` says the arguments, ``kernel-install`` makes the entries from it.

Sources: kernel-install(8), systemd-boot(7), loader.conf(5), and systemd's 90-loaderentry.install.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._change import Blocker, Change, Plan
from . import _bls, _boot_provider, _cmdline, _disk
from ._boot_provider import Entry, ProgramChange
from ._bootloader import CMDLINE, first

VENDOR_CMDLINE = "/usr/lib/kernel/cmdline"
PROGRAMS = ("/usr/bin/kernel-install", "/bin/kernel-install", "/usr/sbin/kernel-install")
#: Where a distribution puts a kernel's image, for a release.
IMAGES = ("/lib/modules/{}/vmlinuz", "/usr/lib/modules/{}/vmlinuz", "/boot/vmlinuz-{}", "/lib/modules/{}/vmlinux", "/boot/vmlinux-{}")
#: What kernel-install or the boot loader puts on the line by itself.
_ADDED = frozenset(("systemd.machine_id", "initrd"))


@dataclasses.dataclass(frozen=True)
class Seen:
    """The entries in the menu's order, the one of the next boot, and what new ones are made from."""

    root: t.Optional[str]  #: of the partition with the entries
    fragments: t.Tuple[_bls.Fragment, ...]
    default: t.Optional[str]  #: name of the entry
    unified: t.Tuple[str, ...]  #: unified kernel images, which have their arguments inside
    cmdline: t.Optional[str]
    vendor: t.Optional[str]
    images: t.Mapping[str, str]  #: a kernel's image by its release
    sizes: t.Tuple[int, ...]  #: what the files of each entry take, in bytes
    program: str


class SystemdBoot(_boot_provider.BootLoader[Seen]):
    """Edits /etc/kernel/cmdline and has kernel-install write the entries that fall short anew."""

    kind = "systemd_boot"

    def read(self) -> Seen:
        host, menu = self.host, _bls.systemd_menu(self.host)
        releases = [fragment.version for fragment in menu.fragments if fragment.version]
        images = {release: first(host, (path.format(release) for path in IMAGES)) for release in releases}
        files = [[f"{menu.root}{path}" for path in (fragment.linux, *fragment.initrds)] for fragment in menu.fragments]
        return Seen(
            root=menu.root,
            fragments=menu.fragments,
            default=menu.default,
            unified=tuple(name for name in host.names(f"{menu.root}/EFI/Linux") if name.endswith(".efi")),
            cmdline=host.read_text(CMDLINE),
            vendor=host.read_text(VENDOR_CMDLINE),
            images={release: image for release, image in images.items() if image},
            sizes=tuple(sum(_disk.size(host, path) or 0 for path in paths) for paths in files),
            program=first(host, PROGRAMS) or PROGRAMS[0],
        )

    def plan(self, seen: Seen, present: t.Sequence[str], absent: t.Sequence[str]) -> Plan:
        return make_plan(seen, present, absent)

    def entries(self, seen: Seen) -> t.List[Entry]:
        return [_entry(seen, fragment) for fragment in seen.fragments]

    def default(self, seen: Seen) -> t.Optional[Entry]:
        return next((_entry(seen, fragment) for fragment in seen.fragments if fragment.name == seen.default), None)

    def room(self, seen: Seen) -> t.Tuple[str, int]:
        # A new kernel and its initrd may be written before the old ones are gone.
        return seen.root or "/boot", 4 * _boot_provider.MIB + max(seen.sizes, default=0)


def _entry(seen: Seen, fragment: _bls.Fragment) -> Entry:
    release = fragment.version or _boot_provider.release_of(fragment.linux)
    kernel, *initrds = (f"{seen.root}{path}" for path in (fragment.linux, *fragment.initrds))
    return Entry(fragment.name, kernel, tuple(_cmdline.split(fragment.options)), tuple(initrds), release)


def make_plan(seen: Seen, present: t.Sequence[str], absent: t.Sequence[str]) -> Plan:
    plan = Plan()
    if not present and not absent:
        return plan
    if not seen.fragments:
        plan.blockers.append(_without_entries(seen))
        return plan
    short = [fragment for fragment in seen.fragments if _cmdline.wanting(_cmdline.split(fragment.options), present, absent)]
    text, where = _source(seen)
    kept = [token for token in _cmdline.split(text) if not _cmdline.holds([token], absent)]
    plan.blockers += _boot_provider.stuck(_cmdline.undoing(kept, present), {where: text})
    after = _cmdline.amended(text, present, absent)
    why = f"entries are made from it; {_boot_provider.reason(present, absent)}"
    # Without this file a new entry gets the running kernel's arguments: it is made when one is to be made.
    if after != text or (seen.cmdline is None and short):
        if seen.cmdline is None:
            after = " ".join(_cmdline.split(after)) + "\n"
        plan.changes.append(Change(f"file {CMDLINE}", "edit" if seen.cmdline is not None else "write", seen.cmdline, after, why))
    for fragment in short:
        _plan_entry(plan, seen, fragment, after, _boot_provider.reason(present, absent), (present, absent))
    if plan.blockers:
        plan.changes.clear()
    return plan


def _without_entries(seen: Seen) -> Blocker:
    if seen.unified:
        problem = f"it boots unified kernel images ({', '.join(seen.unified)}), which have their arguments inside"
        return Blocker(f"directory {seen.root}/EFI/Linux", problem, f"Set them in {CMDLINE}, make the images anew and run this again")
    problem = f"there is no entry below {', '.join(f'{root}/loader/entries' for root in _bls.ROOTS)}"
    return Blocker("boot menu", problem, "Mount the EFI system partition (or the extended boot partition) and run this again")


def _source(seen: Seen) -> t.Tuple[str, str]:
    """What new entries are to be made from, and where that stands; without a file, the arguments of the next boot's entry."""
    if seen.cmdline is not None and seen.cmdline.strip():
        return seen.cmdline, CMDLINE
    if seen.cmdline is None and seen.vendor is not None:
        return seen.vendor, VENDOR_CMDLINE
    fragment = next((fragment for fragment in seen.fragments if fragment.name == seen.default), seen.fragments[0])
    return " ".join(_own(fragment)), fragment.path


def _own(fragment: _bls.Fragment) -> t.List[str]:
    return [token for token in _cmdline.split(fragment.options) if token.partition("=")[0] not in _ADDED]


def _plan_entry(
    plan: Plan, seen: Seen, fragment: _bls.Fragment, source: str, why: str, asked: t.Tuple[t.Sequence[str], t.Sequence[str]]
) -> None:
    """Add to a plan what makes an entry anew, or why that cannot be."""
    target = f"entry {fragment.name}"
    image = seen.images.get(fragment.version or "")
    line = _cmdline.split(source)
    added = [
        token for token in _cmdline.split(fragment.options) if token.partition("=")[0] in _ADDED - {_cmdline.key_of(own) for own in line}
    ]
    changed = _cmdline.touched(_own(fragment), [token for token in line if token.partition("=")[0] not in _ADDED], *asked)
    if fragment.version is None or not fragment.name.endswith(f"-{fragment.version}"):
        problem, remedy = f"{fragment.path} was not made by kernel-install", "Change its options line yourself and run this again"
    elif image is None:
        problem, remedy = (
            f"release {fragment.version} has no kernel image on this host",
            f"Remove that entry ({fragment.path}) or install the kernel",
        )
    elif changed:
        names = ", ".join(_cmdline.shown(token) for token in changed)
        problem = f"{fragment.path} and {CMDLINE} differ in more than what is asked for: {names}"
        remedy = f"Bring {CMDLINE} to what the entry has, or run kernel-install add {fragment.version} {image} yourself, and run this again"
    else:
        before, after = (
            " ".join(_cmdline.shown(token) for token in tokens) for tokens in (_cmdline.split(fragment.options), [*line, *added])
        )
        plan.changes.append(ProgramChange(target, "install", before, after, why, (seen.program, "add", fragment.version, image)))
        return
    if fragment.name == seen.default or seen.default is None:
        plan.blockers.append(Blocker(target, problem, remedy))
    else:
        plan.warnings.append(f"{target} stays without what is asked for: {problem}. {remedy}")
