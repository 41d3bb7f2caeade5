# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes a host's virtual functions and vGPUs again at each boot: one list of entries, one unit, and a copy of our code per module.

The unit is ordered before the kubelet and holds it: a kubelet that starts first admits pods for devices that are not there yet
(kubernetes/kubernetes#125579). The kubelet starts once the devices are there, or the unit has given up and says what is missing.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import json
import sys
import typing as t

from .._change import Blocker, Change, Plan
from . import _boot_loop
from ._boot_loop import KINDS, WAIT
from ._commands import Commands
from ._sysfs import Host, HostError

UNIT = "gpufleet-devices.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
ENTRIES = _boot_loop.ENTRIES
CODE = "/usr/local/lib/gpufleet"
PROGRAM = f"{CODE}/boot.py"
VERSION = 1

#: What starts pods, by distribution; the unit is ordered before each and wanted by each.
_KUBELETS = ("kubelet.service", "k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service")
_WANTED_BY = ("multi-user.target", *_KUBELETS)
_SYSTEMD = ("/etc/systemd", "/usr/lib/systemd", "/lib/systemd")
_BASE = "ansible_collections.gpufleet.kubevirt.plugins.module_utils"
_RELOAD = ("systemctl", "daemon-reload")
_RELOADS = 30  # seconds

Entry = t.Dict[str, t.Any]
Entries = t.Dict[str, t.Dict[str, Entry]]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What of it is on the host: the entries by kind and address, a digest of one kind's code, the unit, and which links enable it."""

    entries: Entries
    code: t.Optional[str]
    unit: t.Optional[str]
    links: t.FrozenSet[str]
    systemd: bool
    broken: t.Optional[str] = None


def links() -> t.List[str]:
    """The links that ``systemctl enable`` makes for the unit's ``WantedBy``."""
    return [f"/etc/systemd/system/{name}.wants/{UNIT}" for name in _WANTED_BY]


def unit_text(python: str) -> str:
    before = " ".join(_KUBELETS)
    return (
        "# Written by gpufleet.kubevirt. Changes are overwritten.\n"
        "[Unit]\n"
        "Description=Make the virtual functions and vGPUs of this host\n"
        f"ConditionPathExists={ENTRIES}\n"
        "After=local-fs.target systemd-modules-load.service nvidia-vgpud.service nvidia-vgpu-mgr.service\n"
        f"Before={before}\n\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        f"ExecStart={python} -B {PROGRAM}\n"
        f"TimeoutStartSec={WAIT + 120}\n\n"
        "[Install]\n"
        f"WantedBy={' '.join(_WANTED_BY)}\n"
    )


def python_for(host: Host) -> str:
    """The interpreter that the unit starts: the one that runs us, if this is the host itself."""
    return sys.executable if host.is_real and sys.executable.startswith("/usr/") else "/usr/bin/python3"


def code_of(kind: str) -> str:
    """The directory of the code of one module."""
    return f"{CODE}/{kind}"


def code_files(kind: str, program: str) -> t.Dict[str, str]:
    """The copy of our code: path on the host -> text. It is ``program`` (a module's name, imported) and all of ours that it imports.

    The texts come from the loader, which on a target is a zip archive.
    """
    found: t.Dict[str, str] = {}
    todo = [program]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = _source(name)
        for node in ast.parse(found[name]).body:  # ours import at the top of a file only
            if isinstance(node, ast.ImportFrom):
                todo += _imported(node, name.rpartition(".")[0])
    directory = code_of(kind)
    files = {f"{directory}/{name.replace('.', '/')}.py": text for name, text in found.items()}
    for path in list(files):
        # Packages of their own, so that collections which the host has installed do not get in between.
        parts = path[len(directory) + 1 :].split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            files["/".join([directory, *parts[:depth], "__init__.py"])] = ""
    files[f"{directory}/{_boot_loop.ATTEMPT}"] = f"import sys\n\nfrom {program} import main\n\nsys.exit(main(sys.argv[1:]))\n"
    files[PROGRAM] = _source(_boot_loop.__name__)
    return files


def _imported(node: ast.ImportFrom, package: str) -> t.List[str]:
    """The modules of ours that a statement imports from, none if it means others."""
    source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    inner = [f"{source}.{alias.name}" for alias in node.names]
    return [module if module in sys.modules else source for module in inner] if source.startswith(_BASE) else []


def _source(name: str) -> str:
    spec: t.Optional[importlib.machinery.ModuleSpec] = sys.modules[name].__spec__
    text = spec.loader.get_source(name) if spec is not None and spec.loader is not None else None  # type: ignore[attr-defined]
    if text is None:
        raise HostError(name, "its source is not where it was loaded from")
    return str(text)


def digest(files: t.Mapping[str, t.Optional[str]]) -> str:
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path}\0{files[path]}\0".encode())
    return total.hexdigest()[:16]


