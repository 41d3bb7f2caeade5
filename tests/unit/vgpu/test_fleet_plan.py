# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The planner: what is best is known from tables, from trying everything, and from a checker that shares no code with it."""

from __future__ import annotations

import copy
import random
import sys

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _plan, _spread
from tests.vgpu import checker, exhaustive, instances


def node(name, *gpus, **more):
    return {"name": name, "gpus": [{"index": index, **gpu} for index, gpu in enumerate(gpus)], **more}


def many(model, count, **more):
    return [node("n1", *({"gpu": model} for _each in range(count)), **more)]


def values(plan):
    return {entry["name"]: entry["value"] for entry in plan["objectives"]}


def planned(fleet, demands, **options):
    """The plan, after the checker has seen it."""
    plan = _plan.plan(copy.deepcopy(fleet), copy.deepcopy(demands), **options)
    assert checker.problems(fleet, demands, plan, **options) == []
    return plan


# ------------------------------------------------------------------ figures that are known


@pytest.mark.parametrize(
    ("wanted", "figures"),
    [
        ("10x4 3x8 1x24", {"A10": (4, 4), "L4": (4, 4), "A40": (3, 3), "L40S": (3, 3), "DC-96": (3, 1)}),
        ("6x4 6x8", {"A10": (3, 3), "A40": (2, 2), "DC-96": (2, 1)}),
        ("6x8 2x24", {"A10": (4, 4), "A40": (2, 2), "DC-96": (2, 1)}),
        ("10x2 4x4 2x8", {"A10": (3, 3), "A40": (3, 2)}),
        ("4x6 4x8 1x12", {"A10": (4, 3), "L40S": (3, 2), "DC-96": (3, 1)}),
        ("20x4 6x8 4x16 1x48", {"A40": (6, 6), "DC-96": (4, 3)}),
    ],
)
def test_the_fewest_gpus_are_those_that_are_known(wanted, figures):
    for model, (equal, mixed) in figures.items():
        demands = [
            {"name": size, "type": instances.type_name(model, int(size), "Q"), "count": int(count)}
            for count, size in (entry.split("x") for entry in wanted.split())
        ]
        for fleet, least in ((many(model, equal), equal), (many(model, equal, owner="host", mode="mixed"), mixed)):
            plan = planned(fleet, demands)
            assert (plan["status"], plan["unserved"], values(plan)["gpus"]) == ("optimal", [], least), (model, least)


# ------------------------------------------------------------------ trying everything


def tiny(seed):
    """Three GPUs on two or three nodes, some with VMs, and a handful of demands."""
    chance = random.Random(seed)
    fleet = []
    for number in range(3):
        model = chance.choice(("A10", "A10", "A40"))
        gpu = {"gpu": model, "present": {}, "vms": []}
        if chance.random() < 0.7:
            kind = instances.type_name(model, chance.choice((8, 12)), "Q")
            gpu["present"] = {kind: checker.most(model, kind)}
            gpu["vms"] = [{"name": f"ns/{number}-{vm}", "type": kind} for vm in range(chance.randint(0, 2))]
        if chance.random() < 0.15:
            gpu["mode"] = chance.choice(("keep", "exclude"))
        fleet.append(node(f"n{number}", gpu))
    if chance.random() < 0.5:
        fleet[0]["gpus"] += [{**fleet[1]["gpus"][0], "index": 1}]
        del fleet[1]
    demands = []
    for number in range(chance.randint(1, 4)):
        model = chance.choice([gpu["gpu"] for entry in fleet for gpu in entry["gpus"] if gpu.get("mode") != "exclude"] or ["A10"])
        wish = {"name": f"d{number}", "count": chance.randint(1, 3)}
        if chance.random() < 0.5:
            wish["type"] = instances.type_name(model, chance.choice((8, 12, 24)), "Q")
        else:
            wish.update(size_gb=chance.choice((8, 12)), series=chance.choice("QC"))
        if chance.random() < 0.4:
            wish["spread"] = f"g{chance.randrange(2)}"
        if chance.random() < 0.3:
            wish["nodes"] = [entry["name"] for entry in fleet if chance.random() < 0.7] or [fleet[0]["name"]]
        demands.append(wish)
    return fleet, demands


