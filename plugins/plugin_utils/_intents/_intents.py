# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From the inventory, what the hosts are and what the cluster knows, to one intent per GPU host: who should become what, and what forbids it.

An intent is ``{host, node, workload, profile, device_config, vgpus, owner, reboot_ok, limited, state, why, boot_id, gpus, expect}``.
``limited`` says whether this run is about the host, ``state`` is ``wanted``, ``refused`` (by preflight, or by a later step that failed on the
host) or ``unread``, and ``expect`` what the node advertises in the end. ``device_config`` is what the profile makes where it is not the stock
configuration's: entries of the given one, or types per GPU, which then have no name before the GPUs are known.
"""

from __future__ import annotations

import difflib
import typing as t

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents import _owned, _vgpu_config
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue

Facts = t.Mapping[str, t.Any]

GROUPS = {"gpu_container": "container", "gpu_vm_passthrough": "vm-passthrough", "gpu_vm_vgpu": "vm-vgpu"}


class Problem(t.NamedTuple):
    target: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.target}: {self.problem}. {self.remedy}"


OWNERS = ("operator", "host")
#: Preflight says why it refuses a host; a task that fails later has said so itself.
LOST = "a step of this run failed on the host after preflight; its own message says why"


def node_intents(
    hosts: t.Iterable[Facts],
    run_hosts: t.Iterable[str] = (),
    fleet: Facts | None = None,
    owners: t.Collection[str] = OWNERS,
    lost_hosts: t.Iterable[str] = (),
) -> dict[str, t.Any]:
    """``{intents, problems, text, vgpu_config}`` from the variables of every GPU host of the inventory.

    ``run_hosts``: the hosts of this run. ``lost_hosts``: those of them on which a task has failed since. ``fleet``: what ``gpu_fleet_info``
    returned, or None before the cluster was read. ``owners``: who may own the devices of a host of this run; a host with another owner is a
    problem. ``text`` is a failure message that is ready to be shown, empty if there is no problem. ``vgpu_config`` is where the vGPU Device
    Manager's configuration comes from: ``{kind, where, name, content}``.
    """
    in_run = {str(name) for name in run_hosts}
    lost = {str(name) for name in lost_hosts}
    nodes = None if fleet is None else {str(node["name"]) for node in nodes_of(fleet)}
    problems: list[Problem] = []
    hosts = list(hosts)
    origin, wrong = _vgpu_config.source(plain([_about_vgpus(host) for host in hosts]))
    problems += [Problem("vGPU configuration", *found) for found in wrong]
    intents = [_intent(host, in_run, lost, nodes, owners, origin, problems) for host in hosts]
    content = _content(origin, intents, problems)
    problems += [Problem(f"node {node}", problem, remedy) for node, problem, remedy in _owned.conflicts(intents)]
    by_node: dict[str, list[str]] = {}
    for intent in intents:
        by_node.setdefault(intent["node"], []).append(intent["host"])
    for node, names in sorted(by_node.items()):
        if len(names) > 1:
            problems.append(
                Problem(f"node {node}", f"the hosts {', '.join(sorted(names))} are all on it", "Give each its own gpufleet_node_name")
            )
    text = ""
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        text = "\n".join([f"Checking the request: {count}. Nothing was changed.", *(f"- {problem}" for problem in problems)])
    config = {"kind": origin.kind, "where": origin.where, "name": origin.config_map, "content": content}
    return {"intents": intents, "problems": [problem._asdict() for problem in problems], "text": text, "vgpu_config": config}


def _about_vgpus(host: Facts) -> dict[str, t.Any]:
    """The variables of a host that say where the configuration comes from: no more, as the others may be many."""
    names = ("group_names", "gpufleet_vgpu_profile", "gpufleet_vgpu_config_file", "gpufleet_vgpu_config_name", "preflight_vgpu_config")
    return {name: host[name] for name in names if host.get(name)}


def _content(origin: _vgpu_config.Source, intents: list[dict[str, t.Any]], problems: list[Problem]) -> str | None:
    """The text of the ConfigMap that is ours to write, None for somebody else's. What is generated gives the intents their profiles."""
    if origin.kind != _vgpu_config.GENERATED:
        return origin.text if origin.kind == _vgpu_config.FILE else None
    made: dict[str, t.Any] = {"yaml": None, "profiles": {}}
    if not problems:
        made, wrong = _vgpu_config.generated(intents)
        problems += [Problem("vGPU configuration", *found) for found in wrong]
    for intent in intents:
        intent["profile"] = made["profiles"].get(intent["node"], intent["profile"])
    return t.cast("str | None", made["yaml"])


