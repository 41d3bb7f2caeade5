# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The ``config.yaml`` of NVIDIA's vGPU Device Manager for what each node is to hold.

Rules, and why: every entry has a device filter (without one it is applied to every model of the node, and fails on others), with the subsystem
where two products share a PCI id. Every GPU of a node is covered, one that holds nothing by an empty entry: else the Device Manager never takes
the configuration for applied. Names are label values. Sources: NVIDIA/vgpu-device-manager acb72704 api/spec/v1/{spec,helpers}.go,
pkg/vgpu/config.go, cmd/nvidia-vgpu-dm/assert/config.go.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

import yaml

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _gpu_fits, _type_names, _wishes
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._wishes import NodeWish, Problems, Wish

#: Hexadecimal digits of a name that tell contents apart, and the most characters of a label value.
DIGITS, MOST = 10, 63
#: What the name of a configuration that makes nothing begins with.
NOTHING = "no-vgpu"

Configs = dict[str, list[dict[str, t.Any]]]


def _key(gpu: Gpu, name: str) -> str:
    """The name of a type in the configuration: on instances with graphics, the alias that asks for such an instance."""
    profile = gpu.by_name[name].mig_profile or ""
    return f"{name}{_catalogue.GFX}" if gpu.gfx_keys and profile.endswith("+gfx") else name


def _entry(filters: t.Sequence[str], devices: str | list[int], gpu: Gpu | None, types: t.Iterable[tuple[str, int]]) -> dict[str, t.Any]:
    return {
        "device-filter": filters[0] if len(filters) == 1 else list(filters),
        "devices": devices,
        "vgpu-devices": {_key(gpu, name) if gpu else name: count for name, count in types},
    }