def read_entries(host: Host) -> Entries:
    """The entries by kind and address. Raises HostError if the file is none of ours."""
    text = host.read_text(ENTRIES)
    if text is None:
        return {kind: {} for kind in KINDS}
    try:
        kept = json.loads(text)
        if kept["version"] != VERSION:
            raise HostError(ENTRIES, f"is of version {kept['version']}, and this is version {VERSION}")
        return {kind: {str(address): dict(entry) for address, entry in kept[kind].items()} for kind in KINDS}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(ENTRIES, f"cannot be understood ({type(error).__name__})") from error


def plan(seen: Seen, kind: str, updates: t.Mapping[str, t.Optional[Entry]], code: str, unit: str) -> Plan:
    """What to write so that these entries (None: none) hold at the next boot. Pure."""
    entries = {**seen.entries[kind], **{address: entry for address, entry in updates.items() if entry is not None}}
    for address, entry in updates.items():
        if entry is None:
            entries.pop(address, None)
    own = bool(entries)
    needed = own or any(seen.entries[other] for other in KINDS if other != kind)
    is_there = seen.code is not None or seen.unit is not None or bool(seen.links)
    if not needed and not is_there and not any(seen.entries.values()):
        return Plan()
    if seen.broken:
        return Plan(blockers=[Blocker(f"file {ENTRIES}", seen.broken, "Mend or remove it")])
    if needed and any(entry is not None for entry in updates.values()) and not seen.systemd:
        problem = "it has no systemd, and persist: boot is a unit of it"
        return Plan(blockers=[Blocker("host", problem, "Use persist: none, and make the devices at boot by other means")])
    changes = [
        Change(
            entry_target(kind, address), "write" if entry is not None else "remove", seen.entries[kind].get(address), entry, "persist: boot"
        )
        for address, entry in sorted(updates.items())
        if entry != seen.entries[kind].get(address)
    ]
    if not changes and not any(entry is not None for entry in updates.values()) and needed and (own or seen.code is None):
        return Plan()  # what others have persisted is not brought up to date in passing
    changes += _files(seen, kind, code if own else None, unit if needed else None)
    return Plan(changes=changes)


def _files(seen: Seen, kind: str, code: t.Optional[str], unit: t.Optional[str]) -> t.Iterator[Change]:
    # A boot in between must find the code before the unit, and no unit without code.
    steps = [(f"directory {code_of(kind)}", seen.code, code), (f"file {UNIT_FILE}", seen.unit, unit)]
    wanted = frozenset(links()) if unit else frozenset()
    links_before, links_after = sorted(seen.links), sorted(wanted)
    steps.append((f"links of {UNIT}", "\n".join(links_before) or None, "\n".join(links_after) or None))
    for target, before, after in steps if unit else reversed(steps):
        if before != after:
            reason = "the devices are made at boot" if after is not None else "no such devices are made at boot any more"
            yield Change(target, "write" if after is not None else "remove", before, after, reason)


def entry_target(kind: str, address: str) -> str:
    return f"boot entry {kind} {address}"


