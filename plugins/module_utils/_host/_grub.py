# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""GRUB as Debian and Ubuntu set it up: ``/etc/default/grub``, then ``/etc/default/grub.d/*.cfg``, then ``update-grub``.

Its files are shell. They are not run here but read: assignments to the two variables that make the kernel's line, with references to
what stood before. Anything else about these two variables cannot be computed, and that is said.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _cmdline
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host

MAIN = "/etc/default/grub"
DIRECTORY = "/etc/default/grub.d"
DROP_IN = f"{DIRECTORY}/60-gpufleet.cfg"
GENERATED = "/boot/grub/grub.cfg"
GENERATOR = "/usr/sbin/update-grub"
#: The variables, in the order in which GRUB's generator puts them on the line.
VARIABLES = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
OURS = VARIABLES[1]
_HEADER = "# Written by the Ansible collection gpufleet.kubevirt. Arguments that others need belong into another file.\n"

_ASSIGNMENT = re.compile(r"""^\s*(?:export\s+)?(GRUB_CMDLINE_LINUX(?:_DEFAULT)?)=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s#;"']*)\s*(?:#.*)?$""")
_MENTION = re.compile(r"\bGRUB_CMDLINE_LINUX(_DEFAULT)?\b")
# Inside of these, a line may or may not be run.
_OPENS = re.compile(r"^\s*(if|case|for|while|until)\b|[{(]\s*$")
_CLOSES = re.compile(r"(^|;)\s*(fi|esac|done|[})])\s*($|;|\|\||&&|#)")
_OWN_ENTRIES = re.compile(r"^### BEGIN \S*/10_linux\S* ###$(.*?)^### END \S*/10_linux\S* ###$", re.MULTILINE | re.DOTALL)
_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class NotComputable(Exception):
    """A line about our variables that only a shell could work out."""


@dataclasses.dataclass(frozen=True)
class Files:
    """GRUB's files, read once: text by path, in the order in which they are read."""

    texts: t.Mapping[str, str]
    generated: t.Optional[str]

    def others(self) -> t.Dict[str, str]:
        return {path: text for path, text in self.texts.items() if path != DROP_IN}

    @property
    def drop_in(self) -> t.Optional[str]:
        return self.texts.get(DROP_IN)


def read(host: Host) -> Files:
    paths = [MAIN, *(f"{DIRECTORY}/{name}" for name in host.names(DIRECTORY) if name.endswith(".cfg"))]
    return Files({path: host.read_text(path) or "" for path in paths if host.exists(path)}, host.read_text(GENERATED))


def evaluate(texts: t.Mapping[str, str]) -> t.Dict[str, str]:
    """The values of the two variables after these files. Raises NotComputable."""
    values = dict.fromkeys(VARIABLES, "")
    for path, text in texts.items():
        depth = 0
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith("#"):
                continue
            depth = max(0, depth + bool(_OPENS.search(line)) - bool(_CLOSES.search(line)))
            if not _MENTION.search(line):
                continue
            where = f"{path} line {number}: {line.strip()}"
            match = _ASSIGNMENT.match(line)
            if match is None or depth:
                raise NotComputable(where)
            values[match.group(1)] = _expanded(match.group(2), values, where)
    return values