@pytest.mark.parametrize("block", range(4))
def test_no_plan_is_better_than_the_planner_s(block):
    seen = 0
    for seed in range(block * 8, block * 8 + 8):
        fleet, demands = tiny(seed)
        try:
            plan = planned(fleet, demands)
        except ValueError as error:
            assert "pin" in str(error) or "no GPU of this fleet" in str(error)
            continue
        found = values(plan)
        assert (found["unserved"], found["disturbed"], found["gpus"], found["profiles"]) == exhaustive.best(fleet, demands), seed
        seen += 1
    assert seen >= 4


@pytest.mark.parametrize("seed", range(3))
def test_the_checker_finds_nothing_in_plans_of_fleets_with_everything(seed):
    fleet, demands = instances.instance(7, 30, (0.7, 0.95, 1.1)[seed], seed)
    planned(fleet, demands, time_limit=2)


def test_more_gpus_never_serve_less():
    fleet, demands = instances.instance(4, 30, 1.1, 5)
    before = values(planned(fleet, demands, objectives=["unserved"]))["unserved"]
    assert before
    after = values(planned([*fleet, node("z", {"gpu": "L40S"}, {"gpu": "A40"})], demands, objectives=["unserved"]))["unserved"]
    assert after <= before


def test_the_order_of_what_is_given_does_not_matter():
    fleet, demands = instances.instance(6, 30, 0.8, 3)
    plan = _plan.plan(fleet, demands)
    chance = random.Random(1)

    def shuffled(value):
        if isinstance(value, dict):
            return dict(chance.sample([(key, shuffled(entry)) for key, entry in value.items()], len(value)))
        if isinstance(value, list):
            return chance.sample([shuffled(entry) for entry in value], len(value))
        return value

    assert _plan.plan(shuffled(fleet), shuffled(demands)) == plan


# ------------------------------------------------------------------ rules one by one

RUNNING = {"gpu": "A10", "present": {"A10-12Q": 2}, "vms": [{"name": "ml/train", "type": "A10-12Q"}]}


def only(plan, index=0):
    return plan["nodes"][0]["gpus"][index]


def test_free_vgpus_of_a_gpu_serve_before_anything_changes():
    plan = planned([node("n1", RUNNING, {"gpu": "A10"})], [{"name": "a", "type": "A10-12Q"}])
    assert (only(plan)["mode"], only(plan)["serves"], only(plan, 1)["mode"]) == (
        "keep",
        [{"demand": "a", "type": "A10-12Q", "count": 1}],
        "unused",
    )


def test_a_vm_that_is_disturbed_gets_its_type_again():
    fleet = [node("n1", RUNNING), node("n2", {**RUNNING, "vms": []})]
    plan = planned(fleet, [{"name": "a", "type": "A10-24Q", "nodes": ["n1"]}])
    assert only(plan)["disturbed"] == ["ml/train"]
    assert plan["nodes"][1]["gpus"][0]["serves"] == [{"demand": "vm ml/train", "type": "A10-12Q", "count": 1}]


def test_vms_that_may_not_move_stay():
    fleet = [node("n1", RUNNING), node("n2", {**RUNNING, "vms": []})]
    plan = planned(fleet, [{"name": "a", "type": "A10-24Q", "nodes": ["n1"]}], move_vms=False)
    [missing] = plan["unserved"]
    assert (missing["demand"], missing["count"], "may not change" in missing["why"]) == ("a", 1, True)


def test_a_vm_without_another_place_is_never_disturbed():
    plan = planned([node("n1", RUNNING)], [{"name": "a", "type": "A10-24Q"}])
    assert (only(plan)["mode"], plan["unserved"][0]["demand"]) == ("keep", "a")


def test_whoever_puts_vms_first_has_less_served():
    fleet = [node("n1", RUNNING), node("n2", {**RUNNING, "vms": []})]
    demands = [{"name": "a", "type": "A10-24Q", "nodes": ["n1"]}]
    plan = planned(fleet, demands, objectives=["disturbed", "unserved", "gpus"])
    assert [entry["value"] for entry in plan["objectives"]] == [0, 1, 1]
    assert "disturbed came before serving" in plan["unserved"][0]["why"]