class Persistence:
    """Reads and writes it. ``program`` is the name of the module that makes the devices of this ``kind`` at boot."""

    def __init__(self, host: Host, commands: Commands, kind: str, program: str) -> None:
        self._host = host
        self._commands = commands
        self._kind = kind
        self._code = code_files(kind, program)
        self.code = digest(self._code)
        self.unit = unit_text(python_for(host))

    def observe(self) -> Seen:
        broken = None
        entries: Entries = {kind: {} for kind in KINDS}
        try:
            entries = read_entries(self._host)
        except HostError as error:
            broken = str(error)
        present = {path: self._host.read_text(path) for path in self._paths()}
        there = {path: text for path, text in present.items() if text is not None}
        if set(there) == {PROGRAM} and any(entries[kind] for kind in KINDS if kind != self._kind):
            there = {}  # it serves the others
        return Seen(
            entries=entries,
            code=digest(there) if there else None,
            unit=self._host.read_text(UNIT_FILE),
            links=frozenset(path for path in links() if self._host.link(path) is not None),
            systemd=any(self._host.exists(path) for path in _SYSTEMD),
            broken=broken,
        )

    def _paths(self) -> t.List[str]:
        """Our files on the host: those of this version, and what an older one has left beside them."""
        beside = [
            f"{directory}/{name}" for directory in self._directories() for name in self._host.names(directory) if name.endswith(".py")
        ]
        return sorted({*self._code, *beside})

    def _directories(self) -> t.List[str]:
        return sorted({path.rpartition("/")[0] for path in self._code if path != PROGRAM}, key=len, reverse=True)

    def apply(self, changes: t.Sequence[Change], failed: t.Container[str]) -> t.List[Blocker]:
        """Write them. An entry of a device that could not be made (``failed``, by address) is not written."""
        blockers = []
        entries = [change for change in changes if change.target.startswith("boot entry ")]
        try:
            kept = read_entries(self._host)
            for change in entries:
                address = change.target.rpartition(" ")[2]
                if address in failed:
                    blockers.append(Blocker(change.target, "not written, because its devices could not be made", "Mend that and run again"))
                elif change.after is None:
                    kept[self._kind].pop(address, None)
                else:
                    kept[self._kind][address] = change.after
            if len(blockers) < len(entries):
                self._write_entries(kept)
            for change in changes:
                if change not in entries:
                    self._file(change, shared=any(kept.values()))
        except HostError as error:
            return [*blockers, Blocker(f"file {error.path}", error.reason, "Mend that and run again")]
        return blockers + self._reload(changes)

    def _write_entries(self, kept: Entries) -> None:
        if any(kept.values()):
            self._host.write_text(ENTRIES, json.dumps({"version": VERSION, **kept}, indent=1, sort_keys=True) + "\n", 0o600)
        else:
            self._host.remove(ENTRIES)
            self._host.remove_directory(ENTRIES.rpartition("/")[0])

    def _file(self, change: Change, shared: bool) -> None:
        """``shared``: there are entries, of another kind if this one has none, so that the program that runs them all stays."""
        if change.target.startswith("directory "):
            for path in self._paths():
                if path == PROGRAM and change.after is None and shared:
                    continue
                if change.after is None or path not in self._code:
                    self._host.remove(path)
                elif self._host.read_text(path) != self._code[path]:
                    self._host.write_text(path, self._code[path], 0o644)
            for directory in (*self._directories(), CODE) if change.after is None else ():
                self._host.remove_directory(directory)
        elif change.target.startswith("links "):
            for path in links():
                if change.after is None:
                    self._host.remove(path)
                    self._host.remove_directory(path.rpartition("/")[0])
                elif self._host.link(path) is None:
                    self._host.make_link(path, UNIT_FILE)
        elif change.after is None:
            self._host.remove(UNIT_FILE)
        else:
            self._host.write_text(UNIT_FILE, change.after, 0o644)

    def _reload(self, changes: t.Sequence[Change]) -> t.List[Blocker]:
        if not self._commands.can_run or not needs_reload(changes):
            return []
        problem = self._commands.run(_RELOAD, _RELOADS).problem(" ".join(_RELOAD), _RELOADS)
        return [Blocker(f"file {UNIT_FILE}", problem, "Run it by hand")] if problem else []


def needs_reload(changes: t.Sequence[Change]) -> bool:
    """Must systemd read its units anew after these changes?"""
    return any(change.target in (f"file {UNIT_FILE}", f"links of {UNIT}") for change in changes)


def pending(changes: t.Sequence[Change], allowed: bool) -> t.List[str]:
    """The commands that are left to be run by hand, in a tree."""
    return [] if allowed or not needs_reload(changes) else [" ".join(_RELOAD)]