def _expanded(raw: str, values: t.Mapping[str, str], where: str) -> str:
    if raw.startswith("'"):
        return raw[1:-1]
    text = raw[1:-1] if raw.startswith('"') else raw
    if "`" in text or "$(" in text:
        raise NotComputable(where)

    def value(match: t.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in values:
            raise NotComputable(where)
        return values[name]

    text = _REFERENCE.sub(value, text)
    if "$" in text:
        raise NotComputable(where)
    return re.sub(r'\\(["\\`$])', r"\1", text)


def line_of(texts: t.Mapping[str, str]) -> t.List[str]:
    """The arguments that the generator would write for these files."""
    values = evaluate(texts)
    return [token for name in VARIABLES for token in _cmdline.split(values[name])]


def own_arguments(text: t.Optional[str]) -> t.List[str]:
    """The arguments in our drop-in."""
    if text is None:
        return []
    value = evaluate({DROP_IN: text})[OURS]
    return _cmdline.split(value)


def drop_in(arguments: t.Sequence[str]) -> str:
    """The text of our drop-in."""
    quoted = " ".join(arguments).replace('"', '\\"')
    return f'{_HEADER}{OURS}="${OURS} {quoted}"\n'


def entries(generated: t.Optional[str]) -> t.List[t.Tuple[str, t.List[str]]]:
    """``(kernel, arguments)`` of each entry of the generated file that boots this system and is no recovery entry, in their order."""
    found = []
    for match in re.finditer(r"^\s*linux(?:efi|16)?\s+(\S+)(.*)$", _own_part(generated), re.MULTILINE):
        arguments = _cmdline.split(match.group(2))
        if not {"single", "recovery"} & set(arguments):
            found.append((match.group(1), arguments))
    return found


def _own_part(generated: t.Optional[str]) -> str:
    """The part of the generated file that our variables go into. Memory tests and other systems have entries of their own."""
    parts = _OWN_ENTRIES.findall(generated or "")
    return "".join(parts) if parts else generated or ""


def removed(text: str, unwanted: t.Collection[str]) -> str:
    """A file's text without these arguments, wherever one of our two variables gets them literally."""
    lines = []
    for line in text.splitlines(keepends=True):
        match = None if line.lstrip().startswith("#") else _ASSIGNMENT.match(line.rstrip("\n"))
        if match is None:
            lines.append(line)
            continue
        start, end = match.span(2)
        quote = line[start] if line[start : start + 1] in ('"', "'") else ""
        inner = line[start + len(quote) : end - len(quote)]
        spelt = {*unwanted, *(token.replace('"', '\\"') for token in unwanted)} if quote == '"' else unwanted
        lines.append(line[:start] + quote + _cmdline.without(inner, spelt) + quote + line[end:])
    return "".join(lines)


def make_plan(files: Files, present: t.Sequence[str], absent: t.Sequence[str], can_generate: bool) -> Plan:
    """What to write. With ``can_generate``, running the generator is part of the plan wherever its output is behind."""
    plan = Plan()
    if not present and not absent:
        return plan
    try:
        everything = line_of(files.texts)
        own = own_arguments(files.drop_in)
        texts = dict(files.texts)
        for path, text in files.others().items():
            if set(absent) & set(everything):
                texts[path] = removed(text, absent)
        others = {path: text for path, text in texts.items() if path != DROP_IN}
        line = line_of(others)
        stuck = _cmdline.undoing(line, present)
        if stuck:
            plan.blockers += [_stuck(word, others) for word in stuck]
            return plan
        mine = _cmdline.extended([token for token in own if token not in absent], present, line)
        if mine != own:
            texts[DROP_IN] = drop_in(mine) if mine else ""
        after = line_of(dict(sorted(texts.items(), key=lambda item: (item[0] != MAIN, item[0]))))
    except NotComputable as error:
        if generated_has(files, present, absent):
            plan.warnings.append(f"{GENERATED} has what is wanted, but only a shell can work out whether it stays so: {error}")
            return plan
        plan.blockers.append(
            Blocker(
                f"file {str(error).partition(' ')[0]}",
                f"only a shell can work this out: {error}",
                "Write a plain assignment there, or set the arguments yourself, run update-grub and run this again",
            )
        )
        return plan
    plan.blockers += _unmet(after, present, absent)
    if plan.blockers:
        return plan
    for path in sorted({*texts, *files.texts}):
        before = files.texts.get(path)
        if texts.get(path) != before:
            plan.changes.append(
                Change(
                    f"file {path}",
                    "edit" if path != DROP_IN else "write" if texts[path] else "remove",
                    before,
                    texts[path] or None,
                    _why(path, present, absent),
                )
            )
    behind = plan.changes or not generated_has(files, present, absent)
    if can_generate and behind:
        plan.changes.append(Change(f"file {GENERATED}", "generate", None, None, "it is made from the files above"))
    return plan


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
    return f"must be there: {' '.join(present)}" if path == DROP_IN and present else f"must not be there: {' '.join(absent)}"


def _stuck(word: str, texts: t.Mapping[str, str]) -> Blocker:
    places = [
        f"{path} line {number}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if not line.lstrip().startswith("#") and re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w,])", line)
    ]
    where = ", ".join(places) or "GRUB's files"
    problem = f"{word} stands in {where}, and nothing that is appended takes it back"
    return Blocker(f"argument {word}", problem, "Remove it there, or name it in gpufleet_kernel_arguments_absent (option absent)")


def generated_has(files: Files, present: t.Sequence[str], absent: t.Sequence[str]) -> bool:
    """Do all entries of the generated file do what is wanted?"""
    found = entries(files.generated)
    return bool(found) and not any(wanting(line, present, absent) for _kernel, line in found)


def wanting(line: t.Sequence[str], present: t.Sequence[str], absent: t.Sequence[str]) -> bool:
    """Does a line that a kernel is or will be booted with fall short of what is wanted?"""
    lacks = any(not _cmdline.satisfied(line, token) for token in present)
    return lacks or bool(_cmdline.undoing(line, present)) or _cmdline.holds(line, absent)


def default_entry_problems(host: Host, files: Files) -> t.List[Blocker]:
    """What of the first entry is not on disk. GRUB's paths start at a file system's root, which may be ``/boot`` or a subvolume's parent."""
    found = entries(files.generated)
    if not found:
        return [Blocker(f"file {GENERATED}", "it has no entry that boots a kernel", f"Look at the output of {GENERATOR} before you reboot")]
    kernel = found[0][0]
    initrd = re.search(r"^\s*initrd(?:efi|16)?\s+(.+)$", _own_part(files.generated), re.MULTILINE)
    return [
        Blocker(f"file {path}", "the first boot entry names it, and it is not there", "Reinstall that kernel before you reboot")
        for path in [kernel, *(initrd.group(1).split() if initrd else [])]
        if not any(host.exists(place) for place in (path, f"/boot{path}", f"/boot/{path.rpartition('/')[2]}"))
    ]


def next_kernel(files: Files) -> t.Optional[str]:
    """The release that the next boot runs, or None where the default entry is another than the first, or cannot be told."""
    chosen = re.findall(r"^\s*GRUB_DEFAULT=(.*)$", "\n".join(files.texts.values()), re.MULTILINE)
    found = entries(files.generated)
    if not found or (chosen and chosen[-1].strip().strip("\"'") != "0"):
        return None
    match = re.search(r"vmlinu[xz]-(.+)$", found[0][0])
    return match.group(1) if match else None