def test_a_node_counts_as_a_whole_where_it_is_emptied():
    fleet = [node("n1", RUNNING, {"gpu": "A10"}), node("n2", {"gpu": "A10"}), node("n3", {"gpu": "A10"})]
    demands = [{"name": "a", "type": "A10-24Q", "count": 2}]
    plan = planned(fleet, demands, disturbs="node")
    assert (values(plan)["disturbed"], only(plan, 1)["mode"]) == (0, "unused")


def test_a_group_is_never_twice_on_a_node():
    fleet = [node(f"n{number}", {"gpu": "A10"}, {"gpu": "A10"}) for number in range(3)]
    demands = [{"name": f"m{number}", "type": f"A10-{size}Q", "spread": "g"} for number, size in enumerate((4, 8, 4, 4))]
    plan = planned(fleet, demands)
    assert values(plan)["unserved"] == 1
    assert "its group has 4 vGPUs for different nodes, and 3 nodes" in plan["unserved"][0]["why"]


def test_several_series_share_a_gpu_unless_the_driver_is_older():
    demands = [{"name": "a", "type": "A10-4Q", "count": 3}, {"name": "b", "type": "A10-4C", "count": 3}]
    shared = planned(many("A10", 2), demands)
    apart = planned(many("A10", 2), demands, mix_series=False)
    assert (values(shared)["gpus"], values(apart)["gpus"]) == (1, 2)
    assert any("vGPU 17" in words for words in shared["caveats"])


def test_a_larger_vgpu_serves_where_that_is_allowed():
    demands = [{"name": "a", "type": "A10-6Q", "count": 1}, {"name": "b", "type": "A10-8Q", "count": 2}]
    assert values(planned(many("A10", 2), demands))["gpus"] == 2
    assert values(planned(many("A10", 2), demands, right_size=True))["gpus"] == 1


def test_types_on_gpu_instances_have_a_gpu_for_themselves():
    demands = [{"name": "a", "type": "A30-1-6C", "count": 5}, {"name": "b", "type": "A30-6C", "count": 1}]
    plan = planned(many("A30", 4), demands)
    assert sorted(tuple(gpu["types"].items()) for gpu in plan["nodes"][0]["gpus"]) == [
        (), (("A30-1-6C", 4),), (("A30-1-6C", 4),), (("A30-6C", 4),)
    ]  # fmt: skip


def test_one_type_per_pci_id_where_kubevirt_picks_by_it():
    demands = [{"name": "a", "type": "A10-4Q", "count": 3}, {"name": "b", "type": "A10-8Q", "count": 1}]
    plan = planned(many("A10", 2, backend="vendor_vfio"), demands)
    assert plan["served"] == {"a": 3, "b": 0}
    pools = [node(name, {"gpu": "A10"}, backend="vendor_vfio", pool=name) for name in ("p1", "p2")]
    assert planned(pools, demands)["unserved"] == []


def test_an_idle_gpu_of_another_type_is_cleared_where_kubevirt_picks_by_pci_id():
    fleet = [node("n1", {"gpu": "A10", "present": {"A10-8Q": 3}}, {"gpu": "A10"}, backend="vendor_vfio")]
    plan = planned(fleet, [{"name": "a", "type": "A10-4Q", "count": 6}])
    assert sorted(map(str, (gpu["types"] for gpu in plan["nodes"][0]["gpus"]))) == ["{'A10-4Q': 6}", "{}"]


@pytest.mark.parametrize("move_vms", [True, False])
@pytest.mark.parametrize(
    ("gpu", "kind", "most", "more", "options"),
    [
        ("A10", "A10-4Q", 6, {}, {}),
        ("A10", "A10-4Q", 6, {}, {"mix_series": False}),
        ("A10", "A10-4Q", 6, {"backend": "vendor_vfio"}, {}),
        ("A30", "A30-1-6C", 4, {}, {}),
    ],
)
def test_what_is_free_beside_a_running_vm_serves_without_disturbing_it(gpu, kind, most, more, options, move_vms):
    held = {"gpu": gpu, "present": {kind: most}, "vms": [{"name": "ml/a", "type": kind}]}
    plan = planned([node("n1", held, {"gpu": gpu}, **more)], [{"name": "a", "type": kind, "count": most + 1}], move_vms=move_vms, **options)
    assert (plan["served"], values(plan)["disturbed"], values(plan)["gpus"]) == ({"a": most + 1}, 0, 2)


STAYS = {"gpu": "A10", "present": {"A10-4Q": 6}}


