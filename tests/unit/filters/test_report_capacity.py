# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capacity, drift and health of a report: what is known stands there with its figures, what is not is null, and the sums agree."""

from __future__ import annotations

import json
import random
import typing as t
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._report import FIGURES, check, fleet_report
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._text import fleet_report_text
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue
from tests.report import fleets
from tests.report.fleets import A10, cluster, gpu, host, intent, node, qemu, use, vgpu

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/fleet-report.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
Q4 = "nvidia.com/NVIDIA_A10-4Q"
SIX = [{"vgpu_type": "A10-4Q", "count": 6}]
Facts = dict[str, t.Any]


def report(found: Facts, intended: Facts, facts: Facts | None, **more: t.Any) -> Facts:
    made = fleet_report(cluster(found, **more.pop("objects", {})), [intended], facts={intended["host"]: facts} if facts else {}, **more)
    VALIDATOR.validate(made)
    return made


def row(*arguments: t.Any, **more: t.Any) -> Facts:
    [found] = report(*arguments, **more)["nodes"]
    return found


def vgpus(facts: Facts, allocatable: Facts | None = None, *used: Facts) -> list[Facts]:
    """The profiles of a vGPU node's GPUs, each as figures by name."""
    found = row(node("n", "vm-vgpu", allocatable, used={Q4: list(used)} if used else {}), intent("n", "vm-vgpu", SIX), facts)
    return [{one["profile"]: [one[key] for key in FIGURES] for one in entry["profiles"]} for entry in found["gpus"]]


def whole(workload: str, gpus: list[Facts], allocatable: Facts | None = None, *used: Facts, **objects: t.Any) -> list[Facts]:
    resource = A10 if workload == "vm-passthrough" else "nvidia.com/gpu"
    held = {resource: list(used)} if used else {}
    return list(row(node("n", workload, allocatable, used=held), intent("n", workload), host(*gpus), objects=objects)["gpus"])


ONE = vgpu("A10-4Q", "ml/a")
IDLE = vgpu("A10-4Q")


@pytest.mark.parametrize(
    ("gpus", "allocatable", "used", "expected"),
    [
        # max, created, creatable, allocatable, used, free, stranded
        pytest.param([gpu()], {}, [], [{"A10-4Q": [6, 0, 6, 0, 0, 0, 0]}], id="empty: six can be made"),
        pytest.param([gpu(0, ONE, *[IDLE] * 5)], {Q4: 6}, [use("ml/a")], [{"A10-4Q": [6, 6, 0, 6, 1, 5, 0]}], id="full, one of them held"),
        pytest.param([gpu(0, IDLE)], {Q4: 1}, [], [{"A10-4Q": [6, 1, 5, 1, 0, 1, 0]}], id="one made, five to come"),
        pytest.param(
            [gpu(0, vgpu("A10-12Q"))],
            {"nvidia.com/NVIDIA_A10-12Q": 1},
            [],
            [{"A10-12Q": [2, 1, 1, 1, 0, 1, 0], "A10-4Q": [6, 0, 0, 0, 0, 0, 3]}],
            id="another size strands what would fit beside it",
        ),
        pytest.param(
            [gpu(0, IDLE), gpu(1, IDLE, IDLE)],
            {Q4: 3},
            [],
            [{"A10-4Q": [6, 1, 5, 1, 0, 1, 0]}, {"A10-4Q": [6, 2, 4, 2, 0, 2, 0]}],
            id="all is advertised, so each GPU's is",
        ),
        pytest.param(
            [gpu(0, IDLE), gpu(1, IDLE, IDLE)],
            {Q4: 2},
            [],
            [{"A10-4Q": [6, 1, 5, None, 0, 1, 0]}, {"A10-4Q": [6, 2, 4, None, 0, 2, 0]}],
            id="of which GPU one is missing is not known",
        ),
        pytest.param(
            [gpu(0, IDLE), gpu(1, IDLE)],
            {Q4: 2},
            [use("ml/a"), use("ml/b")],
            [{"A10-4Q": [6, 1, 5, 1, None, None, 0]}] * 2,
            id="which VM is on which GPU is not known",
        ),
        pytest.param(
            [gpu(0, {**IDLE, "type": "nvidia-999"})],
            {},
            [],
            [{"nvidia-999": [None, None, None, 0, None, None, None], "A10-4Q": [6, None, None, 0, None, None, None]}],
            id="a type without a name",
        ),
        pytest.param([gpu(0, driver="vfio-pci", backend="none")], {}, [], [{"A10-4Q": [6, 0, 6, 0, 0, 0, 0]}], id="no driver offers vGPUs"),
    ],
)
def test_the_figures_of_vgpus(gpus, allocatable, used, expected):
    assert vgpus(host(*gpus), allocatable, *used) == expected


