# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the providers of boot arguments have in common: one class per boot loader, each with the same few methods.

And what an administrator does where there is no provider.
"""

from __future__ import annotations

import abc
import dataclasses
import re
import typing as t

from .._change import Blocker, Change, Plan
from . import _at_work, _cmdline, _disk
from ._bootloader import CMDLINE
from ._commands import Commands
from ._sysfs import Host, HostError

MIB = 1 << 20
#: Seconds that a program may take: update-grub looks at every disk for other systems, and kernel-install may build an initrd.
SECONDS = 900
#: Systems whose boot arguments somebody else manages: a host's own boot loader is left alone there, whatever an option says.
MANAGED_ELSEWHERE = ("openshift", "ostree", "bootc", "proxmox")
_MACHINE_CONFIG = """apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfig
metadata:
  name: 99-gpufleet-kernel-arguments
  labels:
    machineconfiguration.openshift.io/role: worker
spec:
  kernelArguments:
"""


@dataclasses.dataclass(frozen=True)
class ProgramChange(Change):
    """A change that a program of the host makes: ``command`` is its path and arguments."""

    command: t.Tuple[str, ...] = ()

    def as_dict(self) -> t.Dict[str, t.Any]:
        shown = super().as_dict()
        del shown["command"]
        return shown

    @property
    def line(self) -> str:
        """The command as a person would type it."""
        return " ".join(_quoted(word) for word in (self.command[0].rpartition("/")[2], *self.command[1:]))


def _quoted(word: str) -> str:
    option, equals, value = word.partition("=")
    if option.startswith("--") and (" " in value or "=" in value):
        return f'{option}{equals}"{value}"'
    return f'"{word}"' if " " in word else word


def output_of(commands: Commands, command: t.Sequence[str]) -> str:
    """What a program that only asks prints. Raises HostError if it fails."""
    ended = commands.run(command, SECONDS)
    problem = ended.problem(" ".join(command), SECONDS)
    if problem:
        raise HostError(command[0], problem)
    return ended.output


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the boot menu that boots this system: ``kernel`` and ``initrds`` as the host's paths, ``release`` if it can be told."""

    name: str
    kernel: str
    arguments: t.Tuple[str, ...]
    initrds: t.Tuple[str, ...] = ()
    release: t.Optional[str] = None


Seen = t.TypeVar("Seen")


class BootLoader(abc.ABC, t.Generic[Seen]):
    """How boot arguments are set with one boot loader. ``Seen`` is what one look at its files gives."""

    kind: str
    #: Do its programs leave all arguments alone that nobody asked about? A generator also brings what others wrote into its files.
    keeps_others = True

    def __init__(self, host: Host, commands: Commands) -> None:
        self.host = host
        self.commands = commands

    @abc.abstractmethod
    def read(self) -> Seen:
        """Look at all that decides about the boot arguments. Raises HostError."""

    @abc.abstractmethod
    def plan(self, seen: Seen, present: t.Sequence[str], absent: t.Sequence[str]) -> Plan:
        """What to write, and which programs (:class:`ProgramChange`) to run then. Pure. Nothing asked for is nothing to do."""

    @abc.abstractmethod
    def entries(self, seen: Seen) -> t.List[Entry]:
        """The entries of the boot menu that boot this system, in the menu's order."""

    @abc.abstractmethod
    def default(self, seen: Seen) -> t.Optional[Entry]:
        """The entry of the next boot, or None where it cannot be told."""

    def configured(self, seen: Seen) -> t.Optional[t.List[str]]:
        """The arguments that the next boot will have as far as it can be told."""
        entry = self.default(seen)
        return None if entry is None else list(entry.arguments)

    @abc.abstractmethod
    def room(self, seen: Seen) -> t.Tuple[str, int]:
        """The directory whose file system the programs write to, and how many bytes they need there."""

    def places(self, path: str) -> t.Tuple[str, ...]:
        """Where a file that an entry names may be."""
        return (path,)


