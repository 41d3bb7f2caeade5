# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts a mutant into modules that are loaded already: its functions get the mutant's code, its names the mutant's values.

So a mutant costs a fork, not a new start of pytest and Ansible, and no file is ever edited.
"""

from __future__ import annotations

import ast
import types
import typing as t

PLAIN = (bool, int, float, str, bytes, type(None), tuple, list, dict, set, frozenset)


def _function(thing: t.Any) -> types.FunctionType | None:
    """The function behind a name: below decorators, properties, class methods."""
    while not isinstance(thing, types.FunctionType):
        for layer in ("__wrapped__", "__func__", "fget", "func"):
            inner = getattr(thing, layer, None)
            if inner is not None:
                thing = inner
                break
        else:
            return None
    while hasattr(thing, "__wrapped__"):
        thing = thing.__wrapped__
    return thing


def _one(holder: t.Any, name: str, old: t.Any, new: t.Any) -> None:
    live, mutated = _function(old), _function(new)
    if live is not None and mutated is not None:
        if len(live.__code__.co_freevars) != len(mutated.__code__.co_freevars):
            setattr(holder, name, new)
            return
        live.__code__, live.__defaults__, live.__kwdefaults__ = mutated.__code__, mutated.__defaults__, mutated.__kwdefaults__
    elif isinstance(old, type) and isinstance(new, type):
        for attribute, value in vars(new).items():
            before = vars(old).get(attribute)
            if attribute.startswith("__") and _function(value) is None:
                continue
            if before is None or _function(before) is not None or isinstance(before, PLAIN):
                _one(old, attribute, before, value)
    else:
        setattr(holder, name, new)


def graft(module: types.ModuleType, tree: ast.Module, top: int, statement: ast.stmt) -> None:
    """Have the module behave as if this were its top-level statement number ``top``.

    Assignments further down that use a name which got another value are made again.
    """
    scratch = dict(vars(module))
    changed = _execute(module, scratch, statement)
    for later in tree.body[top + 1 :]:
        if isinstance(later, (ast.Assign, ast.AnnAssign)) and changed & {n.id for n in ast.walk(later) if isinstance(n, ast.Name)}:
            changed |= _execute(module, scratch, later)


def _execute(module: types.ModuleType, scratch: dict[str, t.Any], statement: ast.stmt) -> set[str]:
    """Run one statement beside the module, then put what it made into the module; the names of its values."""
    before = dict(scratch)
    future = ast.parse("from __future__ import annotations").body
    exec(compile(ast.Module([*future, statement], []), module.__file__ or "", "exec"), scratch)  # noqa: S102
    made = {name for name, value in scratch.items() if name != "annotations" and (name not in before or before[name] is not value)}
    for name in made - {"__builtins__", "__annotations__"}:
        _one(module, name, before.get(name), scratch[name])
        scratch[name] = getattr(module, name)
    return {name for name in made if _function(scratch[name]) is None and not isinstance(scratch[name], type)}