def test_a_gpu_that_is_kept_decides_the_type_where_kubevirt_picks_by_pci_id():
    fleet = [node("n1", {**STAYS, "mode": "keep"}, {"gpu": "A10"}, backend="vendor_vfio")]
    another = planned(fleet, [{"name": "a", "type": "A10-8Q", "count": 1}])
    same = planned(fleet, [{"name": "a", "type": "A10-4Q", "count": 7}])
    assert [(gpu["changed"], gpu["types"]) for gpu in another["nodes"][0]["gpus"]] == [(False, {"A10-4Q": 6}), (False, {})]
    assert (another["served"], same["served"]) == ({"a": 0}, {"a": 7})


def test_a_gpu_that_is_kept_stays_when_headroom_is_kept_too():
    plan = planned([node("n1", {**STAYS, "mode": "keep"}, {"gpu": "A10"})], [{"name": "a", "type": "A10-8Q", "count": 1}], headroom="gpu")
    assert (plan["nodes"][0]["gpus"][0]["changed"], plan["nodes"][0]["gpus"][0]["types"]) == (False, {"A10-4Q": 6})


def test_of_several_types_that_stay_where_kubevirt_picks_by_pci_id_the_plan_says_what_comes_of_it():
    two = [{**STAYS, "mode": "keep"}, {**STAYS, "mode": "keep", "present": {"A10-8Q": 3}}]
    excluded = [{**STAYS, "mode": "exclude"}, {"gpu": "A10"}]
    demands = [{"name": "a", "type": "A10-8Q", "count": 1, "gpus": ["n1/1"]}]
    for gpus in (two, excluded):
        # Not with the checker: it knows only plans for pools of one type.
        plan = _plan.plan([node("n1", *gpus, backend="vendor_vfio")], demands)
        assert [gpu["types"] for gpu in plan["nodes"][0]["gpus"]] == [{"A10-4Q": 6}, {"A10-8Q": 3}]
        assert [caveat for caveat in plan["caveats"] if "PCI id" in caveat] == [
            (
                "In pool default KubeVirt picks vGPUs of 10DE:2236 by that PCI id alone, and there are then several types: "
                "A10-4Q (n1/0), A10-8Q (n1/1). A VM can get any of them: remove those that are not wanted, or split the pool."
            )
        ]
    apart = [node("n1", two[0], backend="vendor_vfio"), node("n2", {"gpu": "A10"}, backend="vendor_vfio", pool="other")]
    assert "PCI id" not in " ".join(planned(apart, [{"name": "a", "type": "A10-8Q", "count": 1}])["caveats"])


@pytest.mark.parametrize(("headroom", "gpus", "used"), [("none", 3, 1), ("gpu", 3, 2), ("node", 3, 2)])
def test_headroom_holds_what_one_gpu_or_node_has(headroom, gpus, used):
    fleet = [node(f"n{number}", {"gpu": "A10"}) for number in range(gpus)]
    plan = planned(fleet, [{"name": "a", "type": "A10-4Q", "count": 5}], headroom=headroom)
    assert (sum(bool(gpu["types"]) for entry in plan["nodes"] for gpu in entry["gpus"]), plan["unserved"]) == (used, [])


def test_headroom_goes_before_serving():
    plan = planned(many("A10", 2), [{"name": "a", "type": "A10-24Q", "count": 2}], headroom="gpu")
    assert plan["objectives"][:2] == [
        {"name": "headroom", "value": 0, "bound": 0, "proven": True},
        {"name": "unserved", "value": 1, "bound": 1, "proven": True},
    ]


def test_fewest_nodes_are_another_answer_than_fewest_gpus():
    fleet = [node("n1", {"gpu": "A10"}, {"gpu": "A10"}), node("n2", {"gpu": "A40"}), node("n3", {"gpu": "A10"})]
    demands = [{"name": "a", "size_gb": 12, "series": "Q", "count": 4}, {"name": "b", "size_gb": 24, "series": "Q", "nodes": ["n1"]}]
    assert values(planned(fleet, demands, objectives=["unserved", "nodes"]))["nodes"] == 2