def test_what_virtual_functions_forbid_is_stranded():
    card = gpu(0, IDLE)
    card["vgpu"]["types"][0]["available"] = 2
    assert vgpus(host(card), {Q4: 1}) == [{"A10-4Q": [6, 1, 2, 1, 0, 1, 3]}]


def test_another_size_is_not_made_beside_the_first_although_places_are_free():
    card = gpu(0, vgpu("A10-12Q"))
    card["vgpu"]["types"] = []  # the driver does not say what it would take
    assert vgpus(host(card)) == [{"A10-12Q": [2, 1, 1, 0, 0, 1, 0], "A10-4Q": [6, 0, 0, 0, 0, 0, 3]}]


@pytest.mark.parametrize(
    ("gpus", "allocatable", "used", "expected"),
    [
        # created, allocatable, used, free of each GPU, and its holder
        ([gpu(driver="vfio-pci", backend="none")], {A10: 1}, [], [(1, 1, 0, 1, [])]),
        ([gpu(driver="vfio-pci", backend="none", users=[qemu("ml/a")])], {A10: 1}, [use("ml/a")], [(1, 1, 1, 0, ["ml/a"])]),
        # The host does not see it, and one GPU is all there is.
        ([gpu(driver="vfio-pci", backend="none")], {A10: 1}, [use("ml/a")], [(1, 1, 1, 0, ["ml/a"])]),
        ([gpu(driver="nvidia", backend="none")], {}, [], [(0, 0, 0, 0, [])]),
        ([gpu(n, driver="vfio-pci", backend="none") for n in (0, 1)], {A10: 2}, [use("ml/a")], [(1, 1, None, None, None)] * 2),
        ([gpu(n, driver="vfio-pci", backend="none") for n in (0, 1)], {A10: 2}, [use("ml/a", 2)], [(1, 1, 1, 0, ["ml/a"])] * 2),
        (
            [gpu(n, driver="vfio-pci", backend="none") for n in (0, 1)],
            {A10: 2},
            [use("ml/a"), use("ml/b")],
            [(1, 1, 1, 0, ["one of ml/a, ml/b"])] * 2,
        ),
        ([gpu(n, driver="vfio-pci", backend="none") for n in (0, 1)], {A10: 1}, [], [(1, None, 0, 1, [])] * 2),
    ],
)
def test_the_figures_of_whole_gpus(gpus, allocatable, used, expected):
    found = []
    for entry in whole("vm-passthrough", gpus, allocatable, *used):
        [profile] = entry["profiles"]
        holders = None if entry["used"] is None else [one["vm"] for one in entry["used"]]
        found.append((*(profile[key] for key in ("created", "allocatable", "used", "free")), holders))
        assert holders is not None or entry["why"]
    assert found == expected


def test_a_gpu_that_fell_off_the_bus_is_free_for_nobody():
    [gone] = whole("container", [gpu(backend="none", fell_off_bus=True)], {"nvidia.com/gpu": 1})
    assert [gone["profiles"][0][key] for key in FIGURES] == [1, 0, 0, 1, 0, 0, 1]
    [figures] = vgpus(host(gpu(0, IDLE, fell_off_bus=True)), {Q4: 1})
    assert figures == {"A10-4Q": [6, 1, None, 1, 0, 0, None]}


