# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Where the vGPU Device Manager's configuration of a fleet comes from, and what it makes of the GPUs of one host.

One ClusterPolicy names one ConfigMap, so the source is the fleet's, while the profile is the host's: NVIDIA's stock configuration, a file or a
ConfigMap that somebody gives, or one that is made from types per GPU.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import (
    _catalogue,
    _device_config,
    _lint,
    _lint_config,
    _type_names,
    _types,
    _wishes,
)

Facts = t.Mapping[str, t.Any]
Entries = t.Sequence[t.Mapping[str, t.Any]]
#: What a wish says of one GPU: a type, of which as many are made as fit, or counts by type.
Wish = t.Mapping[str, t.Union[str, t.Mapping[str, int]]]

STOCK, FILE, CONFIG_MAP, GENERATED = "stock", "file", "config_map", "generated"
#: The ConfigMap that this collection writes.
OURS = "gpufleet-vgpu-devices"
#: The one that the operator writes, over whatever stands there (NVIDIA/gpu-operator v26.7.0, controllers/object_controls.go:613-619).
OPERATORS = "default-vgpu-devices-config"
_FILE_VARIABLE, _NAME_VARIABLE = "gpufleet_vgpu_config_file", "gpufleet_vgpu_config_name"
_ALL = "all"


class Problem(t.NamedTuple):
    problem: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Source:
    """``kind`` of configuration, the file or ConfigMap that was given as ``where``, and its text and named ``configs``, None until it was read."""

    kind: str = STOCK
    where: str = ""
    text: str | None = None
    configs: t.Mapping[str, Entries] | None = None

    @property
    def config_map(self) -> str:
        """The ConfigMap that ``vgpuDeviceManager.config.name`` has to name; empty for the stock configuration."""
        return {STOCK: "", CONFIG_MAP: self.where}.get(self.kind, OURS)

    @property
    def shown(self) -> str:
        return {FILE: f"the file {self.where}", CONFIG_MAP: f"the ConfigMap {self.where}"}.get(self.kind, "the stock configuration")


def _said(hosts: t.Iterable[Facts], variable: str) -> list[str]:
    return sorted({str(host[variable]) for host in hosts if host.get(variable)})


def source(hosts: t.Sequence[Facts]) -> tuple[Source, list[Problem]]:
    """The source for the vm-vgpu hosts among these, with what is wrong with it. What has been read of it is ``preflight_vgpu_config`` of any host."""
    vgpu = [host for host in hosts if "gpu_vm_vgpu" in (host.get("group_names") or [])]
    files, names = _said(vgpu, _FILE_VARIABLE), _said(vgpu, _NAME_VARIABLE)
    for variable, values in ((_FILE_VARIABLE, files), (_NAME_VARIABLE, names)):
        if len(values) > 1:
            problem = f"{variable} is {' and '.join(values)}, and the operator mounts one ConfigMap on all nodes"
            return Source(), [Problem(problem, "Put all configurations into one, each under a name of its own")]
    if files and names:
        problem = f"{_FILE_VARIABLE} and {_NAME_VARIABLE} are both set, and only one of them can count"
        return Source(), [Problem(problem, f"Leave {_NAME_VARIABLE} out to have the file written into the ConfigMap {OURS}, or the file")]
    if not files and not names:
        wished = any(isinstance(host.get("gpufleet_vgpu_profile"), t.Mapping) for host in vgpu)
        return Source(GENERATED if wished else STOCK), []
    if names and names[0] in (OPERATORS, OURS):
        whose = "the operator writes over it" if names[0] == OPERATORS else "this collection writes it itself"
        return Source(), [Problem(f"{_NAME_VARIABLE} is {names[0]}, and {whose}", "Leave it out, or give your ConfigMap another name")]
    kind, where = (FILE, files[0]) if files else (CONFIG_MAP, names[0])
    if kind == CONFIG_MAP:
        try:
            _names.check_node_name(where)
        except ValueError:
            return Source(), [Problem(f"{_NAME_VARIABLE} is {where!r}, which is no name of a ConfigMap", "Correct it")]
    text = next((host["preflight_vgpu_config"]["text"] for host in hosts if host.get("preflight_vgpu_config")), None)
    return _read(Source(kind, where, text))


def _read(found: Source) -> tuple[Source, list[Problem]]:
    if found.text is None:
        return found, []
    try:
        verdict = _lint.lint(found.text)
        errors = [finding for finding in verdict["findings"] if finding["severity"] == _lint_config.ERROR]
        if not errors:
            return dataclasses.replace(found, configs=_lint.read(found.text)["vgpu-configs"]), []
    except ValueError as error:
        return found, [Problem(f"{found.shown} cannot be used: {error}", "Correct it")]
    return found, [Problem(f"{found.shown}: {error['where']}: {error['problem']}", error["remedy"]) for error in errors]