def obstacles(host: Host, changes: t.Iterable[ProgramChange], directory: str, room: int) -> t.List[Blocker]:
    """What stands in the way of programs that write boot files below ``directory`` and need ``room`` bytes for them."""
    paths = dict.fromkeys(change.command[0] for change in changes)
    remedy = "Leave provider at auto, or install what it belongs to"
    found = [Blocker(f"file {path}", "it is not there, and it makes the boot entries", remedy) for path in paths if not host.exists(path)]
    try:
        if _disk.is_read_only(host, directory):
            found.append(Blocker(directory, "its file system is mounted read-only", f"Find out why, then: mount -o remount,rw {directory}"))
        elif _disk.free(host, directory) < room:
            problem = f"{_disk.free(host, directory) // MIB} MiB are free, and what is to be made needs {-(-room // MIB)} MiB"
            found.append(Blocker(directory, problem, "Remove old kernels first"))
    except HostError as error:
        found.append(Blocker(directory, f"what is free there cannot be told: {error.reason}", "Mount it"))
    return found + _at_work.at_work(host)


def not_text(changes: t.Iterable[Change]) -> t.List[Blocker]:
    """A Blocker for each file to edit that is no UTF-8: what else stands in it could not be kept."""
    remedy = "Convert it (iconv -f latin1 -t utf-8), or write the arguments there yourself"
    edits = [change for change in changes if not isinstance(change, ProgramChange) and "\ufffd" in (change.before or "")]
    return [Blocker(change.target, "it holds bytes that are no UTF-8", remedy) for change in edits]


def missing_files(loader: BootLoader[t.Any], seen: t.Any) -> t.List[Blocker]:
    """What of the entry of the next boot is not on disk; where that entry cannot be told, of the first one."""
    found = loader.entries(seen)
    entry = loader.default(seen) or (found[0] if found else None)
    if entry is None:
        return [Blocker("boot menu", "it has no entry that boots a kernel", "Do not reboot before it has one")]
    return [
        Blocker(f"file {path}", f"the boot entry {entry.name} names it, and it is not there", "Reinstall that kernel before you reboot")
        for path in (entry.kernel, *entry.initrds)
        if not any(loader.host.exists(place) for place in loader.places(path))
    ]


def judge_kernel(plan: Plan, host: Host, entry: t.Optional[Entry], running: t.Optional[str]) -> None:
    """Add what is to be said of another kernel than the running one in the entry of the next boot.

    Without its headers, what is built on this host is missing after the boot. That is a warning, because most GPU nodes build nothing
    themselves, and a Blocker where DKMS builds the NVIDIA driver and has not built it for that kernel.
    """
    if entry is None or entry.release is None or running is None or entry.release == running:
        return
    if host.exists(f"/lib/modules/{entry.release}/build/Makefile"):
        return
    finding = f"the next boot runs kernel {entry.release} instead of {running}, and its headers are not installed"
    if _dkms_lacks(host, entry.release):
        problem = f"{finding}, while DKMS builds the NVIDIA driver of this host and has none for it"
        remedy = "Install its headers, or make the running kernel the default again"
        plan.blockers.append(Blocker(f"kernel {entry.release}", problem, remedy))
    else:
        plan.warnings.append(f"{finding}: a driver that is built on this host will be missing. Install them before you reboot.")


def _dkms_lacks(host: Host, release: str) -> bool:
    """Is an NVIDIA driver of this host built by DKMS, and not yet for this release? (dkms(8): /var/lib/dkms/MODULE/VERSION/RELEASE)"""
    modules = [name for name in host.names("/var/lib/dkms") if name.startswith("nvidia")]
    versions = [f"/var/lib/dkms/{name}/{version}" for name in modules for version in host.names(f"/var/lib/dkms/{name}")]
    return bool(modules) and not any(host.exists(f"{version}/{release}") for version in versions)