def nodes_of(fleet: Facts) -> list[Facts]:
    """The nodes of a ``gpu_fleet_info`` result. :class:`ValueError` if it is none, as after a read that failed."""
    if not isinstance(fleet.get("nodes"), t.Sequence):
        raise ValueError("Comparing the hosts with the cluster: fleet has no list of nodes. Hand over what gpu_fleet_info returned")
    return list(fleet["nodes"])


def _intent(
    host: Facts,
    in_run: set[str],
    lost: set[str],
    nodes: set[str] | None,
    owners: t.Collection[str],
    origin: _vgpu_config.Source,
    problems: list[Problem],
) -> dict[str, t.Any]:
    name = str(host["inventory_hostname"])
    node = str(host.get("gpufleet_node_name") or name)
    workload = _workload(host, name, problems)
    try:
        _names.check_node_name(node)
        if nodes is not None and node not in nodes:
            near = difflib.get_close_matches(node, sorted(nodes), n=2)
            remedy = f"Nearest: {', '.join(near)}" if near else f"The cluster has {len(nodes)} nodes"
            problems.append(Problem(f"host {name}", f"it is no node: the cluster has no Node {node}", f"{remedy}. Set gpufleet_node_name"))
    except ValueError as error:
        problems.append(Problem(f"host {name}", str(error), "Correct gpufleet_node_name"))
    owner = str(host.get("gpufleet_device_owner") or "operator")
    if owner not in OWNERS:
        problems.append(Problem(f"host {name}", f"gpufleet_device_owner is {owner!r}", "Set it to operator or host"))
    elif owner not in owners:
        problem = "its devices are the host's own (gpufleet_device_owner: host), and this playbook cannot serve such a node yet"
        remedy = "Use prepare_hosts and host_devices for it and leave it out of gpu_nodes here, or set gpufleet_device_owner: operator"
        problems.append(Problem(f"host {name}", problem, remedy))
    if owner == _owned.HOST and workload == "container":
        problem = "its devices are the host's own (gpufleet_device_owner: host), and nothing would advertise them to containers"
        problems.append(Problem(f"host {name}", problem, "Set gpufleet_device_owner: operator, or choose another group for the host"))
    given = plain(host.get("gpufleet_vgpus") or []) if owner == _owned.HOST and workload == "vm-vgpu" else []
    profile, device_config = (None, None) if given else _profile(host, name, workload, origin, problems)
    facts = host.get("preflight_host") or {}
    read = facts.get("gpus") is not None
    refused = host.get("preflight_refused") or (LOST if read and name in lost else None)
    gpus = [_gpu(gpu) for gpu in facts.get("gpus") or []]
    vgpus: list[dict[str, t.Any]] | None = None
    if owner == _owned.HOST and workload == "vm-vgpu" and read and not refused:
        vgpus, unmade = _owned.vgpus(given, profile, device_config, gpus)
        problems += [Problem(f"host {name}", problem, remedy) for _node, problem, remedy in unmade]
        expect = _vgpu_config.expected(vgpus)
    elif device_config is not None and read and not refused:
        vgpus, wrong = _vgpu_config.types(device_config, gpus)
        problems += [Problem(f"host {name}", *found) for found in wrong]
        expect = _vgpu_config.expected(vgpus)
    else:
        expect = _expect(name, workload, profile, gpus, problems) if read and not refused else []
    return {
        "host": name,
        "node": node,
        "workload": workload,
        "profile": profile,
        "device_config": device_config,
        "vgpus": vgpus,
        "owner": owner,
        "reboot_ok": _reboot_ok(host, name, problems),
        "limited": name in in_run,
        "state": "refused" if refused else "wanted" if read else "unread",
        "why": str(refused) if refused else None if read else "the host could not be read, or is not in this run",
        "boot_id": (facts.get("host") or {}).get("boot_id"),
        "gpus": gpus,
        "expect": expect,
    }


def _reboot_ok(host: Facts, name: str, problems: list[Problem]) -> bool:
    """An INI inventory and ``-e name=value`` hand over text, and the text ``false`` must not allow a reboot."""
    said = host.get("gpufleet_reboot_ok")
    try:
        return said is not None and said != "" and bool(boolean(said))
    except TypeError:
        problems.append(Problem(f"host {name}", f"gpufleet_reboot_ok is {said!r}", "Set it to true or false"))
        return False