# ------------------------------------------------------------------ the profile of one host


def profile(wanted: t.Any, origin: Source) -> tuple[str | None, t.Any, list[Problem]]:
    """The label that a host's profile asks for, what it makes (None: as the stock configuration has it), and what is wrong.

    What it makes is a list of entries of the given configuration, or the wish for each GPU, whose label follows from the GPUs.
    """
    if isinstance(wanted, t.Mapping):
        if origin.kind in (FILE, CONFIG_MAP):
            problem = f"gpufleet_vgpu_profile gives types per GPU, and the configurations are those of {origin.shown}"
            return None, None, [Problem(problem, "Write the name of one of them, or leave the given configuration out")]
        wish = {str(key): value for key, value in wanted.items()}
        return None, wish, _shape(wish)
    if not isinstance(wanted, str):
        problem = f"gpufleet_vgpu_profile is {wanted!r}"
        return None, None, [Problem(problem, "Write the name of a profile such as A10-4Q, or types per GPU such as {all: A10-4Q}")]
    try:
        _names.check_label_value(wanted)
    except ValueError as error:
        return wanted, None, [Problem(f"gpufleet_vgpu_profile: {error}", "Correct it")]
    if origin.configs is None or wanted in origin.configs:
        return wanted, None if origin.configs is None else list(origin.configs[wanted]), []
    near = difflib.get_close_matches(wanted, sorted(origin.configs), n=4) or sorted(origin.configs)[:6]
    return wanted, None, [Problem(f"{origin.shown} has no profile {wanted!r}", f"Nearest: {', '.join(near)}")]


def _shape(wish: Wish) -> list[Problem]:
    """What is wrong with types per GPU before a GPU is known."""
    found = []
    if not wish:
        found.append(Problem("gpufleet_vgpu_profile names no GPU", "Write types per GPU such as {all: A10-4Q}"))
    for key, value in wish.items():
        where = f"gpufleet_vgpu_profile, {key}"
        if key != _ALL and not key.isdigit() and not _is_address(key):
            try:
                _catalogue.find(key)
            except ValueError as error:
                found.append(Problem(f"{where}: {error}", "A GPU is `all`, its place by PCI address from 0 on, its address or its model"))
                continue
        if isinstance(value, t.Mapping):
            counts = [count for count in value.values() if isinstance(count, bool) or not isinstance(count, int) or count < 1]
            if counts:
                found.append(Problem(f"{where}: {counts[0]!r} is no number of vGPUs", "Write a whole number from 1 on, or {} for none"))
        elif not isinstance(value, str):
            found.append(Problem(f"{where}: {value!r} is no vGPU type", "Write a type such as A10-4Q, or counts such as {A10-4Q: 6}"))
            continue
        for name in value if isinstance(value, t.Mapping) else [value]:
            try:
                _type_names.parse(str(name))
            except ValueError as error:
                found.append(Problem(f"{where}: {error}", "Correct the type"))
    return found