def test_a_permit_tells_which_resource_a_model_is():
    a40 = gpu(1, driver="vfio-pci", backend="none", vendor_device="10DE:2235", subsystem="10DE:145A")
    gpus = [gpu(0, driver="vfio-pci", backend="none"), a40]
    both = {A10: 1, "nvidia.com/GA102GL_A40": 0}
    assert [entry["profiles"][0]["allocatable"] for entry in whole("vm-passthrough", gpus, both)] == [None, None]
    entry = {"pciVendorSelector": "10de:2236", "resourceName": A10}
    kubevirt = {"permitted": {"pciHostDevices": [entry, {"pciVendorSelector": "10DE:2235", "resourceName": "nvidia.com/GA102GL_A40"}]}}
    assert [one["profiles"][0]["allocatable"] for one in whole("vm-passthrough", gpus, both, kubevirt=kubevirt)] == [1, 0]


def test_the_holder_and_the_place_of_each_vgpu_are_told():
    found = row(node("n", "vm-vgpu", {Q4: 2}, used={Q4: [use("ml/a")]}), intent("n", "vm-vgpu", SIX), host(gpu(0, ONE, IDLE)))["gpus"][0]
    assert found["used"] == [{"vm": "ml/a", "type": "A10-4Q", "count": 1}]
    assert found["placements"] == [{"begin_gb": 0, "end_gb": 4, "type": "A10-4Q"}, {"begin_gb": 4, "end_gb": 8, "type": "A10-4Q"}]
    assert (found["size_gb"], found["free_gb"], found["stranded_gb"], found["placed"]) == (24, 16, 0, "order not known")


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("facts", "state", "why"),
    [
        (host(gpu()), "read", None),
        (None, "unread", "not read in this run"),
        ({"unreachable": True, "msg": "Connection refused\nmore"}, "unreachable", "Connection refused"),
        ({"unreachable": True}, "unreachable", "cannot be reached"),
        ({"failed": True, "msg": "no sysfs"}, "failed", "no sysfs"),
        (host(gpu(), boot_id="older"), "stale", "boot older, and the node runs boot b"),
        (host({key: value for key, value in gpu().items() if key != "users"}), "old", "gpus[0] has no users"),
    ],
)
def test_a_host_that_could_not_be_read_is_marked_and_its_gpus_are_unknown(facts, state, why):
    made = report(node("n", "vm-vgpu", {Q4: 6}), intent("n", "vm-vgpu", state="unread"), facts)
    [found] = made["nodes"]
    assert found["reading"]["state"] == state
    assert (why is None and found["reading"]["why"] is None) or why in found["reading"]["why"]
    assert (found["gpus"] is None) == (state != "read")
    assert found["allocatable"] == {Q4: 6}
    assert made["status"] == ("ok" if state in ("read", "unread") else "attention")
    assert (f"host n.example {state}" in fleet_report_text(made)) == (state not in ("read", "unread"))


def test_a_report_of_another_schema_is_refused_by_its_number():
    made = fleet_report(cluster())
    assert check(made) is made
    with pytest.raises(ValueError, match=r"its schema is 0, and this release reads 1\. Make the report anew"):
        check({**made, "schema": 0})
    with pytest.raises(ValueError, match="its schema is None"):
        check({"nodes": []})


# ------------------------------------------------------------------ drift


def drifts(found: list[Facts]) -> list[tuple[str, str, str, str]]:
    return [(entry["where"], entry["wanted"], entry["found"], entry["remedy"].rpartition(".")[2]) for entry in found]


PASS = [{"pci": "10DE:2236", "count": 1}]


