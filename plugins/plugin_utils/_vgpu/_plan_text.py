# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A plan of ``vgpu_plan`` as text: what changes on which node, whom it disturbs, what it frees, and what is not served."""

from __future__ import annotations

import textwrap
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _plan_shape

Entry = t.Mapping[str, t.Any]
#: Columns of the text; only a single name that is longer goes beyond.
WIDTH = 100
#: What an objective counts, by its name.
OBJECTIVES = {
    "headroom": "vGPUs short of headroom",
    "unserved": "vGPUs not served",
    "disturbed": "VMs disturbed",
    "gpus": "GPUs in use",
    "nodes": "nodes in use",
}
#: A demand whose name begins so is a VM that was disturbed and gets its vGPU again.
AGAIN = "vm "


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _types(types: Entry | None) -> str:
    if types is None:
        return "not known"
    return ", ".join(f"{count} x {name}" for name, count in sorted(types.items())) or "nothing"


def _wrapped(label: str, words: t.Iterable[str], indent: int, by: str = ", ") -> list[str]:
    """``label`` and the words behind it, as many lines as it takes; no name is cut."""
    head = " " * indent + label + " "
    return textwrap.wrap(
        by.join(words), WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
    )


def is_freed(gpu: Entry) -> bool:
    """VMs had it, and after the plan nobody has."""
    return bool(gpu.get("disturbed")) and not gpu.get("serves") and not gpu.get("holds")


def _again(serve: Entry) -> bool:
    return str(serve["demand"]).startswith(AGAIN)


def _gpu(gpu: Entry) -> list[str]:
    head = f"  GPU {gpu['index']:<3} {gpu.get('gpu') or gpu.get('vendor_device') or ''!s:<10} "
    if gpu["changed"]:
        what = f"{_types(gpu.get('before'))} -> {_types(gpu['types'])}"
        mark = "FREED" if is_freed(gpu) else "CHANGES"
    else:
        what, mark = _types(None if gpu["mode"] == "keep" and gpu.get("before") is None else gpu["types"]), "stays"
    lines = [f"{head}{what:<48}  {mark}"] if len(what) <= 48 else [*_wrapped(head.strip(), [what], 2), f"{' ' * len(head)}{mark}"]
    serves = [serve for serve in gpu.get("serves") or [] if not _again(serve)]
    back = [serve for serve in gpu.get("serves") or [] if _again(serve)]
    for label, words in (
        ("disturbs", list(gpu.get("disturbed") or [])),
        ("serves  ", [f"{serve['demand']}: {serve['count']} x {serve['type']}" for serve in serves]),
        ("again   ", [f"{str(serve['demand'])[len(AGAIN) :]}: {serve['count']} x {serve['type']}" for serve in back]),
        ("held by ", [f"{hold['vm']}: {hold.get('count', 1)} x {hold['type']}" for hold in gpu.get("holds") or []]),
        ("idle    ", [f"{count} x {name}" for name, count in sorted((gpu.get("free") or {}).items())]),
    ):
        if words:
            lines += _wrapped(label, words, len(head), "; " if ":" in words[0] else ", ")
    return lines


def _node(name: str, gpus: t.Sequence[Entry]) -> list[str]:
    changed = [gpu for gpu in gpus if gpu["changed"]]
    if not changed and not any(gpu.get("serves") for gpu in gpus):
        vms = {hold["vm"] for gpu in gpus for hold in gpu.get("holds") or []}
        return [f"{name}: stays as it is ({_counted(len(gpus), 'GPU')}, {_counted(len(vms), 'VM')})"]
    head = f"{name}: {len(changed)} of {_counted(len(gpus), 'GPU')} {'changes' if len(changed) == 1 else 'change'}"
    return [head, *(line for gpu in gpus for line in _gpu(gpu))]


def _summary(plan: Entry, gpus: t.Sequence[Entry]) -> list[str]:
    changed = sum(1 for gpu in gpus if gpu["changed"])
    freed = sum(1 for gpu in gpus if is_freed(gpu))
    disturbed = {vm for gpu in gpus for vm in gpu.get("disturbed") or []}
    missing = {entry["demand"]: entry["count"] for entry in plan.get("unserved") or []}
    served = plan.get("served") or {}
    wanted = sum(served.values()) + sum(missing.values())
    whole = len([name for name in served if name not in missing])
    names = len({*served, *missing})
    reached = [
        f"{entry['value']:g} {OBJECTIVES.get(entry['name'], entry['name'])} "
        f"({'proven' if entry['proven'] else 'NOT proven, at least ' + format(entry['bound'], 'g')})"
        for entry in plan.get("objectives") or []
    ]
    lines = [
        "vGPU plan. Nothing of it has been applied.",
        "",
        f"GPUs     {changed} of {len(gpus)} change, {freed} freed",
        f"VMs      {len(disturbed)} disturbed",
        f"demands  {whole} of {names} served in full; {sum(missing.values())} of {_counted(wanted, 'vGPU')} NOT served",
        *_wrapped("reached ", reached, 0),
    ]
    if plan.get("status") == "time-limit":
        lines += [
            *_wrapped("TIME ENDED:", ["this is the best plan that was found; give gpufleet_plan_time_limit more seconds to go on"], 0)
        ]
    return lines


def text(plan: t.Any) -> str:
    """The plan as text of at most :data:`WIDTH` columns, for a terminal.

    :raises ValueError: it is no plan; the message names the item.
    """
    nodes = _plan_shape.check(plan)
    every = [gpu for _name, gpus in nodes for gpu in gpus]
    lines = [*_summary(plan, every), "", "NODES, before -> after"]
    for name, gpus in nodes:
        lines += _node(name, gpus)
    unserved = plan.get("unserved") or []
    if unserved:
        lines += ["", "NOT SERVED"]
        for entry in unserved:
            lines += _wrapped(f"{entry['demand']}:", [f"{entry['count']} x {entry.get('type', 'vGPU')}; {entry.get('why', '')}"], 2)
    hit = [(name, gpu) for name, gpus in nodes for gpu in gpus if gpu.get("disturbed")]
    if hit:
        lines += ["", "VMs DISTURBED (each has to stop, and gets its vGPU again where `again` names it)"]
        for name, gpu in hit:
            lines += _wrapped(f"{name} GPU {gpu['index']}:", gpu["disturbed"], 2)
    freed = [f"{name} GPU {gpu['index']}" for name, gpus in nodes for gpu in gpus if is_freed(gpu)]
    if freed:
        lines += ["", "GPUs FREED", *_wrapped("", freed, 1)]
    if plan.get("caveats"):
        lines += ["", "KNOW THIS FIRST"]
        for caveat in plan["caveats"]:
            lines += _wrapped("-", [caveat], 2)
    return "".join(f"{line.rstrip()}\n" for line in lines)
