# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""GRUB as Fedora's family sets it up: one file per boot entry, changed by ``grubby``.

``grubby`` changes the entries that there are. Kernels to come take their arguments from ``/etc/kernel/cmdline``, from
``GRUB_CMDLINE_LINUX`` and on EL 8 from ``kernelopts`` in GRUB's environment block; those of these that a host has are kept in step.
Sources: grubby(8), grubby's grubby-bls, and the BLS support of Fedora's grub2.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._change import Blocker, Change, Plan
from . import _bls, _boot_provider, _cmdline, _grub, _grub_files
from ._bls import GRUB_ENVIRONMENT as ENVIRONMENT
from ._boot_provider import Entry, ProgramChange
from ._bootloader import CMDLINE, first
from ._bootloader import GRUBBY as PROGRAMS
from ._grub_files import MAIN, NotComputable

EDITENV = ("/usr/bin/grub2-editenv", "/usr/sbin/grub2-editenv")


@dataclasses.dataclass(frozen=True)
class Seen:
    """The entries, the kernel of the next boot, and the files that kernels to come take their arguments from (text by path)."""

    entries: t.Tuple[Entry, ...]
    default: t.Optional[str]  #: name of the entry
    texts: t.Mapping[str, str]  #: /etc/kernel/cmdline, /etc/default/grub and the entries' own files
    kernelopts: t.Optional[str]
    grubby: str
    editenv: str


class Grubby(_boot_provider.BootLoader[Seen]):
    """Changes the entries that fall short, each by its kernel, and the files for kernels to come."""

    kind = "grubby"

    def read(self) -> Seen:
        menu = _bls.grub_menu(self.host)
        grubby = first(self.host, PROGRAMS) or PROGRAMS[0]
        entries, default = [self._entry(menu, fragment) for fragment in menu.fragments], menu.default
        if self.commands.can_run:
            entries = parsed_info(_boot_provider.output_of(self.commands, [grubby, "--info=ALL"]))
            said = _boot_provider.output_of(self.commands, [grubby, "--default-kernel"]).split()
            default = next((entry.name for entry in entries if said and entry.kernel == said[-1]), None)
        texts = {fragment.path: fragment.text for fragment in menu.fragments}
        texts.update({path: text for path in (CMDLINE, MAIN) for text in [self.host.read_text(path)] if text is not None})
        editenv = first(self.host, EDITENV) or EDITENV[0]
        return Seen(tuple(entries), default, texts, menu.environment.get("kernelopts"), grubby, editenv)

    def _entry(self, menu: _bls.Menu, fragment: _bls.Fragment) -> Entry:
        kernel, *initrds = (self._path(path) for path in (fragment.linux, *fragment.initrds) if not path.startswith("$"))
        arguments = tuple(_cmdline.split(menu.options(fragment)))
        return Entry(fragment.name, kernel, arguments, tuple(initrds), _boot_provider.release_of(kernel))

    def _path(self, path: str) -> str:
        # In an entry, paths start at the root of the file system that /boot is on.
        return path if path.startswith("/boot/") else f"/boot{path}"

    def plan(self, seen: Seen, present: t.Sequence[str], absent: t.Sequence[str]) -> Plan:
        return make_plan(seen, present, absent)

    def entries(self, seen: Seen) -> t.List[Entry]:
        return list(seen.entries)

    def default(self, seen: Seen) -> t.Optional[Entry]:
        return next((entry for entry in seen.entries if entry.name == seen.default), None)

    def room(self, seen: Seen) -> t.Tuple[str, int]:
        # Each entry's own file, a few hundred bytes, is written anew.
        return "/boot", _boot_provider.MIB * len(seen.entries)


def parsed_info(text: str) -> t.List[Entry]:
    """What ``grubby --info=ALL`` prints, without the entries that boot no Linux kernel."""
    found = []
    for block in re.split(r"^(?=index=)", text, flags=re.MULTILINE):
        fields = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        values = {name: value[1:-1] if value[:1] == value[-1:] == '"' else value for name, value in fields.items()}
        if "kernel" not in values or "args" not in values:
            continue
        kernel = values["kernel"]
        initrds = tuple(word for word in values.get("initrd", "").split() if not word.startswith("$"))
        name = values.get("id") or values.get("title") or kernel
        found.append(Entry(name, kernel, tuple(_cmdline.split(values["args"])), initrds, _boot_provider.release_of(kernel)))
    return found


