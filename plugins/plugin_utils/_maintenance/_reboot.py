# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""May this host be rebooted now, and is it back as it was?

Both answers are lists of problems, each with what was found and what to do. Nothing here reads or writes anything.
"""

from __future__ import annotations

import collections
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _cmdline
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain

Facts = t.Mapping[str, t.Any]

#: What ``gpu_node_info`` shows of the value of an argument that has nothing to do with devices.
_HIDDEN = "(not shown)"
_NOTED = re.compile(r"\b([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])=([0-9A-F]{4}:[0-9A-F]{4})\b")
#: Drivers whose name on the PCI bus is another than their module's.
_MODULE_OF = {"NovaCore": "nova_core"}
_STAYS = "The node stays cordoned."
_GIVE_UP = "uncordon the node and remove its annotation gpufleet.kubevirt/cordoned yourself"


class Problem(t.NamedTuple):
    """One thing that is not as it should be: on what, what was found, what to do."""

    target: str
    problem: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return self._asdict()


def _answer(doing: str, verdict: str, problems: list[Problem], notes: list[str]) -> dict[str, t.Any]:
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    lines = [f"{doing}: {verdict} {count}." if problems else f"{doing}: nothing stands in the way."]
    lines += [f"- {entry.target}: {entry.problem}. {entry.remedy}." for entry in problems]
    return {
        "passed": not problems,
        "problems": [entry.as_dict() for entry in problems],
        "notes": notes,
        "text": "\n".join([*lines, *notes, *([_STAYS] if problems else [])]),
    }


def reboot_blockers(facts: Facts, node: Facts, name: str = "the host") -> dict[str, t.Any]:
    """What forbids a reboot now: another machine behind the name, a VM, a pod that no DaemonSet made.

    ``facts``: of ``gpu_node_info``. ``node``: the host's entry of ``gpu_fleet_info``. What is not known forbids it too.
    """
    facts, node = plain(facts), plain(node)
    problems = []
    ours, theirs = (facts.get("host") or {}).get("boot_id"), node.get("boot_id")
    if ours is None or ours != theirs:
        problems.append(
            Problem(
                f"node {node.get('name')}",
                f"the boot id of {name} is {ours or 'not known'}, that of the Node is {theirs or 'not known'}: they are not one machine",
                "Correct gpufleet_node_name, or wait until the kubelet has registered this boot",
            )
        )
    qemu = facts.get("qemu")
    if qemu is None:
        why = (facts.get("unknown") or {}).get("qemu", "no reason was given")
        problems.append(
            Problem(name, f"whether a VM runs on it is not known ({why})", "Read the host as root, in its own process namespace")
        )
    elif qemu:
        running = ", ".join(f"{entry['comm']} ({entry['pid']})" for entry in qemu)
        problems.append(Problem(name, f"QEMU runs on it: {running}", "Stop or move these VMs and run again"))
    pods = node.get("pods")
    if pods is None:
        problems.append(Problem(f"node {node.get('name')}", "which pods are on it is not known", "Look whether the Node exists"))
    elif pods:
        names = ", ".join(f"{pod.get('namespace')}/{pod['name']}" for pod in pods)
        problems.append(
            Problem(f"node {node.get('name')}", f"pods that no DaemonSet made are on it: {names}", "Move or stop them and run again")
        )
    return _answer(f"Rebooting {name}", "refused for", problems, [])


def devices(facts: Facts) -> dict[str, str] | None:
    """The GPUs and NVSwitches of a host, address to ``VENDOR:DEVICE``; None if they are not known."""
    if facts.get("gpus") is None:
        return None
    return {entry["address"]: entry["vendor_device"] for entry in [*facts["gpus"], *(facts.get("nvswitches") or [])]}


def reboot_note(facts: Facts) -> str:
    """What is written down before a reboot, so that a later run still knows what should come back."""
    return " ".join(["reboot", *(f"{address}={kind}" for address, kind in sorted((devices(plain(facts)) or {}).items()))])


def noted(note: str | None) -> dict[str, str]:
    """The devices of a note of :func:`reboot_note`; none if it holds none."""
    return dict(_NOTED.findall(note or ""))


def reboot_gate(
    after: Facts,
    before: Facts | None = None,
    note: str | None = None,
    name: str = "the host",
    workload: str = "container",
    owner: str = "operator",
    arguments: t.Iterable[str] = (),
    absent: t.Iterable[str] = (),
    blocked: t.Iterable[str] = (),
) -> dict[str, t.Any]:
    """Is a host as it should be after its boot?

    ``before``: its facts right before the reboot; left out if it was not this run that rebooted. ``note``: what an earlier run wrote down.
    ``arguments``, ``absent``: boot arguments that must, or must not, run. ``blocked``: modules that must not hold a GPU.

    Whose task the binding is decides what a group must be. The operator binds GPUs and their companions itself, after this; a host's own
    persistence has bound them at boot. An endpoint of another vendor is nobody's to bind, so it may not stand in a GPU's group.
    """
    after, before = plain(after), plain(before)
    problems: list[Problem] = []
    if before is not None:
        problems += _boot(before, after, name)
    problems += _arguments(after, [str(token) for token in arguments], [str(token) for token in absent])
    expected = noted(note) or (devices(before) if before is not None else {})
    found, notes = _devices(expected, after, name)
    problems += found
    problems += _drivers(after, {_canonical(str(module)) for module in blocked})
    if workload != "container" and not (after.get("iommu") or {}).get("enabled"):
        problems.append(
            Problem(
                name,
                f"its kernel shows no IOMMU groups ({_why(after, 'iommu')})",
                "Look at the firmware's VT-d or AMD-Vi and at /proc/cmdline",
            )
        )
    if workload == "vm-passthrough":
        problems += _groups(before, after, owner)
    return _answer(f"Checking {name} after its reboot", "stopped by", problems, notes)


def _canonical(module: str) -> str:
    return _MODULE_OF.get(module, module.replace("-", "_"))


def _why(facts: Facts, fact: str) -> str:
    return str((facts.get("unknown") or {}).get(fact) or "/sys/kernel/iommu_groups or /sys/class/iommu is empty")


def _boot(before: Facts, after: Facts, name: str) -> list[Problem]:
    was, now = (facts.get("host", {}).get("boot_id") for facts in (before, after))
    if now is None:
        return [Problem(name, "its boot id is not known", "Read /proc/sys/kernel/random/boot_id on it")]
    if was == now:
        return [Problem(name, f"its boot id is still {now}, so it did not reboot", "Reboot it yourself and run again")]
    return []


def _arguments(after: Facts, present: list[str], absent: list[str]) -> list[Problem]:
    running = (after.get("boot") or {}).get("running")
    if not present and not absent:
        return []
    target = "/proc/cmdline"
    if running is None:
        return [Problem(target, "the arguments of the running kernel are not known", "Read the file on the host")]
    hidden = {_cmdline.key_of(token) for token in running if token.endswith(f"={_HIDDEN}")}
    lacking = [token for token in present if _cmdline.key_of(token) not in hidden and not _cmdline.satisfied(running, token)]
    undone = _cmdline.undoing(running, present)
    there = [token for token in absent if _cmdline.holds(running, [token])]
    remedy = "Look whether the boot loader's default entry is the one that was written, and reboot into it"
    problems = [Problem(target, f"the running kernel lacks {token}", remedy) for token in lacking]
    problems += [Problem(target, f"the running kernel has {token}, which must not be there", remedy) for token in there]
    return problems + [
        Problem(target, f"the running kernel has {token}, which nothing else takes back", "Name it in gpufleet_kernel_arguments_absent")
        for token in undone
        if token not in there
    ]


def _devices(expected: t.Mapping[str, str] | None, after: Facts, name: str) -> tuple[list[Problem], list[str]]:
    now = devices(after)
    if expected is None:
        return [Problem(name, "which GPUs it had before is not known", f"Look at its GPUs yourself, and {_GIVE_UP}")], []
    if now is None:
        return [Problem(name, f"its PCI functions are not known ({_why(after, 'gpus')})", "Look at /sys/bus/pci/devices on it")], []
    problems = []
    was, are = collections.Counter(expected.values()), collections.Counter(now.values())
    for kind in sorted(was):
        if are[kind] < was[kind]:
            gone = sorted(address for address, of in expected.items() if of == kind and now.get(address) != kind)
            problems.append(
                Problem(
                    f"devices {kind}",
                    f"{was[kind]} were there before the reboot, {are[kind]} are now; not back: {', '.join(gone)}",
                    f"Look at their seats and power and at the kernel log; if they are gone for good, {_GIVE_UP}",
                )
            )
    problems += [
        Problem(
            f"GPU {gpu['address']}",
            "it does not answer on the bus",
            "Power the host off and on; if that does not help, look at the hardware",
        )
        for gpu in after["gpus"]
        if gpu.get("fell_off_bus")
    ]
    moved = sorted(address for address, kind in expected.items() if now.get(address) != kind)
    notes = [f"Devices have moved to other addresses: {', '.join(moved)}. Whatever names them by address must follow."]
    return problems, notes if moved and not problems else []


def _drivers(after: Facts, blocked: set[str]) -> list[Problem]:
    return [
        Problem(
            f"GPU {gpu['address']}",
            f"{gpu['driver']} holds it again, although it is blocked",
            "Look for what loads it: an initramfs that was built before, or a file of modules to load",
        )
        for gpu in after.get("gpus") or []
        if gpu.get("driver") and _canonical(gpu["driver"]) in blocked
    ]


def _groups(before: Facts | None, after: Facts, owner: str) -> list[Problem]:
    problems = []
    for number, group in sorted((after.get("groups") or {}).items()):
        problems += [
            Problem(
                f"IOMMU group {number}",
                f"{entry['address']} (class {entry['class']}, driver {entry['driver']}) is in it, beside a GPU",
                "Turn ACS on in the firmware, or move the card to another slot",
            )
            for entry in group["blockers"]
            if entry["foreign"]
        ]
    if owner != "host" or before is None:
        return problems
    bound = {gpu["address"] for gpu in before.get("gpus") or [] if "vfio" in (gpu.get("driver") or "")}
    return problems + [
        Problem(
            f"GPU {gpu['address']}",
            f"a VFIO driver had it before the reboot, and {gpu['driver']} has it now",
            "Bind it with persist: boot (playbook host_devices), and look for what takes it at boot",
        )
        for gpu in after.get("gpus") or []
        if gpu["address"] in bound and gpu.get("driver") and "vfio" not in gpu["driver"]
    ]
