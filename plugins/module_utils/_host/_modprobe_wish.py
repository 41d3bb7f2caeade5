# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wanted of modprobe and of the modules to load at boot: our files, what cannot be wanted, and whose lines undo it."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._change import Blocker
from ._modprobe import Directive, canonical, loads_nothing, parameters

OWN_LOAD = "/etc/modules-load.d/gpufleet.conf"
_HEADER = "# Written by the Ansible collection gpufleet.kubevirt. What others need belongs into another file.\n"


@dataclasses.dataclass(frozen=True)
class Wish:
    """What should be: modules to load at boot, modules that must not load, and module options as ``(module, value)``."""

    load: t.Tuple[str, ...] = ()
    block: t.Tuple[str, ...] = ()
    options: t.Tuple[t.Tuple[str, str], ...] = ()

    @property
    def concerns(self) -> t.FrozenSet[str]:
        """The modules about which modprobe is told something, by their canonical names."""
        return frozenset(canonical(name) for name in (*self.block, *(module for module, _value in self.options)))


def problems(wish: Wish) -> t.List[str]:
    """What cannot be wished for."""
    found = [
        f"{name!r} is no module name"
        for name in dict.fromkeys((*wish.load, *wish.block, *(module for module, _value in wish.options)))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)
    ]
    both = {canonical(name) for name in wish.load} & {canonical(name) for name in wish.block}
    found += [f"{name!r} is to be loaded and to be blocked" for name in sorted(both)]
    for module, value in wish.options:
        if not re.fullmatch(r"[!-~]+( [!-~]+)*", value) or "\\" in value or value.startswith("#"):
            found.append(f"{value!r} is no option of {module!r}: write parameter=value, with one blank between two")
        if canonical(module) == "vfio_pci" and "ids" in parameters(value):
            found.append("vfio-pci takes every device of an id with ids=, also those of the host; bind by address instead")
    return found


def own_text(wish: Wish) -> t.Optional[str]:
    """Our file in modprobe.d, or None where it has nothing to say."""
    lines = [f"blacklist {name}\n" for name in sorted(set(wish.block))]  # whatever order a caller's set has
    lines += [f"options {module} {value}\n" for module, value in dict.fromkeys(wish.options)]
    return _HEADER + "".join(lines) if lines else None


def own_load_text(load: t.Sequence[str]) -> t.Optional[str]:
    """Our file in modules-load.d, or None where it has nothing to say."""
    return _HEADER + "".join(f"{name}\n" for name in dict.fromkeys(load)) if load else None


def contradicting(wish: Wish, others: t.Iterable[Directive]) -> t.List[t.Tuple[Directive, Blocker]]:
    """The lines of others that undo the wish, each with what to do about it."""
    load = {canonical(name) for name in wish.load}
    wanted: t.Dict[str, t.Dict[str, str]] = {}
    for module, value in wish.options:
        wanted.setdefault(canonical(module), {}).update(parameters(value))
    found = []
    for line in others:
        module = canonical(line.module)
        where = f"{line.path} line {line.line}"
        remedy = f"Remove that from {line.path}, or do not ask for {line.module}"
        if line.verb == "blacklist" and module in load:
            found.append((line, Blocker(f"module {line.module}", f"{where} keeps it from being loaded ({_said(line)})", remedy)))
        elif module in load and loads_nothing(line):
            found.append(
                (line, Blocker(f"module {line.module}", f"{where} runs another program in place of loading it ({_said(line)})", remedy))
            )
        elif line.verb == "options" and module in wanted:
            theirs = parameters(line.rest)
            for key in sorted(key for key, value in wanted[module].items() if theirs.get(key, value) != value):
                problem = f"{where} says {key}={theirs[key]}, and {key}={wanted[module][key]} is asked for"
                found.append((line, Blocker(f"module {line.module}", problem, remedy)))
    return found


def _said(line: Directive) -> str:
    return f"{line.verb} {line.module} {line.rest}".strip()