@pytest.mark.parametrize(
    ("found", "wanted", "facts", "expected"),
    [
        (node("n", "vm-vgpu", {Q4: 6}), intent("n", "vm-vgpu", SIX), host(gpu(0, *[IDLE] * 6)), []),
        (
            node("n", "container", {Q4: 6}),
            intent("n", "vm-vgpu", SIX),
            host(gpu(0, *[IDLE] * 6)),
            [
                ("label nvidia.com/gpu.workload.config", "vm-vgpu", "container", "cluster"),
                ("label nvidia.com/vgpu.config", "A10-4Q", "not set", "cluster"),
            ],
        ),
        (
            node("n", "vm-vgpu", {Q4: 5}),
            intent("n", "vm-vgpu", SIX, owner="host"),
            host(gpu(0, *[IDLE] * 5)),
            [
                ("label nvidia.com/gpu.deploy.operands", "false", "not set", "cluster"),
                ("allocatable", "A10-4Q: 6", f"{Q4}: 5", "host_devices"),
                ("vGPUs A10-4Q", "6", "5", "host_devices"),
            ],
        ),
        (
            node("n", "vm-passthrough", {A10: 1}),
            intent("n", "vm-passthrough", PASS),
            host(gpu(0, driver="nvidia", backend="none")),
            [("driver of GPU 0000:10:00.0", "vfio-pci", "nvidia", "site")],
        ),
        (
            node("n", "vm-passthrough", {A10: 1}),
            intent("n", "vm-passthrough", PASS),
            host(gpu(0, driver=None, backend="none")),
            [("driver of GPU 0000:10:00.0", "vfio-pci", "no driver", "site")],
        ),
        # What is not known is no drift.
        (node("n", "vm-vgpu", {Q4: 6}), intent("n", "vm-vgpu", SIX), host(gpu(0, {**IDLE, "type": "nvidia-999"})), []),
        (node("n", "vm-vgpu", {Q4: 6}), intent("n", "vm-vgpu", SIX), None, []),
        (node("n", "vm-vgpu", {Q4: 6}), intent("n", "vm-vgpu", SIX, state="refused", why="off"), host(gpu()), []),
    ],
)
def test_where_a_node_differs_from_what_is_wanted_and_what_mends_it(found, wanted, facts, expected):
    seen = row(found, wanted, facts)
    assert drifts(seen["drift"]) == expected
    assert all(entry["says"] in seen["problems"] for entry in seen["drift"])
    assert (seen["state"] == "drift") == bool(expected)


RELEASE = {"name": "gpu-operator", "namespace": "gpu-operator", "chart": "gpu-operator", "version": "v26.7.0", "status": "deployed"}
VALUES = {"toolkit": {"enabled": False, "env": [1]}, "proxyPassword": "hunter2"}


@pytest.mark.parametrize(
    ("objects", "wanted", "expected"),
    [
        ({}, {"version": "v26.7.0"}, []),
        ({"release": {**RELEASE, "values": VALUES}}, {"version": "26.7.0", "values": VALUES}, []),
        ({"release": RELEASE}, {"version": "v26.8.0"}, [("version", "v26.8.0", "v26.7.0")]),
        (
            {"release": {**RELEASE, "values": {"toolkit": {"enabled": True}, "more": 1}}},
            {"version": "v26.7.0", "values": VALUES},
            [
                ("value proxyPassword", "another value", "not shown"),
                ("value toolkit.enabled", "False", "True"),
                ("value toolkit.env", "[1]", "not set"),
            ],
        ),
        ({"cluster_policy": {"name": "p", "sandbox_enabled": False}}, {}, [("sandboxWorkloads.enabled", "true", "false")]),
        ({"kubevirt": {"namespace": "k", "name": "k", "permitted": None}}, {}, [("permittedHostDevices", "a list of devices", "no list")]),
        (
            {"kubevirt": {"namespace": "k", "name": "k", "permitted": {"pciHostDevices": []}}},
            {},
            [("permittedHostDevices", f"{Q4} permitted", "not permitted")],
        ),
        (
            {"kubevirt": {"permitted": {"mediatedDevices": [{"resourceName": Q4, "mdevNameSelector": "NVIDIA A10-4Q"}]}}},
            {},
            [],
        ),
    ],
)
def test_where_the_cluster_differs_from_what_is_wanted(objects, wanted, expected):
    made = report(node("n", "vm-vgpu", {Q4: 6}), intent("n", "vm-vgpu", SIX), None, objects=objects, wanted=wanted)
    assert [(where.rpartition(", ")[2], want, have) for where, want, have, _remedy in drifts(made["drift"])] == expected
    assert made["status"] == ("attention" if expected else "ok")
    assert "hunter2" not in json.dumps(made["drift"])


