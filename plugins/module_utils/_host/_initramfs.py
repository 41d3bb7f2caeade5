# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The initramfs of each kernel: what builds it, whether the one on disk is right, and building it anew.

The image holds a copy of modprobe's configuration. A module that it holds too is loaded from there, before the files on the root
file system count: so an image that was built before a module was blocked loads that module all the same.
"""

from __future__ import annotations

import re
import typing as t

from .._change import Blocker
from . import _disk, _modprobe
from ._commands import Commands
from ._sysfs import Host

BUILD_SECONDS = 900
LIST_SECONDS = 120
KEPT = ".gpufleet-kept"
#: Where the image of a release lies: Debian and Ubuntu, EL and Fedora, SUSE.
_PLACES = ("/boot/initrd.img-{release}", "/boot/initramfs-{release}.img", "/boot/initrd-{release}")
#: Commands that build images, and those that list what is in one, in the order in which they are looked for.
_BUILDERS = (
    ("/usr/sbin/update-initramfs", ("-u", "-k", "{release}")),
    ("/usr/bin/dracut", ("--force", "{path}", "{release}")),
    ("/usr/sbin/dracut", ("--force", "{path}", "{release}")),
)
_LISTERS = ("/usr/bin/lsinitramfs", "/usr/bin/lsinitrd", "/usr/sbin/lsinitrd")
#: Beside the kept copy and the new image, /boot should not end up full.
_SPARE = 32 << 20
_GROWTH = 1.25  # a new image may be larger than the old one
_MODULE = re.compile(r"(?:^|/)([^/\s]+?)\.ko(?:\.(?:gz|xz|zst))?$")


class Image(t.NamedTuple):
    """The image of one release. ``modules`` and ``files`` (of modprobe.d) are None where nobody has looked into it."""

    release: str
    path: str
    modified: float
    size: int
    modules: t.Optional[t.FrozenSet[str]]
    files: t.Optional[t.FrozenSet[str]]

    @property
    def kept(self) -> str:
        """Where the image that was there before is kept."""
        return self.path + KEPT


def version_key(release: str) -> t.Tuple[t.Tuple[int, t.Union[int, str]], ...]:
    """Sorts kernel releases by their numbers: 5.15.0-9 stands before 5.15.0-119."""
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in re.findall(r"\d+|[A-Za-z]+", release))


def images(host: Host, commands: Commands, look: bool) -> t.List[Image]:
    """The images of the running kernel and of newer ones. Older kernels are what one falls back to: theirs are left as they are.

    ``look``: list what is in them.
    """
    running = host.quiet("/proc/sys/kernel/osrelease")
    if running is None:
        return []
    found = []
    for release in host.names("/lib/modules"):
        if release != running and version_key(release) <= version_key(running):
            continue
        for place in _PLACES:
            path = place.format(release=release)
            modified, size = _disk.modified(host, path), _disk.size(host, path)
            if modified is not None and size is not None:
                modules, files = _contents(host, commands, path) if look else (None, None)
                found.append(Image(release, path, modified, size, modules, files))
                break
    return sorted(found, key=lambda image: version_key(image.release))


def _contents(host: Host, commands: Commands, path: str) -> t.Tuple[t.Optional[t.FrozenSet[str]], t.Optional[t.FrozenSet[str]]]:
    """The modules and the files of modprobe.d in an image, as far as a program can list them."""
    lister = next((program for program in _LISTERS if host.exists(program)), None)
    if lister is None or not commands.can_run:
        return None, None
    ended = commands.run([lister, path], LIST_SECONDS)
    return (None, None) if ended.code != 0 else listed(ended.output)


def listed(text: str) -> t.Tuple[t.FrozenSet[str], t.FrozenSet[str]]:
    """Modules and files of modprobe.d, from what lsinitramfs (paths) or lsinitrd (lines as of ``ls -l``) prints."""
    paths = [line.split(" -> ")[0].split()[-1] for line in text.splitlines() if line.split(" -> ")[0].split()]
    modules = frozenset(_modprobe.canonical(match.group(1)) for path in paths for match in [_MODULE.search(path)] if match)
    return modules, frozenset("/" + path.lstrip("./") for path in paths if "/modprobe.d/" in f"/{path}")


def build_command(host: Host, image: Image) -> t.Optional[t.List[str]]:
    """The command that builds an image anew, or None where no program for it is there."""
    for program, arguments in _BUILDERS:
        if host.exists(program):
            return [program, *(argument.format(release=image.release, path=image.path) for argument in arguments)]
    return None


def differs(image: Image, concerns: t.FrozenSet[str], own: bool, own_modified: t.Optional[float]) -> bool:
    """Is this image another than the one that the wish needs?

    ``concerns``: modules about which modprobe is told something; ``own``: whether our file should be in it; ``own_modified``: when our
    file was written, None if it is yet to be.
    """
    if not own:
        return image.files is not None and _modprobe.OWN in image.files
    if image.modules is not None and not image.modules & concerns:
        return False  # a module that is not in it cannot be loaded from it
    if own_modified is None or image.modified < own_modified:
        return True
    return image.files is not None and _modprobe.OWN not in image.files


class Kept(t.NamedTuple):
    """An image that was kept: when the one in its place was ``built`` (None: there is none), and whether that is the running kernel's."""

    path: str
    built: t.Optional[float]
    runs: bool


def kept_images(host: Host) -> t.List[Kept]:
    running = host.quiet("/proc/sys/kernel/osrelease")
    own = [place.format(release=running) for place in _PLACES]
    return [
        Kept(path, _disk.modified(host, path[: -len(KEPT)]), path[: -len(KEPT)] in own)
        for path in (f"/boot/{name}" for name in host.names("/boot") if name.endswith(KEPT))
    ]


def booted_at(host: Host) -> t.Optional[float]:
    """When the running kernel was booted, in seconds since 1970."""
    match = re.search(r"^btime (\d+)$", host.quiet("/proc/stat") or "", re.MULTILINE)
    return float(match.group(1)) if match else None


def outlived(kept: t.Iterable[Kept], booted: t.Optional[float]) -> t.List[str]:
    """The kept images that nobody needs any more: the host has booted with the new one, or its kernel is gone."""
    return [image.path for image in kept if image.built is None or (image.runs and booted is not None and booted > image.built)]


def room_problem(host: Host, image: Image) -> t.Optional[Blocker]:
    """A Blocker if there is no room for the new image beside the old one."""
    needed = int(image.size * _GROWTH) + (0 if host.exists(image.kept) else image.size) + _SPARE
    directory = image.path.rpartition("/")[0]
    free = _disk.free(host, directory)
    if free >= needed:
        return None
    problem = f"{free >> 20} MiB are free, and a new image beside the old one takes {needed >> 20} MiB"
    return Blocker(f"image {image.path}", f"in {directory}, {problem}", "Remove old kernels first")


def keep(host: Host, image: Image) -> None:
    """Keep an image. One that is kept already is the last one that has booted, and stays."""
    if not host.exists(image.kept):
        _disk.copy(host, image.path, image.kept)


def rebuild(host: Host, commands: Commands, image: Image) -> t.Optional[Blocker]:
    """Keep the image and build it anew."""
    target = f"image {image.path}"
    command = build_command(host, image)
    if command is None:
        return Blocker(target, "this host has neither update-initramfs nor dracut", "Build the image yourself and run this again")
    keep(host, image)
    problem = commands.run(command, BUILD_SECONDS).problem(command[0], BUILD_SECONDS)
    if problem:
        return Blocker(target, problem, f"Mend that and run again before you reboot; the old image is {image.kept}")
    return None
