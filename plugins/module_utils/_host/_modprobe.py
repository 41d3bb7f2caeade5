# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""modprobe's configuration as its files and the boot arguments say it, and the modules that a kernel has.

Sources: modprobe.d(5) and modules-load.d(5). Directories in the order in which a file of the same name hides a later one.
systemd-modules-load honours ``blacklist`` for the modules that it is told to load (systemd, src/shared/module-util.c).
"""

from __future__ import annotations

import re
import typing as t

from ._sysfs import Host

OWN = "/etc/modprobe.d/gpufleet.conf"
DIRECTORIES = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
_FALSE = re.compile(r"(\S*/)?(false|true)\b|:$")


class Directive(t.NamedTuple):
    """One line of modprobe's configuration: ``verb`` is its first word, ``rest`` what follows the module."""

    path: str
    line: int
    verb: str
    module: str
    rest: str

    def as_dict(self) -> t.Dict[str, t.Any]:
        return {"file": self.path, "line": self.line, "text": f"{self.verb} {self.module} {self.rest}".strip()}


def canonical(module: str) -> str:
    """A module's name as the kernel shows it: modprobe takes ``-`` and ``_`` for the same."""
    return module.replace("-", "_")


def parameters(text: str) -> t.Dict[str, str]:
    """``a=1 b`` as ``{a: "1", b: ""}``."""
    return {canonical(key): value for word in text.split() for key, _equals, value in [word.partition("=")]}


def directives(path: str, text: str) -> t.List[Directive]:
    """The lines of one file. A backslash at the end of a line continues it."""
    found = []
    number, pending, start = 0, "", 0
    for line in text.splitlines():
        number += 1
        start = start or number
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        words = pending.split(None, 2)
        if len(words) > 1 and not words[0].startswith("#"):
            found.append(Directive(path, start, words[0], words[1], words[2].strip() if len(words) > 2 else ""))
        pending, start = "", 0
    return found


def read(host: Host) -> t.List[Directive]:
    """What all files but ours say. A file hides one of the same name in a later directory."""
    found: t.List[Directive] = []
    seen = set()
    for directory in DIRECTORIES:
        for name in host.names(directory):
            path = f"{directory}/{name}"
            if name.endswith(".conf") and name not in seen:
                seen.add(name)
                if path != OWN:
                    found += directives(path, host.read_text(path) or "")
    return found


def from_arguments(blocking: t.Iterable[t.Tuple[str, str]]) -> t.List[Directive]:
    """What :func:`_cmdline.blocking` finds, as directives of ``/proc/cmdline``."""
    return [Directive("/proc/cmdline", 1, "blacklist", module, f"({key})") for module, key in blocking]


def blocked(lines: t.Iterable[Directive]) -> t.FrozenSet[str]:
    """The modules that do not load by themselves: blacklisted, or with a command that does nothing in place of loading them."""
    return frozenset(canonical(line.module) for line in lines if line.verb == "blacklist" or loads_nothing(line))


def loads_nothing(line: Directive) -> bool:
    """Does this line have a command run that does nothing, in place of loading a module?"""
    return line.verb == "install" and bool(_FALSE.match(line.rest))


def claims(others: t.Iterable[Directive]) -> t.List[Directive]:
    """The lines of others that make vfio-pci take every device of an id at boot, whoever it belongs to."""
    return [line for line in others if line.verb == "options" and canonical(line.module) == "vfio_pci" and parameters(line.rest).get("ids")]


def available(host: Host, release: str) -> t.Optional[t.FrozenSet[str]]:
    """The modules that a kernel has, built in ones included; None where its list is not there."""
    listed = host.read_text(f"/lib/modules/{release}/modules.dep")
    return _modules(listed) | built_in(host, release) if listed else None


def built_in(host: Host, release: str) -> t.FrozenSet[str]:
    """The modules that are part of a kernel itself."""
    return _modules(host.read_text(f"/lib/modules/{release}/modules.builtin") or "")


def _modules(text: str) -> t.FrozenSet[str]:
    """The modules of a list of their files, one at the beginning of each line."""
    return frozenset(canonical(name) for name in re.findall(r"^(?:[^\s:]*/)?([^/\s:]+?)\.ko\b", text, re.MULTILINE))