def test_what_is_not_compared_is_said():
    made = report(node("n", "vm-vgpu", {Q4: 6}), intent("n", "vm-vgpu", SIX), None)
    assert [entry["what"].split()[0] for entry in made["unknown"]] == ["version", "digest"]


# ------------------------------------------------------------------ health


@pytest.mark.parametrize(
    ("found", "facts", "expected"),
    [
        ({}, None, []),
        ({"ready": False}, None, [("node_not_ready", "bad")]),
        ({"labels": {"nvidia.com/gpu.deploy.vgpu-manager": "paused-for-vgpu-change"}}, None, [("operands_paused", "bad")]),
        (
            {"labels": {"nvidia.com/gpu.deploy.vgpu-manager": "paused-for-vgpu-change"}, "at_work": ["nvidia-vgpu-device-manager"]},
            None,
            [("operands_paused", "warn")],
        ),
        ({"labels": {"nvidia.com/gpu.deploy.driver": "pre-installed"}}, None, [("driver_pre_installed", "bad")]),
        ({"labels": {"nvidia.com/vgpu.config.state": "failed"}}, None, [("vgpu_config_failed", "bad")]),
        ({"withdrawn": [A10]}, None, []),
        ({"withdrawn": [A10], "used": {A10: [use("ml/a")]}}, None, [("resource_withdrawn", "bad")]),
        ({"allocatable": {"nvidia.com/2236": 1}}, None, [("unnamed_device", "warn")]),
        ({}, host(gpu(fell_off_bus=True), kernel_log=[{"signature": "fell_off_bus", "count": 1, "line": "x"}]), [("fell_off_bus", "bad")]),
        ({}, host(kernel_log=[{"signature": "bar_reserved", "count": 2, "line": "x"}]), [("bar_reserved", "warn")]),
        ({}, host(kernel_log=[{"signature": "of_tomorrow", "count": 2, "line": "x"}]), [("of_tomorrow", "warn")]),
    ],
)
def test_signs_of_trouble_are_named(found, facts, expected):
    seen = row(node("n", "container", **found), intent("n", "container"), facts)
    assert [(entry["signature"], entry["level"]) for entry in seen["findings"]] == expected
    assert all(entry["remedy"] and entry["problem"] and entry["target"] for entry in seen["findings"])


def test_every_signature_of_the_kernel_log_has_a_meaning():
    from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _kernel_log
    from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _health

    assert set(_health.LOG) == set(_kernel_log.SIGNATURES)


def test_signs_of_trouble_of_the_cluster():
    objects = {
        "cluster_policy": {"name": "p", "ready": False, "state": "notReady", "reason": "OperandNotReady"},
        "release": {**RELEASE, "status": "failed"},
        "kubevirt": {"name": "k", "phase": "Deploying", "permitted": {}},
    }
    made = report(node("n", "container"), intent("n", "container"), None, objects=objects)
    assert [entry["signature"] for entry in made["findings"]] == ["policy_not_ready", "release_not_deployed", "kubevirt_not_deployed"]
    assert made["status"] == "attention"


# ------------------------------------------------------------------ the whole