def make_plan(seen: Seen, present: t.Sequence[str], absent: t.Sequence[str]) -> Plan:
    plan = Plan()
    if not present and not absent:
        return plan
    if not seen.entries:
        problem = "grubby knows no entry that boots a Linux kernel"
        plan.blockers.append(
            Blocker("boot menu", problem, f"Look at {_bls.GRUB_ENTRIES}; kernel-install add makes an entry for an installed kernel")
        )
        return plan
    _plan_files(plan, seen, present, absent)
    short = [entry for entry in seen.entries if _cmdline.wanting(entry.arguments, present, absent)]
    words = [word for entry in short for word in _undoing(entry.arguments, present, absent)]
    if seen.kernelopts is not None:
        words += _undoing(_cmdline.split(seen.kernelopts), present, absent)
    words += _undoing(_cmdline.split(seen.texts.get(CMDLINE, "")), present, absent)
    known = {blocker.target for blocker in plan.blockers}
    plan.blockers += [blocker for blocker in _boot_provider.stuck(words, seen.texts) if blocker.target not in known]
    if not plan.blockers:
        _plan_kernelopts(plan, seen, present, absent)
        for kernel in dict.fromkeys(entry.kernel for entry in short):
            _plan_kernel(plan, seen, kernel, present, absent)
    if plan.blockers:
        plan.changes.clear()
    return plan


def _undoing(line: t.Sequence[str], present: t.Sequence[str], absent: t.Sequence[str]) -> t.List[str]:
    return _cmdline.undoing([token for token in line if not _cmdline.holds([token], absent)], present)


def _plan_files(plan: Plan, seen: Seen, present: t.Sequence[str], absent: t.Sequence[str]) -> None:
    why = f"kernels to come take their arguments from it; {_boot_provider.reason(present, absent)}"
    text = seen.texts.get(CMDLINE, "")
    # An empty or missing file is left so: one with our words alone would leave the next kernel without its root file system.
    if text.strip() and _cmdline.wanting(_cmdline.split(text), present, absent):
        plan.changes.append(Change(f"file {CMDLINE}", "edit", text, _cmdline.amended(text, present, absent), why))
    if MAIN not in seen.texts:
        return
    try:
        text = _amended_variable(seen.texts[MAIN], present, absent)
        line = _grub_files.line_of({MAIN: text})
    except NotComputable as error:
        if any(_cmdline.wanting(entry.arguments, present, absent) for entry in seen.entries):
            plan.blockers.append(_grub.not_computable(error, "run grub2-mkconfig"))
        else:
            plan.warnings.append(f"All boot entries have what is wanted, but only a shell can work out what a new one gets: {error}")
        return
    plan.blockers += _boot_provider.stuck(_cmdline.undoing(line, present), seen.texts)
    plan.blockers += [
        Blocker(f"argument {token}", "it is not written literally where GRUB's file sets it", f"Remove it yourself from {MAIN}")
        for token in absent
        if _cmdline.holds(line, [token])
    ]
    if text != seen.texts[MAIN]:
        plan.changes.append(Change(f"file {MAIN}", "edit", seen.texts[MAIN], text, why))


def _amended_variable(text: str, present: t.Sequence[str], absent: t.Sequence[str]) -> str:
    line = _grub_files.line_of({MAIN: text})
    spelt = [token for token in line if _cmdline.holds([token], absent)]
    left = _grub_files.removed(text, spelt) if spelt else text
    more = _cmdline.extended([], present, _grub_files.line_of({MAIN: left}))
    if not more:
        return left
    # GRUB_CMDLINE_LINUX_DEFAULT comes later on the line: where it has the last word about a key, ours goes behind it.
    first_of_them, last_of_them = _grub_files.VARIABLES
    longer = _grub_files.appended(left, first_of_them, more)
    if all(_cmdline.satisfied(_grub_files.line_of({MAIN: longer}), token) for token in present):
        return longer
    return _grub_files.appended(left, last_of_them, more)