def _workload(host: Facts, name: str, problems: list[Problem]) -> str | None:
    groups = sorted(group for group in GROUPS if group in (host.get("group_names") or []))
    said = host.get("gpufleet_workload")
    if said and said not in _names.WORKLOADS:
        problems.append(Problem(f"host {name}", f"unknown workload {said!r}", f"Use one of {', '.join(_names.WORKLOADS)}, and its group"))
    if len(groups) > 1:
        problems.append(Problem(f"host {name}", f"it is in {' and '.join(groups)}", "A node has one workload: leave it in one group"))
        return None
    if not groups:
        problems.append(
            Problem(f"host {name}", "it is in gpu_nodes and in no workload's group", f"Put it into one of {', '.join(sorted(GROUPS))}")
        )
        return None
    workload = GROUPS[groups[0]]
    if said in _names.WORKLOADS and said != workload:
        problems.append(
            Problem(f"host {name}", f"gpufleet_workload is {said}, but its group {groups[0]} stands for {workload}", "Remove the variable")
        )
    return workload


def _profile(
    host: Facts, name: str, workload: str | None, origin: _vgpu_config.Source, problems: list[Problem]
) -> tuple[str | None, t.Any]:
    """The label, and what it makes where it is not the stock configuration's."""
    profile = plain(host.get("gpufleet_vgpu_profile"))
    if workload != "vm-vgpu":
        return None, None
    if profile is None or profile == "":
        remedy = "Choose a type such as A10-4Q, or `default` on purpose"
        problems.append(Problem(f"host {name}", "gpufleet_vgpu_profile is not set", remedy))
        return None, None
    label, made, wrong = _vgpu_config.profile(profile, origin)
    problems += [Problem(f"host {name}", *found) for found in wrong]
    if wrong:
        return label, None
    if origin.kind in (_vgpu_config.STOCK, _vgpu_config.GENERATED) and label is not None:
        _check_stock(label, name, problems)
    return label, made


def _check_stock(profile: str, name: str, problems: list[Problem]) -> None:
    known = _catalogue.known_profiles()
    if profile not in known:
        near = _nearest(profile, known)
        problems.append(
            Problem(
                f"host {name}",
                f"the vGPU Device Manager's stock configuration has no profile {profile!r}",
                f"Nearest: {', '.join(near) or 'none'}",
            )
        )


def _nearest(profile: str, known: t.Iterable[str]) -> list[str]:
    """Names that may have been meant: of the same product and series by size, else those that are spelled alike."""

    def parts(name: str) -> tuple[str, str, int]:
        product, _dash, last = name.rpartition("-")
        size = last.rstrip("ABCQMEGFX")
        return product, last[len(size) :], int(size) if size.isdigit() else 0

    product, series, size = parts(profile)
    same = [name for name in sorted(known) if parts(name)[:2] == (product, series)]
    if same:
        return sorted(same, key=lambda name: abs(parts(name)[2] - size))[:4]
    return difflib.get_close_matches(profile, sorted(known), n=3)


def _gpu(gpu: Facts) -> dict[str, t.Any]:
    vgpu = gpu.get("vgpu") or {}
    return {
        "address": gpu["address"],
        "pci": gpu["vendor_device"],
        "subsystem": gpu.get("subsystem") or "",
        "class": gpu["class"],
        "backend": vgpu.get("backend"),
        "types": [kind["name"] for kind in vgpu.get("types") or []],
    }


def _expect(
    name: str, workload: str | None, profile: str | None, gpus: list[dict[str, t.Any]], problems: list[Problem]
) -> list[dict[str, t.Any]]:
    """What a node with these GPUs advertises in the end."""
    if workload == "container":
        return [{"resource": "nvidia.com/gpu", "count": len(gpus)}]
    if workload == "vm-passthrough":
        ids = [gpu["pci"] for gpu in gpus]
        return [{"pci": pci, "count": ids.count(pci)} for pci in dict.fromkeys(ids)]
    if workload != "vm-vgpu" or profile is None or profile not in _catalogue.known_profiles():
        return []  # of an unknown one, or of a given configuration that has not been read yet
    counts: dict[str, int] = {}
    for gpu in gpus:
        kinds = (
            _catalogue.default_types(gpu["pci"])
            if profile == _catalogue.DEFAULT
            else [(kind, _catalogue.most(gpu["pci"], gpu["subsystem"], kind)) for kind in [_catalogue.type_of(profile)]]
        )
        if len(kinds) != 1 or kinds[0][1] is None:
            have = " and ".join(kind for kind, _most in kinds if _most) or "no entry"
            problem = f"GPU {gpu['address']} ({gpu['pci']}) cannot have the profile {profile}"
            problem += f": the stock configuration has {have} for it" if profile == _catalogue.DEFAULT else ""
            problems.append(Problem(f"host {name}", problem, "Choose a profile of this GPU, or another group for the host"))
            continue
        kind, count = kinds[0]
        counts[kind] = counts.get(kind, 0) + int(count or 0)
    return [{"vgpu_type": kind, "count": count} for kind, count in counts.items()]