def _canonical(entries: t.Iterable[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The entries in the order that makes equal contents equal."""
    return sorted(entries, key=lambda entry: json.dumps(entry, sort_keys=True))


def entries(wishes: t.Sequence[Wish]) -> list[dict[str, t.Any]]:
    """The entries for one node: one per model if its GPUs hold the same, else one per model and content."""
    models: dict[tuple[str, ...], dict[tuple[tuple[str, int], ...], list[Wish]]] = {}
    for wish in wishes:
        models.setdefault(wish.filters, {}).setdefault(wish.types, []).append(wish)
    return _canonical(
        _entry(filters, "all" if len(contents) == 1 else [wish.index for wish in same], same[0].gpu, types)
        for filters, contents in models.items()
        for types, same in contents.items()
    )


def _readable(wishes: t.Sequence[Wish]) -> list[str]:
    return sorted({name for wish in wishes for name, _count in wish.types}) or [NOTHING]


def _is_whole(wishes: t.Sequence[Wish]) -> bool:
    """Does every GPU hold as many as it can of one type, which is a type of no other GPU, and are they told by nothing but their family?"""
    types = {wish.types for wish in wishes}
    if len(types) != 1 or len(content := next(iter(types))) != 1:
        return False
    name, count = content[0]
    owners = [gpu for gpu in _catalogue.gpus() if name in gpu.by_name]
    usual = [wish.filters == tuple(pci.filter for pci in wish.gpu.pci) for wish in wishes if wish.gpu]
    return len(owners) == 1 and owners[0].by_name[name].most == count and all(usual)


def name_of(wishes: t.Sequence[Wish], content: list[dict[str, t.Any]]) -> str:
    """The name of a node's configuration: the type, if that says all; else its types and a mark of the content. Equal content, equal name."""
    words = _readable(wishes)
    if _is_whole(wishes):
        return words[0]
    mark = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]
    text = ".".join(words)
    room = MOST - 1 - DIGITS
    while len(text) > room:
        text = text.rpartition(".")[0] or text[:room].rstrip("-._")
    return f"{text}-{mark}"


def _caveats(wishes: t.Iterable[Wish]) -> list[str]:
    found = []
    for wish in wishes:
        if wish.gpu is None:
            continue
        kinds = [wish.gpu.by_name[name] for name, _count in wish.types]
        if len(kinds) > 1 and not kinds[0].slices:
            found.append(_gpu_fits.SERIES_SHARE)
        for kind in kinds:
            key = _key(wish.gpu, kind.name)
            asked = _type_names.parse(key).asked_profile
            if asked != kind.mig_profile:
                found.append(
                    f"{key}: by its source, the vGPU Device Manager asks for the GPU instance {asked}, and the type needs {kind.mig_profile}. "
                    "Not tried on hardware: applying it may fail."
                )
            if key != kind.name:
                found.append(
                    f"{key}: by its source, the vGPU Device Manager never takes a name with the suffix {_catalogue.GFX} for applied, and makes "
                    "the vGPUs again at each of its restarts. Not tried on hardware."
                )
    return list(dict.fromkeys(found))


def _common(nodes: t.Sequence[NodeWish]) -> list[dict[str, t.Any]]:
    """One configuration for all nodes of a profile: an entry per model."""
    models = {wish.filters: _entry(wish.filters, "all", wish.gpu, wish.types) for node in nodes for wish in node.gpus}
    return _canonical(models.values())


def _default(nodes: t.Sequence[NodeWish]) -> list[dict[str, t.Any]]:
    """``default`` for these GPUs: what NVIDIA's rule makes of each, but with filters that tell two products of one id apart."""
    models = {}
    for node in nodes:
        for wish in node.gpus:
            stock = [_catalogue.default_type(wish.gpu)] if wish.gpu and wish.gpu.stock else []
            models[wish.filters] = _entry(wish.filters, "all", wish.gpu, stock)
    return _canonical(models.values())


def device_config(given: t.Any, nodes: t.Collection[str] | None = None, with_default: bool = False) -> dict[str, t.Any]:
    """``{config, yaml, profiles, caveats, unread}`` from a plan of ``vgpu_plan`` or from intents of ``node_intents``.

    ``yaml`` is the text of ``config.yaml``; ``profiles`` the value of the label ``nvidia.com/vgpu.config`` by node; ``unread`` the hosts of
    intents whose GPUs are not known. ``nodes``: only these. ``with_default``: have an entry ``default`` too, for nodes without the label.

    :raises ValueError: something cannot be made; names all of it.
    """
    problems = Problems()
    unread: list[str] = []
    if nodes is not None and (isinstance(nodes, str) or not all(isinstance(node, str) for node in nodes)):
        raise ValueError(f"nodes is {nodes!r}: write a list of names")
    if isinstance(given, t.Mapping):
        wanted = _wishes.from_plan(given, nodes, problems)
    elif isinstance(given, (list, tuple)) and all(isinstance(entry, t.Mapping) and "node" in entry for entry in given):
        wanted, unread = _wishes.from_intents(given, nodes, problems)
    else:
        raise ValueError(f"{str(given)[:60]!r} is neither a plan of vgpu_plan nor a list of intents of node_intents")
    if not wanted and not problems:
        problems.add("configuration", "no node is to hold vGPUs that the operator makes", "Ask for a plan or intents that have one")
    if problems:
        raise ValueError("\n".join(["Making the vGPU Device Manager's configuration: stopped.", *(f"- {problem}" for problem in problems)]))
    configs: Configs = {}
    profiles = {}
    for node in wanted:
        content = entries(node.gpus)
        name = node.profile or name_of(node.gpus, content)
        if node.profile:
            content = _common([other for other in wanted if other.profile == node.profile])
        profiles[node.node] = _names.check_label_value(name)
        configs[name] = content
    if with_default:
        configs[_catalogue.DEFAULT] = _default(wanted)
    config = {"version": "v1", "vgpu-configs": dict(sorted(configs.items()))}
    return {
        "config": config,
        "yaml": yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=120),
        "profiles": dict(sorted(profiles.items())),
        "caveats": _caveats(wish for node in wanted for wish in node.gpus),
        "unread": unread,
    }


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out each time instead of pointing at the first."""

    def ignore_aliases(self, _data: t.Any) -> bool:
        return True
