# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""GRUB as Debian and Ubuntu set it up: ``/etc/default/grub``, then ``/etc/default/grub.d/*.cfg``, then ``update-grub``."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._change import Blocker, Change, Plan
from . import _boot_provider, _cmdline, _grub_files
from ._boot_provider import Entry, ProgramChange
from ._grub_files import (
    DIRECTORY,
    GENERATOR,
    MAIN,
    NotComputable,
    evaluate,
    line_of,
    removed,
)

DROP_IN = f"{DIRECTORY}/60-gpufleet.cfg"
GENERATED = "/boot/grub/grub.cfg"
OURS = _grub_files.VARIABLES[1]
_HEADER = "# Written by the Ansible collection gpufleet.kubevirt. Arguments that others need belong into another file.\n"
_OWN_ENTRIES = re.compile(r"^### BEGIN \S*/10_linux\S* ###$(.*?)^### END \S*/10_linux\S* ###$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Files:
    """GRUB's files, read once: text by path, in the order in which they are read."""

    texts: t.Mapping[str, str]
    generated: t.Optional[str]

    @property
    def drop_in(self) -> t.Optional[str]:
        return self.texts.get(DROP_IN)


class Grub(_boot_provider.BootLoader[Files]):
    """Writes a drop-in of our own; words of ``absent`` are taken out where they stand."""

    kind = "grub"
    keeps_others = False

    def read(self) -> Files:
        return Files(_grub_files.read(self.host), self.host.read_text(GENERATED))

    def plan(self, seen: Files, present: t.Sequence[str], absent: t.Sequence[str]) -> Plan:
        return make_plan(seen, present, absent)

    def entries(self, seen: Files) -> t.List[Entry]:
        return entries(seen.generated)

    def default(self, seen: Files) -> t.Optional[Entry]:
        found = entries(seen.generated)
        # What else GRUB_DEFAULT may say (saved, a title, a submenu's path) is only known to GRUB.
        return found[0] if found and _grub_files.chosen(seen.texts, "GRUB_DEFAULT") in (None, "0") else None

    def configured(self, seen: Files) -> t.Optional[t.List[str]]:
        try:
            return line_of(seen.texts)
        except NotComputable:
            return None

    def room(self, seen: Files) -> t.Tuple[str, int]:
        # The new file is written beside the old one.
        return "/boot", 4 * _boot_provider.MIB + len(seen.generated or "")

    def places(self, path: str) -> t.Tuple[str, ...]:
        # GRUB's paths start at a file system's root, which may be /boot or a subvolume's parent.
        return (path, f"/boot{path}", f"/boot/{path.rpartition('/')[2]}")


def own_arguments(text: t.Optional[str]) -> t.List[str]:
    """The arguments in our drop-in."""
    return [] if text is None else _cmdline.split(evaluate({DROP_IN: text})[OURS])


def drop_in(arguments: t.Sequence[str]) -> str:
    """The text of our drop-in."""
    quoted = " ".join(arguments).replace('"', '\\"')
    return f'{_HEADER}{OURS}="${OURS} {quoted}"\n'


def entries(generated: t.Optional[str]) -> t.List[Entry]:
    """The entries of the generated file that boot this system and are no recovery entries, in their order."""
    parts = _OWN_ENTRIES.findall(generated or "")
    text = "".join(parts) if parts else generated or ""  # memory tests and other systems have parts of their own
    found = []
    for match in re.finditer(r"^\s*linux(?:efi|16)?\s+(\S+)(.*)$(?:\n(?!\s*linux|\s*\})[^\n]*)*", text, re.MULTILINE):
        arguments = tuple(_cmdline.split(match.group(2)))
        if {"single", "recovery"} & set(arguments):
            continue
        initrd = re.search(r"^\s*initrd(?:efi|16)?\s+(.+)$", match.group(), re.MULTILINE)
        kernel = match.group(1)
        found.append(Entry(kernel, kernel, arguments, tuple(initrd.group(1).split() if initrd else ()), _boot_provider.release_of(kernel)))
    return found


def make_plan(files: Files, present: t.Sequence[str], absent: t.Sequence[str]) -> Plan:
    """What to write, and the generator wherever its output is behind."""
    plan = Plan()
    if not present and not absent:
        return plan
    try:
        unwanted = [token for token in line_of(files.texts) if _cmdline.holds([token], absent)]
        own = own_arguments(files.drop_in)
        texts = {path: text if path == DROP_IN else removed(text, unwanted) for path, text in files.texts.items()}
        others = {path: text for path, text in texts.items() if path != DROP_IN}
        line = line_of(others)
        plan.blockers += _boot_provider.stuck(_cmdline.undoing(line, present), others)
        if plan.blockers:
            return plan
        mine = _cmdline.extended([token for token in own if token not in unwanted], present, line)
        if mine != own:
            texts[DROP_IN] = drop_in(mine) if mine else ""
        after = line_of(dict(sorted(texts.items(), key=lambda item: (item[0] != MAIN, item[0]))))
    except NotComputable as error:
        if generated_has(files, present, absent):
            plan.warnings.append(f"{GENERATED} has what is wanted, but only a shell can work out whether it stays so: {error}")
            return plan
        plan.blockers.append(not_computable(error, "run update-grub"))
        return plan
    plan.blockers += _unmet(after, present, absent)
    if plan.blockers:
        return plan
    for path in sorted({*texts, *files.texts}):
        before = files.texts.get(path)
        if texts.get(path) != before:
            action = "edit" if path != DROP_IN else "write" if texts[path] else "remove"
            plan.changes.append(Change(f"file {path}", action, before, texts[path] or None, _why(path, present, absent)))
    if plan.changes or not generated_has(files, present, absent):
        why = "it is made from the files above"
        plan.changes.append(ProgramChange(f"file {GENERATED}", "generate", None, None, why, (GENERATOR,)))
        plan.warnings += _pending_of_others(files, present, absent)
    return plan


def not_computable(error: NotComputable, apply: str) -> Blocker:
    return Blocker(
        f"file {str(error).partition(' ')[0]}",
        f"only a shell can work this out: {error}",
        f"Write a plain assignment there, or set the arguments yourself, {apply} and run this again",
    )


def _unmet(line: t.Sequence[str], present: t.Sequence[str], absent: t.Sequence[str]) -> t.List[Blocker]:
    undone = f"a file that is read after {DROP_IN} undoes it"
    hidden = "it is not written literally in any of GRUB's files"
    return [
        *(
            Blocker(f"argument {token}", undone, f"Rename or correct the files in {DIRECTORY}")
            for token in present
            if not _cmdline.satisfied(line, token)
        ),
        *(
            Blocker(f"argument {token}", hidden, f"Remove it yourself from {MAIN} or {DIRECTORY}")
            for token in absent
            if _cmdline.holds(line, [token])
        ),
    ]


def _why(path: str, present: t.Sequence[str], absent: t.Sequence[str]) -> str:
    return _boot_provider.reason(present, ()) if path == DROP_IN and present else _boot_provider.reason((), absent)


def _pending_of_others(files: Files, present: t.Sequence[str], absent: t.Sequence[str]) -> t.List[str]:
    """What somebody wrote into GRUB's files without running the generator takes effect with ours: a warning if there is any."""
    found = entries(files.generated)
    if not found:
        return []
    said = _cmdline.others(line_of(files.texts), present, absent)
    new = [_cmdline.key_of(token) for token in said if not _cmdline.holds(found[0].arguments, [token])]
    if not new:
        return []
    return [f"update-grub also brings what others left in GRUB's files since it last ran: the arguments {', '.join(dict.fromkeys(new))}"]


def generated_has(files: Files, present: t.Sequence[str], absent: t.Sequence[str]) -> bool:
    """Do all entries of the generated file do what is wanted?"""
    found = entries(files.generated)
    return bool(found) and not any(_cmdline.wanting(entry.arguments, present, absent) for entry in found)
