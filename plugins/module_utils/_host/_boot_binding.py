# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who binds functions when the host boots: our udev rule, and everybody else who does the same.

The rule names a function by its address and checks its vendor and device, so that an address that has come to name something else binds
nothing. It sets ``driver_override`` while udev handles the function's "add" event, then loads the driver and lets the kernel probe: before
the last rules (80-drivers.rules) load the host driver for that event. It never unbinds, because a rule cannot look for holders first: a
host driver that was there earlier (built in, in the initramfs, or loaded for another device) keeps the function until the next run.
Sources: udev(7); udev's 80-drivers.rules; the kernel's Documentation/ABI/testing/sysfs-bus-pci (driver_override, drivers_probe).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import typing as t

from . import _modprobe
from ._pci import Function
from ._sysfs import Host

RULES = "/etc/udev/rules.d/40-gpufleet-vfio.rules"
_HEADER = "# Written by the Ansible collection gpufleet.kubevirt (vfio_bind, persist: boot). Rules of others belong into another file.\n"
_RULE = (
    'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="%(address)s", ATTR{vendor}=="0x%(vendor)s", ATTR{device}=="0x%(device)s", '
    'ATTR{driver_override}="%(driver)s", RUN{builtin}+="kmod load %(driver)s", '
    "RUN{program}+=\"/bin/sh -c 'echo %(address)s > /sys/bus/pci/drivers_probe'\""
)
_OURS = re.compile(
    r'.*KERNEL=="([0-9a-f:.]+)", ATTR\{vendor\}=="0x([0-9a-f]{4})", ATTR\{device\}=="0x([0-9a-f]{4})", ATTR\{driver_override\}="([\w-]+)".*'
)
_RULE_DIRECTORIES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
_CONDITION = re.compile(r'([A-Z]+)(?:\{([^}]*)\})?\s*==\s*"([^"]*)"')
#: The ids that the running kernel was told. What is only configured for the next boot, preflight finds (vfio_ids_at_boot).
_IDS_ARGUMENT = re.compile(r'(?:^|(?<=[\s"]))vfio[-_]pci\.ids="?((?:[^\s",]|,\s*)*)')
_SETS_OVERRIDE = re.compile(r"driver_override\}\s*:?=(?!=)")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One function that our file binds at boot."""

    address: str
    vendor: str
    device: str
    driver: str

    def __str__(self) -> str:
        return _RULE % dataclasses.asdict(self)


def own(text: t.Optional[str]) -> t.Tuple[t.Dict[str, Rule], t.List[str]]:
    """The rules in our file by address, and the lines of it that are not ours."""
    rules, strange = {}, []
    for line in (text or "").splitlines():
        match = _OURS.fullmatch(line)
        rule = Rule(*match.groups()) if match else None
        if rule is not None and str(rule) == line:
            rules[rule.address] = rule
        elif line.strip() and not line.startswith("#"):
            strange.append(line)
    return rules, strange


def text_of(rules: t.Iterable[Rule]) -> t.Optional[str]:
    """The text of our file; None for no file at all."""
    lines = [f"{rule}\n" for rule in sorted(rules, key=lambda rule: rule.address)]
    return _HEADER + "".join(lines) if lines else None


@dataclasses.dataclass(frozen=True)
class Others:
    """What else binds functions when this host boots."""

    #: (where it stands, the list of ids as it stands)
    ids: t.Sequence[t.Tuple[str, str]]
    #: (where it stands, the conditions of the rule)
    rules: t.Sequence[t.Tuple[str, t.Sequence[t.Tuple[str, str, str]]]]
    #: address -> file
    driverctl: t.Mapping[str, str]

    def of(self, function: Function, subsystem: str) -> t.List[str]:
        """Where it stands that this function is bound by somebody else."""
        found = [where for where, listed in self.ids if any(_id_fits(entry, function, subsystem) for entry in listed.split(","))]
        found += [where for where, conditions in self.rules if _rule_fits(conditions, function)]
        return found + ([self.driverctl[function.address]] if function.address in self.driverctl else [])


def others(host: Host) -> Others:
    said = _IDS_ARGUMENT.finditer(host.quiet("/proc/cmdline") or "")
    ids = [(f"the kernel command line ({argument.group()})", argument.group(1)) for argument in said]
    for directive in _modprobe.read(host):
        if directive.verb == "options" and _modprobe.canonical(directive.module) == "vfio_pci":
            listed = _modprobe.parameters(directive.rest).get("ids", "")
            ids.append((f"{directive.path} line {directive.line}", listed.strip('"')))
    rules = []
    for path in _rule_files(host):
        if path == RULES:
            continue
        for number, line in enumerate(_joined(host.read_text(path) or ""), 1):
            if not line.lstrip().startswith("#") and _SETS_OVERRIDE.search(line):
                rules.append((f"{path} line {number}", _CONDITION.findall(line)))
    driverctl = {name[len("pci-") :]: f"/etc/driverctl.d/{name}" for name in host.names("/etc/driverctl.d") if name.startswith("pci-")}
    return Others(ids, rules, driverctl)


def _rule_files(host: Host) -> t.List[str]:
    """udev's rules: of several files with one name the first one counts, and a directory that is reached twice counts once."""
    seen: t.Dict[str, str] = {}
    for directory in _RULE_DIRECTORIES:
        for name in host.names(directory):
            if name.endswith(".rules"):
                seen.setdefault(name, f"{directory}/{name}")
    return sorted(seen.values())


def _joined(text: str) -> t.List[str]:
    """The lines of a file; one that ends with a backslash goes on in the next, and keeps its place among the lines."""
    lines: t.List[str] = []
    held = ""
    for line in text.splitlines():
        if line.endswith("\\"):
            held += line[:-1]
            lines.append("")
            continue
        lines.append(held + line)
        held = ""
    return [*lines, held] if held else lines


def _id_fits(entry: str, function: Function, subsystem: str) -> bool:
    """``vendor:device[:subvendor[:subdevice[:class[:mask]]]]``, as vfio-pci reads it; its class is not looked at, to be on the safe side."""
    parts = entry.strip().lower().split(":")
    values = [function.vendor, function.device, *subsystem.lower().split(":")]
    if len(parts) < 2:
        return False
    return all(_same_id(part, value) for part, value in zip(parts, values))


def _same_id(part: str, value: str) -> bool:
    try:
        return int(part, 16) in (int(value, 16), 0xFFFFFFFF)
    except ValueError:
        return part == value


def _rule_fits(conditions: t.Sequence[t.Tuple[str, str, str]], function: Function) -> bool:
    """Can a rule with these conditions be about this function? A condition that we do not know counts as met."""
    known = {
        ("KERNEL", ""): function.address,
        ("SUBSYSTEM", ""): "pci",
        ("ATTR", "vendor"): f"0x{function.vendor}",
        ("ATTR", "device"): f"0x{function.device}",
        ("ENV", "PCI_SLOT_NAME"): function.address,
        ("ENV", "PCI_ID"): f"{function.vendor}:{function.device}".upper(),
    }
    return all(
        any(fnmatch.fnmatchcase(known[key, name], pattern) for pattern in value.split("|"))
        for key, name, value in conditions
        if (key, name) in known
    )