def test_excluded_and_kept_gpus_stay_as_they_are():
    fleet = [node("n1", {**RUNNING, "mode": "exclude"}, {**RUNNING, "mode": "keep", "vms": []})]
    plan = planned(fleet, [{"name": "a", "type": "A10-12Q", "count": 3}])
    assert plan["served"] == {"a": 2}


def test_the_pinned_gpu_serves():
    plan = planned(many("A10", 3), [{"name": "a", "type": "A10-4Q", "gpus": ["n1/2"]}])
    assert only(plan, 2)["serves"]


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_dealt_so_that_none_is_twice_on_a_node(seed):
    chance = random.Random(seed)
    groups, members = chance.randint(1, 6), [chance.randint(1, 3) for _each in range(chance.randint(1, 3))]
    # Made from an answer, so that there is one.
    places = []
    for _group in range(groups):
        nodes = chance.sample(range(12), sum(members))
        for member, count in enumerate(members):
            places += [(f"n{nodes.pop()}", member) for _each in range(count) if chance.random() < 0.9]
    chance.shuffle(places)
    dealt = _spread.deal(places, groups, members)
    assert len({(group, name) for group, (name, _member) in zip(dealt, places)}) == len(places)
    for group in range(groups):
        for member, count in enumerate(members):
            assert sum(1 for got, place in zip(dealt, places) if got == group and place[1] == member) <= count


# ------------------------------------------------------------------ what is wrong is said


GOOD = [
    node(
        "n1", {"gpu": "A10", "present": {"A10-12Q": 2}, "vms": [{"name": "ns/a", "type": "A10-12Q"}]}, {"gpu": "L40S"}, labels={"zone": "a"}
    )
]
WEB = {"name": "web", "type": "A10-4Q", "count": 2}


def changed(**more):
    return [{**GOOD[0], **more}]


def gpu(**more):
    return [node("n1", more)]