def damage(loader: BootLoader[t.Any], before: t.Any, after: t.Any, present: t.Sequence[str], absent: t.Sequence[str]) -> t.List[Blocker]:
    """What a program did that nobody asked for, by entry: to other arguments, or to the initrd, without which few hosts find their disks."""
    old = {entry.name: entry for entry in loader.entries(before)}
    found = []
    for entry in loader.entries(after):
        if entry.name not in old:
            continue
        touched = _cmdline.touched(old[entry.name].arguments, entry.arguments, present, absent) if loader.keeps_others else []
        if touched:
            names = ", ".join(_cmdline.shown(token) for token in touched)
            remedy = "Bring its arguments back to what they were before you reboot"
            found.append(Blocker(f"entry {entry.name}", f"arguments that nobody asked about were changed: {names}", remedy))
        if old[entry.name].initrds and not entry.initrds:
            remedy = "Make the initrd of that kernel, run that program again, and do not reboot before"
            found.append(Blocker(f"entry {entry.name}", "it had an initrd before and has none now", remedy))
    return found


def stuck(words: t.Iterable[str], texts: t.Mapping[str, str]) -> t.List[Blocker]:
    """A Blocker for each word that nothing takes back, with the places in these files where it stands."""
    return [_stuck(word, texts) for word in dict.fromkeys(words)]


def _stuck(word: str, texts: t.Mapping[str, str]) -> Blocker:
    places = [
        f"{path} line {number}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if not line.lstrip().startswith("#") and re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w,])", line)
    ]
    where = ", ".join(places) or "the boot loader's configuration"
    problem = f"{word} stands in {where}, and nothing that is appended takes it back"
    return Blocker(f"argument {word}", problem, "Remove it there, or name it in gpufleet_kernel_arguments_absent (option absent)")


def release_of(kernel: str) -> t.Optional[str]:
    """The release in the name of a kernel's file (``vmlinuz-6.1.0-18-amd64``)."""
    match = re.search(r"(?:vmlinu[xz]|linux|Image)-(.+)$", kernel.rpartition("/")[2])
    return match.group(1) if match else None


def reason(present: t.Sequence[str], absent: t.Sequence[str]) -> str:
    """Why something changes, as one phrase."""
    parts = [f"must be there: {' '.join(present)}"] if present else []
    parts += [f"must not be there: {' '.join(absent)}"] if absent else []
    return "; ".join(parts)


def by_hand(kind: str, present: t.Sequence[str], absent: t.Sequence[str]) -> str:
    """What an administrator does on a boot loader that is not written here."""
    if kind == "openshift":
        gone = f" Take {' '.join(absent)} out of the MachineConfig that sets it." if absent else ""
        items = "".join(f"    - {_yaml(token)}\n" for token in present)
        return f"{f'Apply this MachineConfig:{chr(10)}{_MACHINE_CONFIG}{items}' if present else ''}{gone}".strip()
    if kind == "ostree":
        words = [*(f"--append-if-missing={token}" for token in present), *(f"--delete-if-present={token}" for token in absent)]
        return f"Run: rpm-ostree kargs {' '.join(_shell(word) for word in words)}"
    if kind == "bootc":
        gone = f", and take {' '.join(absent)} out of the file there that sets it" if absent else ""
        kargs = ", ".join(_yaml(token) for token in present)
        return f"Put kargs = [{kargs}] into /usr/lib/bootc/kargs.d/60-gpufleet.toml of the host's image{gone}, build it, and run: bootc upgrade"
    less = f" and without {' '.join(absent)}" if absent else ""
    if kind == "proxmox":
        return f"Edit {CMDLINE} so that it is with {' '.join(present) or 'nothing more'}{less}, and run: proxmox-boot-tool refresh"
    return f"Boot with {' '.join(present) or 'nothing more'}{less}, however this host is booted"


def _yaml(token: str) -> str:
    escaped = token.replace('"', '\\"')
    return f'"{escaped}"'


def _shell(word: str) -> str:
    return f"'{word}'" if '"' in word or " " in word else word
