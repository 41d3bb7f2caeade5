# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines of modprobe's configuration that somebody else wrote and that undo a wish of ours."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._modprobe import Directive, Wish, canonical, loads_nothing, parameters


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