def described(instance: t.Any, schema: Facts, path: str = "") -> t.Iterator[str]:
    """The keys of an instance that the schema does not describe."""
    schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(instance, dict) and "properties" in schema:
        for key, value in instance.items():
            if key not in schema["properties"]:
                yield f"{path}.{key}"
            else:
                yield from described(value, schema["properties"][key], f"{path}.{key}")
    elif isinstance(instance, list):
        for value in instance:
            yield from described(value, schema.get("items", {}), path)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_the_sums_agree_and_the_published_schema_describes_all(nodes, gpus, seed):
    made = fleet_report(**fleets.large(nodes, gpus, seed).arguments())
    VALIDATOR.validate(made)
    assert not list(described(made, SCHEMA))
    assert json.loads(json.dumps(made)) == made
    cards = [card for entry in made["nodes"] for card in entry["gpus"] or ()]
    assert made["summary"]["gpus"] == len(cards) and made["summary"]["nodes"] == sum(made["summary"]["states"].values()) == nodes
    for entry in made["capacity"]:
        parts = [p for card in cards for p in card["profiles"] if (card["model"], p["profile"]) == (entry["model"], entry["profile"])]
        assert entry["gpus"] == len(parts)
        for figure in FIGURES:
            known = [part[figure] for part in parts if part[figure] is not None]
            assert entry[figure] == (sum(known) if known else None)
            assert (figure in entry["partly"]) == (0 < len(known) < len(parts))
    for card in cards:
        for part in card["profiles"]:
            if None not in (part["used"], part["created"]):
                assert part["free"] == part["created"] - part["used"]
                assert part["used"] == sum(one["count"] for one in card["used"] if one["type"] == part["profile"])
            assert part["created"] + part["creatable"] + part["stranded"] <= part["max"]
        if card["placements"] is not None:
            taken = sum(place["end_gb"] - place["begin_gb"] for place in card["placements"])
            assert taken + card["free_gb"] + card["stranded_gb"] == card["size_gb"]


@pytest.mark.parametrize("remove", [["host"], ["kernel_log"], ["unknown"], ["host", "kernel_log", "unknown"]])
def test_facts_that_lack_a_part_still_make_a_report(remove):
    facts = {key: value for key, value in host(gpu(0, ONE)).items() if key not in remove}
    assert row(node("n", "vm-vgpu", {Q4: 1}), intent("n", "vm-vgpu", SIX), facts)["gpus"][0]["profiles"][0]["created"] == 1


def test_every_gpu_of_the_catalogue_can_be_reported_with_whatever_is_on_it():
    chance = random.Random(3)
    for family in [entry for entry in _catalogue.gpus() if entry.pci]:
        kinds = chance.sample(family.types, min(len(family.types), chance.choice((0, 1, 1, 2, 3))))
        made = {kind.name: chance.randint(1, min(kind.most, 4)) for kind in kinds}
        pci = chance.choice(family.pci)
        subsystem = pci.subsystems[0][0] if pci.subsystems else ""
        active = [vgpu(name) for name, count in made.items() for _one in range(count)]
        card = gpu(
            0, *active, vendor_device=f"10DE:{pci.device}", subsystem=subsystem, backend=chance.choice(["mdev", "vendor_vfio", "none"])
        )
        listed = chance.sample(family.types, min(3, len(family.types)))
        card["vgpu"]["types"] = [{"id": "1", "name": k.name, "plain": k.name, "available": chance.randint(0, k.most)} for k in listed]
        wanted = chance.choice(family.types).name
        advertised = {f"nvidia.com/NVIDIA_{name}": count for name, count in made.items()}
        seen = row(
            node("n", "vm-vgpu", advertised), intent("n", "vm-vgpu", [{"vgpu_type": wanted, "count": 1}], profile=wanted), host(card)
        )
        [shown] = seen["gpus"]
        # Some share an id with others, and only the subsystem tells which they are: then nobody knows what it could hold.
        assert {*made, *([wanted] if shown["size_gb"] else [])} == {part["profile"] for part in shown["profiles"]}
        assert shown["size_gb"] or shown["why"]
        for part in shown["profiles"]:
            known = [part[key] for key in ("created", "creatable", "stranded") if part[key] is not None]
            assert min(known, default=0) >= 0 and (part["max"] is None or sum(known) <= part["max"]), (family.family, made, part)
        if shown["placements"] is not None:
            taken = sum(place["end_gb"] - place["begin_gb"] for place in shown["placements"])
            assert taken + shown["free_gb"] + shown["stranded_gb"] == pytest.approx(shown["size_gb"])