@pytest.mark.parametrize(
    ("fleet", "demands", "options", "words"),
    [
        ([], [], {}, "fleet: a list of nodes is needed"),
        ("n1", [], {}, "fleet: a list of nodes is needed"),
        ([node("n1")], [], {}, "none of its nodes has a GPU"),
        ([*GOOD, *GOOD], [], {}, "node n1: it is in the fleet twice"),
        (changed(gpus=[{"index": 0, "gpu": "A10"}, {"index": 0, "gpu": "A10"}]), [], {}, "node n1: GPU 0 is there twice"),
        (changed(gpu=[]), [], {}, "unknown key 'gpu'; nearest: gpus"),
        (gpu(gpu="A11"), [], {}, "node n1, GPU 0: 'A11': no vGPU types are known"),
        (gpu(gpu="DC"), [], {}, "'DC' can be several GPUs: DC-96"),
        (gpu(vendor_device="10DE:2204"), [], {}, "no vGPU types are known for the GPU with PCI id 10DE:2204"),
        (gpu(vendor_device="10DE:25B6"), [], {}, "write it with its subsystem, 25B6:157E for A2"),
        (gpu(vendor_device="10DE:2236", gpu="L4"), [], {}, "vendor_device 10DE:2236 is no L4"),
        (gpu(), [], {}, "gpu or vendor_device is needed"),
        (gpu(gpu="A10", present={"L4-4Q": 1}), [], {}, "the A10 has no vGPU type 'L4-4Q'; nearest: A10-4"),
        (gpu(gpu="A10", present={"A10-4Q": 0}), [], {}, "present A10-4Q: a count of at least 1"),
        (gpu(gpu="A10", present={"A10-4Q": 7}), [], {}, "7 do not fit on one A10, at most 6 do"),
        (gpu(gpu="A30", present={"A30-6C": 1, "A30-1-6C": 1}), [], {}, "time-sliced and MIG-backed types never share a GPU"),
        (gpu(gpu="A10", vms=[{"name": "ns/a", "type": "A10-4Q"}]), [], {}, "VM ns/a runs there, but present is not given"),
        (gpu(gpu="A10", present={"A10-4Q": 1}, vms=[{"name": "a", "type": "A10-4Q", "count": 2}]), [], {}, "VMs hold 2 of A10-4Q, but present has 1"),
        (changed(mode="mixed"), [], {}, "mode mixed needs owner host"),
        (changed(mode="mix"), [], {}, "mode 'mix' is none of equal, mixed, keep, exclude; nearest: mixed"),
        ([node("n1", {"gpu": "T4"}, mode="mixed", owner="host")], [], {}, "the T4 has no mixed-size mode"),
        ([node("n1", {"gpu": "A10"}, mode="mixed", owner="host", backend="vendor_vfio")], [], {}, "which all sizes share"),
        (GOOD, WEB, {}, "demands: a list is needed"),
        (GOOD, [WEB, WEB], {}, "demand web: it is there twice"),
        (GOOD, [{**WEB, "count": 0}], {}, "demand web: count must be a whole number of at least 1, not 0"),
        (GOOD, [{**WEB, "count": "2"}], {}, "count must be a whole number of at least 1, not '2'"),
        (GOOD, [{**WEB, "type": "A10-5Q"}], {}, "demand web: type A10-5Q: no GPU has it; nearest: A10-"),
        (GOOD, [{**WEB, "type": "A40-8Q"}], {}, "type A40-8Q: no GPU of this fleet has it; nearest: "),
        (GOOD, [{**WEB, "size_gb": 4}], {}, "give either type, or size_gb and series"),
        (GOOD, [{"name": "web", "size_gb": 96, "series": "Q"}], {}, "96 GB of series Q; series Q has 1, 2, 3, 4, 6, 8, 12, 16, 24, 48 GB"),
        (GOOD, [{"name": "web", "size_gb": 4, "series": "X"}], {}, "series 'X' is none of A, B, C, Q"),
        (GOOD, [{**WEB, "nodes": ["n2"]}], {}, "nodes: the fleet has no node 'n2'; nearest: n1"),
        (GOOD, [{**WEB, "gpus": ["n1/7"]}], {}, "gpus: the fleet has no GPU 'n1/7', put as NODE/INDEX; nearest: n1/"),
        (GOOD, [{**WEB, "nodes": ["n1"], "exclude_nodes": ["n1"]}], {}, "contradict each other: no GPU is left"),
        (GOOD, [{**WEB, "node_labels": {"zone": "b"}}], {}, "no GPU is left; nodes have zone=a"),
        (GOOD, [{**WEB, "gpus": ["n1/1"]}], {}, "its pins leave only GPUs that have no A10-4Q; nodes that have it: n1"),
        (changed(mode="exclude"), [WEB], {}, "which the plan excludes"),
        (GOOD, [{**WEB, "spread": 3}], {}, "spread must be true or the name of a group"),
        (GOOD, [WEB], {"objectives": ["served"]}, "objective 'served' is none of unserved"),
        (GOOD, [WEB], {"objectives": ["gpus", "gpus"]}, "objective 'gpus' is there twice"),
        (GOOD, [WEB], {"objectives": []}, "objectives must be a list"),
        (GOOD, [WEB], {"headroom": "rack"}, "headroom 'rack' is none of none, gpu, node"),
        (GOOD, [WEB], {"disturbs": "vm"}, "disturbs 'vm' is none of gpu, node"),
        (GOOD, [WEB], {"time_limit": 0}, "time_limit must be a number"),
        (GOOD, [WEB], {"gap": -1}, "gap must be a number"),
        (GOOD, [WEB], {"move_vms": "no"}, "move_vms must be true or false, not 'no'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fleet, demands, options, words):
    with pytest.raises(ValueError) as error:
        _plan.plan(fleet, demands, **options)
    assert words in str(error.value)


def test_two_types_of_running_vms_in_one_pool_are_named():
    other = {"gpu": "A10", "present": {"A10-8Q": 3}, "vms": [{"name": "ns/b", "type": "A10-8Q"}]}
    with pytest.raises(ValueError, match="in pool default running VMs hold A10-12Q, A10-8Q on GPUs with PCI id 10DE:2236"):
        _plan.plan([node("n1", RUNNING, other, backend="vendor_vfio")], [])


def test_a_missing_solver_is_named_with_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(ValueError, match="python3 -m pip install 'highspy"):
        _plan.plan(GOOD, [WEB])


def test_a_plan_that_ran_out_of_time_says_so():
    fleet, demands = instances.instance(24, 150, 1.1, 2)
    plan = _plan.plan(fleet, demands, time_limit=0.4)
    assert checker.problems(fleet, demands, plan) == []
    assert plan["status"] == "time-limit"
    assert any("Time or tolerance ended before" in words for words in plan["caveats"])