def _plan_kernelopts(plan: Plan, seen: Seen, present: t.Sequence[str], absent: t.Sequence[str]) -> None:
    if seen.kernelopts is None or not _cmdline.wanting(_cmdline.split(seen.kernelopts), present, absent):
        return
    after = _cmdline.amended(seen.kernelopts, present, absent)
    why = f"kernels to come take their arguments from it; {_boot_provider.reason(present, absent)}"
    command = (seen.editenv, ENVIRONMENT, "set", f"kernelopts={after}")
    plan.changes.append(
        ProgramChange(
            f"kernelopts in {ENVIRONMENT}", "set", _shown(_cmdline.split(seen.kernelopts)), _shown(_cmdline.split(after)), why, command
        )
    )


def _plan_kernel(plan: Plan, seen: Seen, kernel: str, present: t.Sequence[str], absent: t.Sequence[str]) -> None:
    entries = [entry for entry in seen.entries if entry.kernel == kernel]
    remove: t.List[str] = []
    add: t.List[str] = []
    for entry in entries:
        less, more = needed(entry.arguments, present, absent)
        remove += [token for token in less if token not in remove]
        add += [token for token in more if token not in add]
    for entry in entries:
        problem = _harm(entry.arguments, remove, add, present, absent)
        if problem:
            by_hand = f"Set its arguments yourself with grubby --update-kernel={kernel}, or in {_bls.GRUB_ENTRIES}"
            plan.blockers.append(Blocker(f"entry {entry.name}", problem, by_hand))
            return
    command = [seen.grubby, f"--update-kernel={kernel}"]
    command += [f"--remove-args={' '.join(remove)}"] if remove else []
    command += [f"--args={' '.join(add)}"] if add else []
    before, after = entries[0].arguments, outcome(entries[0].arguments, remove, add)
    why = _boot_provider.reason(present, absent)
    plan.changes.append(ProgramChange(f"entry {kernel}", "update", _shown(before), _shown(after), why, tuple(command)))


def _shown(line: t.Iterable[str]) -> str:
    return " ".join(_cmdline.shown(token) for token in line)


def needed(line: t.Sequence[str], present: t.Sequence[str], absent: t.Sequence[str]) -> t.Tuple[t.List[str], t.List[str]]:
    """What ``grubby`` has to remove from a line, and what to give it to add: of a key that may repeat, those that are there too."""
    remove = [token for token in dict.fromkeys(line) if _cmdline.holds([token], absent)]
    kept = [token for token in line if token not in remove]
    more = _cmdline.extended([], present, kept)
    repeated = {_name(token) for token in more if _cmdline.key_of(token) in _cmdline.REPEATABLE}
    return remove, [*(token for token in kept if _name(token) in repeated), *more]


def _name(token: str) -> str:
    return token.partition("=")[0]


def outcome(line: t.Sequence[str], remove: t.Sequence[str], add: t.Sequence[str]) -> t.List[str]:
    """What ``grubby`` makes of a line: a name to remove takes its values along, an argument to add replaces those of its name."""
    names = {_name(token) for token in add} | set(remove)
    return [*(token for token in line if token not in remove and _name(token) not in names), *add]


def _harm(
    line: t.Sequence[str], remove: t.Sequence[str], add: t.Sequence[str], present: t.Sequence[str], absent: t.Sequence[str]
) -> t.Optional[str]:
    """Why ``grubby`` cannot do this without touching something else, or None."""
    split = [token for token in (*remove, *add) if re.search(r'[\s"]', token)]
    if split:
        return f"grubby takes arguments apart at blanks, and {_cmdline.shown(split[0])} has quotes or blanks"
    after = outcome(line, remove, add)
    lost = _cmdline.touched(line, after, present, absent)
    if lost:
        return f"grubby would also take {', '.join(_cmdline.shown(token) for token in lost)} away"
    return "grubby would not bring it to what is wanted" if _cmdline.wanting(after, present, absent) else None