def _is_address(key: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", key, re.IGNORECASE) is not None


# ------------------------------------------------------------------ what it makes of GPUs


def _ordered(gpus: t.Iterable[Facts]) -> list[Facts]:
    return sorted(gpus, key=lambda gpu: str(gpu["address"]).lower())


def _pci(gpu: Facts) -> str:
    return str(gpu.get("pci") or gpu.get("vendor_device") or "")


def types(made: t.Any, gpus: t.Iterable[Facts]) -> tuple[list[dict[str, t.Any]], list[Problem]]:
    """``[{address, types: {type: count}}]`` for the GPUs of a host, in the order of their addresses, and what cannot be."""
    ordered = _ordered(gpus)
    found, problems = _of_wish(made, ordered) if isinstance(made, t.Mapping) else _of_entries(made, ordered)
    if found and not problems and not any(gpu["types"] for gpu in found):
        # NVIDIA's sandbox validator waits until there is one (gpu-operator v26.7.0, cmd/nvidia-validator).
        problems.append(
            Problem("its profile makes no vGPU at all, and the operator would wait for one", "Choose another profile or workload")
        )
    return found, problems


def _of_entries(entries: Entries, ordered: t.Sequence[Facts]) -> tuple[list[dict[str, t.Any]], list[Problem]]:
    """As the Device Manager walks them: each entry in turn, on each GPU that its filter and its indexes match."""
    found: list[dict[str, t.Any]] = [{"address": str(gpu["address"]), "types": {}} for gpu in ordered]
    problems = []
    for index, gpu in enumerate(ordered):
        mine = [entry for entry in entries if _lint.is_for(entry, index, gpu)]
        if not mine:
            problem = f"no entry of the profile is for GPU {gpu['address']} ({_pci(gpu)}), so it would never count as applied"
            problems.append(Problem(problem, "Add an entry for it, empty (vgpu-devices: {}) if it holds nothing"))
            continue
        wanted: dict[str, int] = {}
        for key, count in mine[-1]["vgpu-devices"].items():
            name = _type_names.parse(key).plain
            wanted[name] = wanted.get(name, 0) + int(count)
        here = _catalogue.at(_pci(gpu), str(gpu.get("subsystem") or ""))
        wrong = _lint_config.verdict(here[0], wanted) if len(here) == 1 and wanted else None
        if wrong:
            problems.append(Problem(f"GPU {gpu['address']} ({_pci(gpu)}): {wrong[0]}", wrong[1]))
        found[index]["types"] = wanted
    return found, problems


def _of_wish(wish: Wish, ordered: t.Sequence[Facts]) -> tuple[list[dict[str, t.Any]], list[Problem]]:
    found = []
    problems: list[Problem] = []
    addresses = {str(gpu["address"]).lower() for gpu in ordered}
    for key in wish:
        if (key.isdigit() and int(key) >= len(ordered)) or (_is_address(key) and key.lower() not in addresses):
            have = ", ".join(str(gpu["address"]) for gpu in ordered) or "none"
            problems.append(Problem(f"gpufleet_vgpu_profile is about GPU {key}, and the host has {have}", "Correct it"))
    for index, gpu in enumerate(ordered):
        where = f"GPU {gpu['address']} ({_pci(gpu)})"
        here = _catalogue.at(_pci(gpu), str(gpu.get("subsystem") or ""))
        family = here[0] if len(here) == 1 else None
        keys = [key for key in wish if _rank(key, index, gpu, here) is not None]
        entry: dict[str, t.Any] = {"address": str(gpu["address"]), "types": {}}
        found.append(entry)
        if not keys:
            problem = f"gpufleet_vgpu_profile says nothing of {where}, so the configuration would never count as applied"
            problems.append(Problem(problem, "Add it, or `all: {}` for GPUs that hold nothing"))
            continue
        value = wish[min(keys, key=lambda key: _rank(key, index, gpu, here) or 0)]
        if not value:
            continue
        if family is None:
            names = " or ".join(other.family for other in here) or "no GPU with vGPU types"
            problems.append(Problem(f"{where} is {names}, so nothing can be made on it", "Give it {}, or choose another workload"))
            continue
        try:
            if isinstance(value, str):
                kind = _types.resolve(value, family).kind
                entry["types"] = {kind.name: kind.most}
            else:
                entry["types"] = {_types.resolve(name, family).kind.name: count for name, count in value.items()}
            asked = _Asked(problems)
            _wishes.check_types(where, family, entry["types"], asked)
        except ValueError as error:
            problems.append(Problem(f"{where}: {error}", "Correct gpufleet_vgpu_profile"))
    return found, problems


class _Asked(_wishes.Problems):
    """Takes what the check of types finds as problems."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__()
        self._problems = problems

    def add(self, target: str, problem: str, remedy: str) -> None:
        self._problems.append(Problem(f"{target}: {problem}", remedy))


def _rank(key: str, index: int, gpu: Facts, here: t.Collection[t.Any]) -> int | None:
    """How exactly a key of a wish means a GPU, the most exact first; None if it does not."""
    if key.lower() == str(gpu["address"]).lower():
        return 1
    if key.isdigit():
        return 2 if int(key) == index else None
    if key == _ALL:
        return 4
    try:
        return 3 if _catalogue.find(key) in here else None
    except ValueError:
        return None


def expected(made: t.Iterable[Facts]) -> list[dict[str, t.Any]]:
    """What a node with these vGPUs advertises: counts by type over all GPUs."""
    counts: dict[str, int] = {}
    for gpu in made:
        for name, count in gpu["types"].items():
            counts[name] = counts.get(name, 0) + count
    return [{"vgpu_type": name, "count": count} for name, count in counts.items()]


def generated(intents: t.Iterable[t.Mapping[str, t.Any]]) -> tuple[dict[str, t.Any], list[Problem]]:
    """The result of ``vgpu_device_config`` for the intents of a fleet some of which wish types per GPU, and what stops it."""
    wanted = [
        intent for intent in intents if intent["workload"] == "vm-vgpu" and intent["owner"] == "operator" and intent["state"] == "wanted"
    ]
    if not wanted:
        return {"yaml": None, "profiles": {}}, []
    try:
        return _device_config.device_config(wanted), []
    except ValueError as error:
        return {"yaml": None, "profiles": {}}, [Problem(str(error), "Correct gpufleet_vgpu_profile of these hosts")]
