# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is wrong with a ``config.yaml`` of the vGPU Device Manager: its grammar, what it would do, and, if nodes are given, what it does on them."""

from __future__ import annotations

import difflib
import functools
import json
import typing as t
from pathlib import Path

import yaml

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _lint_config, _type_names, _types
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._lint_config import ERROR, WARNING, Finding

try:
    import jsonschema
except ImportError as error:
    MISSING: str | None = str(error)
else:
    MISSING = None

Configs = dict[str, list[dict[str, t.Any]]]
#: The key of the ConfigMap that the operator mounts.
KEY = "config.yaml"


@functools.lru_cache(maxsize=1)
def schema() -> dict[str, t.Any]:
    return json.loads(Path(__file__).with_name("device_config.schema.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, as the Device Manager's own reader does not say which of them counts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[t.Hashable, t.Any]:
        seen = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(given: t.Any) -> t.Any:
    """The data of a ``config.yaml``: text, data, or a ConfigMap around it.

    :raises ValueError: it cannot be read.
    """
    data = given
    if isinstance(given, str):
        try:
            data = yaml.load(given, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            raise ValueError(f"it is no YAML: {' '.join(str(error).split())}") from error
    if isinstance(data, t.Mapping) and data.get("kind") == "ConfigMap":
        content = data.get("data")
        content = content if isinstance(content, t.Mapping) else {}
        if KEY not in content:
            raise ValueError(
                f"the ConfigMap has no key {KEY}, which is the one that the operator mounts; it has {', '.join(content) or 'none'}"
            )
        return read(content[KEY])
    return data


def _path(error: t.Any) -> str:
    parts = [str(part + 1) if isinstance(part, int) else str(part) for part in error.absolute_path]
    if parts[:1] == ["vgpu-configs"] and len(parts) > 1:
        entry = f", entry {parts[2]}" if len(parts) > 2 else ""
        return f"{parts[1]}{entry}" + (f", {'.'.join(parts[3:])}" if len(parts) > 3 else "")
    return ".".join(parts) or "configuration"


def _said(error: t.Any) -> t.Iterator[tuple[str, str]]:
    """A breach of the schema in words: problem and remedy."""
    place = error.absolute_path[-1] if error.absolute_path else ""
    if error.validator == "additionalProperties" and error.validator_value is False:
        fields = list(error.schema["properties"])
        for name in sorted(str(name) for name in set(error.instance) - set(fields)):
            near = difflib.get_close_matches(name, fields, n=1)
            yield (
                f"the field {name!r} is unknown, and the Device Manager rejects the file",
                f"Write {near[0] if near else 'one of ' + ', '.join(fields)}",
            )
    elif error.validator == "required":
        for name in sorted(set(error.validator_value) - set(error.instance)):
            yield f"the field {name!r} is missing", "Add it: version is v1" if name == "version" else "Add it"
    elif "vgpu-devices" in error.absolute_path and error.validator in ("pattern", "propertyNames"):
        yield _type_reason(str(error.instance))
    elif place == "device-filter" or "device-filter" in error.absolute_path:
        yield (
            f"{error.instance!r} is no device-filter; the Device Manager ignores it silently, and then the entry matches nothing",
            "Write " + str(schema()["$defs"]["entry"]["properties"]["device-filter"]["description"]),
        )
    else:
        wanted = error.schema.get("description") or error.schema.get("const") or error.message
        yield f"{error.instance!r} is not possible here", f"It is {wanted}"


def _type_reason(key: str) -> tuple[str, str]:
    """Why a name is none of a type that the Device Manager reads."""
    try:
        name = _type_names.parse(key)
    except ValueError as error:
        return str(error), "The Device Manager rejects the file"
    if name.old:
        return f"the Device Manager does not read {key!r}, a type of old drivers", "Leave it out"
    near = name.key if name.key != key else ", ".join(_types.nearest(name))
    return f"{key!r} is not the plain name of a type", f"Write {near}"


def _by_schema(data: t.Any) -> tuple[list[Finding], set[str]]:
    """What the grammar has against a file, and the names of the configurations that it is about."""
    if MISSING:
        raise ValueError(
            f"the Python package jsonschema is missing on the controller ({MISSING}); install it for the Python that runs Ansible: "
            "pip install jsonschema"
        )
    findings, names = [], set()
    for error in jsonschema.Draft202012Validator(schema()).iter_errors(data):
        path = list(error.absolute_path)
        if path[:1] == ["vgpu-configs"]:
            names.add(str(path[1]) if len(path) > 1 else str(error.instance))
        findings += [Finding(ERROR, _path(error), problem, remedy) for problem, remedy in _said(error)]
    return findings, names


def _identity(gpu: t.Mapping[str, t.Any]) -> tuple[str, str]:
    return str(gpu.get("vendor_device") or gpu.get("pci") or ""), str(gpu.get("subsystem") or "")


def is_for(entry: t.Mapping[str, t.Any], index: int, gpu: t.Mapping[str, t.Any]) -> bool:
    """Does the Device Manager apply an entry to a GPU? ``index``: its place among the node's GPUs, by PCI address."""
    if entry["devices"] != "all" and index not in entry["devices"]:
        return False
    patterns = _lint_config.patterns(entry)
    return not patterns or any(found.matches(*_identity(gpu)) for found in patterns)


def _on_node(
    node: str, name: str, entries: list[dict[str, t.Any]], gpus: t.Sequence[t.Mapping[str, t.Any]], used: set[tuple[str, int]]
) -> t.Iterator[Finding]:
    """What one configuration does on one node. ``used`` takes up the entries that match something."""
    covered = set()
    ordered = sorted(gpus, key=lambda gpu: str(gpu.get("address") or "").lower())
    for number, entry in enumerate(entries):
        for index, gpu in enumerate(ordered):
            if is_for(entry, index, gpu):
                covered.add(index)
                used.add((name, number))
                here = _catalogue.at(*_identity(gpu))
                types = {_type_names.parse(key).plain: count for key, count in entry["vgpu-devices"].items()}
                wrong = _lint_config.verdict(here[0], types) if types and len(here) == 1 else None
                if wrong and not _lint_config.patterns(entry):
                    yield Finding(ERROR, f"node {node}, GPU {index}, {name}, entry {number + 1}", *wrong)
    for index in sorted(set(range(len(ordered))) - covered):
        gpu = ordered[index]
        shown = f"GPU {index} ({gpu.get('address') or gpu.get('vendor_device') or gpu.get('pci')})"
        problem = f"no entry of {name} is for {shown}, so it never counts as applied there"
        yield Finding(ERROR, f"node {node}", problem, "Add an entry, empty (vgpu-devices: {}) if the GPU holds nothing")


def _on_nodes(configs: Configs, nodes: t.Mapping[str, t.Any], profiles: t.Mapping[str, str] | None) -> t.Iterator[Finding]:
    used: set[tuple[str, int]] = set()
    for node, name in sorted((profiles or {}).items()):
        if node not in nodes:
            yield Finding(
                WARNING, f"node {node}", "its GPUs were not given, so what its configuration does there is not known", "Give its GPUs"
            )
        elif name not in configs:
            near = difflib.get_close_matches(name, configs, n=3) or sorted(configs)[:3]
            yield Finding(ERROR, f"node {node}", f"there is no configuration {name!r}", f"The nearest are {', '.join(near)}")
        else:
            yield from _on_node(node, name, configs[name], nodes[node], used)
    if profiles is None:
        for node, gpus in nodes.items():
            for name, entries in configs.items():
                list(_on_node(node, name, entries, gpus, used))
    for name, entries in configs.items():
        if profiles is not None and name not in profiles.values():
            continue
        for number, _entry in enumerate(entries):
            if (name, number) not in used:
                problem = "it matches no GPU of the nodes that were given, and the Device Manager ignores it silently"
                yield Finding(WARNING, f"{name}, entry {number + 1}", problem, "Correct device-filter or devices, or leave the entry out")


def lint(given: t.Any, nodes: t.Any = None, profiles: t.Any = None) -> dict[str, t.Any]:
    """``{ok, findings, text}`` for a file: its text, its data, or a ConfigMap around it.

    ``nodes``: the GPUs (``{address, vendor_device, subsystem}``) by node. ``profiles``: the configuration that each node's label names; without it
    each configuration is held against all nodes. ``ok``: there is no error. ``text`` is empty if nothing was found.

    :raises ValueError: ``nodes`` or ``profiles`` has another shape, or a package is missing.
    """
    if nodes is not None and not (isinstance(nodes, t.Mapping) and all(_are_gpus(gpus) for gpus in nodes.values())):
        raise ValueError("nodes: write the GPUs of each node, as node: [{address, vendor_device, subsystem}]")
    if profiles is not None and not (isinstance(profiles, t.Mapping) and all(isinstance(name, str) for name in profiles.values())):
        raise ValueError("profiles: write the name of each node's configuration, as node: name")
    try:
        data = read(given)
    except ValueError as error:
        findings = [Finding(ERROR, "configuration", str(error), "The Device Manager cannot read it")]
    else:
        findings, broken = _by_schema(data)
        whole = data.get("vgpu-configs") if isinstance(data, t.Mapping) else None
        sound = {str(name): entries for name, entries in whole.items() if str(name) not in broken} if isinstance(whole, t.Mapping) else {}
        for name, entries in sound.items():
            findings += _lint_config.config(name, entries)
        if nodes is not None:
            findings += _on_nodes(sound, nodes, profiles)
    findings = sorted(dict.fromkeys(findings), key=lambda finding: finding.severity != ERROR)
    errors = sum(finding.severity == ERROR for finding in findings)
    head = f"Checking the vGPU Device Manager's configuration: {_count(errors, ERROR)}, {_count(len(findings) - errors, WARNING)}."
    return {
        "ok": not errors,
        "findings": [finding._asdict() for finding in findings],
        "text": "\n".join([head, *(f"- {finding}" for finding in findings)]) if findings else "",
    }


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _are_gpus(gpus: t.Any) -> bool:
    return isinstance(gpus, list) and all(isinstance(gpu, t.Mapping) for gpu in gpus)
