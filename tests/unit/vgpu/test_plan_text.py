# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan as text, the file with the demands, and what a plan must be for anybody to read it."""

from __future__ import annotations

import copy
import textwrap
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_demands import FilterModule as Demands
from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_plan_text import FilterModule as Text
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _plan, _plan_shape, _plan_text

text = Text().filters()["vgpu_plan_text"]
demands = Demands().filters()["vgpu_demands"]
DOCUMENTED = Path(__file__).resolve().parents[3] / "plugins" / "filter"

FLEET = [
    {
        "name": "gpu01",
        "gpus": [
            {"index": 0, "gpu": "A10", "present": {"A10-4Q": 6}, "vms": [{"name": "ml/a", "type": "A10-4Q"}]},
            {
                "index": 1,
                "gpu": "A10",
                "present": {"A10-4Q": 6},
                "vms": [{"name": "ml/b", "type": "A10-4Q"}, {"name": "ml/c", "type": "A10-4Q"}],
            },
        ],
    },
    {"name": "gpu02", "mode": "keep", "gpus": [{"index": 0, "gpu": "A10", "present": {"A10-12Q": 2}}]},
]
WANTED = [{"name": "render", "type": "A10-24Q", "count": 2}, {"name": "web", "type": "A10-4Q", "count": 3}]


@pytest.fixture
def plan() -> dict[str, t.Any]:
    return _plan.plan(FLEET, WANTED)


def test_a_plan_as_text(plan: dict[str, t.Any]) -> None:
    assert text(plan) == textwrap.dedent("""\
        vGPU plan. Nothing of it has been applied.

        GPUs     1 of 3 change, 0 freed
        VMs      1 disturbed
        demands  1 of 2 served in full; 1 of 5 vGPUs NOT served
        reached  1 vGPUs not served (proven), 1 VMs disturbed (proven), 2 GPUs in use (proven), 2 profiles
                 (proven)

        NODES, before -> after
        gpu01: 1 of 2 GPUs changes
          GPU 0   A10        6 x A10-4Q -> 1 x A10-24Q                         CHANGES
                             disturbs ml/a
                             serves   render: 1 x A10-24Q
          GPU 1   A10        6 x A10-4Q                                        stays
                             serves   web: 3 x A10-4Q
                             again    ml/a: 1 x A10-4Q
                             held by  ml/b: 1 x A10-4Q; ml/c: 1 x A10-4Q
        gpu02: stays as it is (1 GPU, 0 VMs)

        NOT SERVED
          render: 1 x A10-24Q; the 3 GPUs that could serve it are taken by other demands and running VMs

        VMs DISTURBED (each has to stop, and gets its vGPU again where `again` names it)
          gpu01 GPU 0: ml/a

        KNOW THIS FIRST
          - Disturbed VMs lose their vGPU when their GPU changes: stop them before, start them after. Where
            else they may run is not known here.
        """)


def gpu(**more: t.Any) -> dict[str, t.Any]:
    return {"index": 0, "gpu": "A10", "mode": "equal", "types": {"A10-4Q": 6}, "before": {"A10-4Q": 6}, "changed": False, **more}


def a_plan(*gpus: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    return {"version": 1, "nodes": [{"node": "n1", "gpus": [{**entry, "index": number} for number, entry in enumerate(gpus)]}], **more}


def test_a_gpu_that_nobody_has_afterwards_is_freed() -> None:
    freed = gpu(changed=True, types={}, mode="unused", disturbed=["ml/a", "ml/b"])
    again = gpu(changed=True, types={"A10-8Q": 3}, disturbed=["ml/c"], serves=[{"demand": "vm ml/a", "type": "A10-8Q", "count": 1}])
    kept = gpu(disturbed=["ml/d"], holds=[{"vm": "ml/e", "type": "A10-4Q", "count": 1}])
    lines = text(a_plan(freed, again, kept)).splitlines()
    assert "GPUs     2 of 3 change, 1 freed" in lines
    assert "VMs      4 disturbed" in lines
    assert any("GPU 0   A10        6 x A10-4Q -> nothing" in line and line.endswith("FREED") for line in lines)
    assert any("again    ml/a: 1 x A10-8Q" in line for line in lines)
    assert lines[lines.index("GPUs FREED") + 1] == "  n1 GPU 0"
    assert "GPUs FREED" not in text(a_plan(again, kept))


def test_every_part_of_the_text() -> None:
    held = [{"vm": "ml/a", "type": "A10-4Q", "count": 2}, {"vm": "ml/b", "type": "A10-4Q"}]
    names = ["headroom", "unserved", "disturbed", "gpus", "nodes", "profiles", "else"]
    gpus = [
        gpu(changed=True, types={}, mode="unused", disturbed=["ml/c"]),
        gpu(changed=True, types={"A10-8Q": 3}, free={"A10-8Q": 3}, gpu=None, vendor_device="10DE:2236"),
        gpu(holds=held, free={"A10-4Q": 3}, gpu=None),
    ]
    plan = a_plan(
        *gpus,
        served={"one": 1, "two": 2, "three": 0},
        unserved=[{"demand": "three", "count": 4}],
        objectives=[{"name": name, "value": 1, "bound": 1, "proven": True} for name in names],
        status="time-limit",
        caveats=["One.", "Two."],
    )
    quiet = [gpu(holds=held), gpu(index=1, holds=held[:1], free={"A10-4Q": 1})]
    busy = [gpu(serves=[{"demand": "one", "type": "A10-4Q", "count": 1}]), gpu(index=1)]
    plan["nodes"] += [{"node": "n2", "gpus": quiet}, {"node": "n3", "gpus": busy}]
    assert text(plan) == textwrap.dedent("""\
        vGPU plan. Nothing of it has been applied.

        GPUs     2 of 7 change, 1 freed
        VMs      1 disturbed
        demands  2 of 3 served in full; 4 of 7 vGPUs NOT served
        reached  1 vGPUs short of headroom (proven), 1 vGPUs not served (proven), 1 VMs disturbed (proven),
                 1 GPUs in use (proven), 1 nodes in use (proven), 1 profiles (proven), 1 else (proven)
        TIME ENDED: this is the best plan that was found; give gpufleet_plan_time_limit more seconds to go
                    on

        NODES, before -> after
        n1: 2 of 3 GPUs change
          GPU 0   A10        6 x A10-4Q -> nothing                             FREED
                             disturbs ml/c
          GPU 1   10DE:2236  6 x A10-4Q -> 3 x A10-8Q                          CHANGES
                             idle     3 x A10-8Q
          GPU 2              6 x A10-4Q                                        stays
                             held by  ml/a: 2 x A10-4Q; ml/b: 1 x A10-4Q
                             idle     3 x A10-4Q
        n2: stays as it is (2 GPUs, 2 VMs)
        n3: 0 of 2 GPUs change
          GPU 0   A10        6 x A10-4Q                                        stays
                             serves   one: 1 x A10-4Q
          GPU 1   A10        6 x A10-4Q                                        stays

        NOT SERVED
          three: 4 x vGPU;

        VMs DISTURBED (each has to stop, and gets its vGPU again where `again` names it)
          n1 GPU 0: ml/c

        GPUs FREED
          n1 GPU 0

        KNOW THIS FIRST
          - One.
          - Two.
        """)


def test_what_does_not_fit_into_its_column_gets_a_line_of_its_own_and_is_not_cut() -> None:
    def shown(length: int) -> list[str]:
        return text(a_plan(gpu(changed=True, before=None, types={"x" * length: 1}, gpu="A10"))).splitlines()

    start = next(number for number, line in enumerate(shown(31)) if line.startswith("  GPU 0"))
    assert shown(31)[start] == f"  GPU 0   A10        not known -> 1 x {'x' * 31}  CHANGES"
    assert shown(32)[start : start + 2] == [f"  GPU 0   A10 not known -> 1 x {'x' * 32}", f"{' ' * 21}CHANGES"]
    assert any("x" * 120 in line for line in shown(120))
    assert _plan_text.WIDTH == 100


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    shown = text(
        a_plan(
            gpu(mode="keep", before=None, types={}),
            gpu(changed=True, before=None),
            gpu(serves=[{"demand": "w", "type": "A10-4Q", "count": 1}]),
        )
    )
    assert "GPU 0   A10        not known" in shown
    assert "GPU 1   A10        not known -> 6 x A10-4Q" in shown


def test_a_plan_that_ran_out_of_time_says_so_at_the_top() -> None:
    objectives = [{"name": "unserved", "value": 3, "bound": 1, "proven": False}]
    head = text(a_plan(gpu(), status="time-limit", objectives=objectives)).split("NODES")[0]
    assert "3 vGPUs not served (NOT proven, at least 1)" in head
    assert "TIME ENDED:" in head and "gpufleet_plan_time_limit" in head
    assert "TIME ENDED" not in text(a_plan(gpu(), status="optimal"))


def test_all_lines_fit_100_columns_and_no_name_is_cut() -> None:
    vms = [f"desktops-of-the-engineering-department/workstation-{number:03}" for number in range(40)]
    many = {f"A10-{size}Q": 1 for size in (1, 2, 3, 4, 6, 8, 12, 24)}
    shown = text(
        a_plan(
            gpu(changed=True, before=many, types=many, disturbed=vms, serves=[{"demand": vm, "type": "A10-4Q", "count": 1} for vm in vms]),
            gpu(holds=[{"vm": vm, "type": "A10-4Q"} for vm in vms], free=many),
            unserved=[{"demand": vm, "count": 1, "type": "A10-4Q", "why": "why " * 60} for vm in vms],
            caveats=["word " * 80],
        )
    )
    assert max(len(line) for line in shown.splitlines()) <= _plan_text.WIDTH
    assert not any(line != line.rstrip() for line in shown.splitlines())
    assert all(shown.count(vm) >= 4 for vm in vms)


def test_the_documented_example_runs() -> None:
    [task] = yaml.safe_load(yaml.safe_load((DOCUMENTED / "vgpu_plan_text.yml").read_text(encoding="utf-8"))["EXAMPLES"])
    assert "GPU 0   A10        2 x A10-12Q -> 6 x A10-4Q" in text(task["vars"]["plan"])


# ------------------------------------------------------------------ what a plan is


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((), 7, "the plan is 7; it is a mapping"),
        (("version",), 2, "version is 2; this release reads version 1"),
        (("nodes",), None, "nodes is None; it is a list"),
        (("nodes", 0), "n1", r"nodes\[0\] is 'n1'; it is a mapping"),
        (("nodes", 0, "node"), None, r"nodes\[0\], node is None; that is no value for it"),
        (("nodes", 1, "node"), "gpu01", "nodes is 'gpu01'; the node is there twice"),
        (("nodes", 0, "gpus"), {}, r"nodes\[0\], gpus is {}"),
        (("nodes", 0, "gpus", 1), 5, r"node gpu01, gpus\[1\] is 5; it is a mapping"),
        (("nodes", 0, "gpus", 0, "index"), "0", r"gpus\[0\], index is '0'; it is the number of the GPU"),
        (("nodes", 0, "gpus", 0, "index"), True, "index is True"),
        (("nodes", 0, "gpus", 1, "index"), 0, "index is 0; another GPU of the node has it"),
        (("nodes", 0, "gpus", 0, "mode"), 7, "mode is 7; it is one of"),
        (("nodes", 0, "gpus", 0, "mode"), None, "mode is None; it is one of equal, mixed, keep, unused"),
        (("nodes", 0, "gpus", 0, "types"), None, "types is None; it maps a type to how many"),
        (("nodes", 0, "gpus", 0, "types"), {"A10-4Q": -1}, "types, A10-4Q is -1; it is a whole number from 0 on"),
        (("nodes", 0, "gpus", 0, "types"), {"A10-4Q": True}, "types, A10-4Q is True"),
        (("nodes", 0, "gpus", 0, "types"), {"A10-4Q": 1.0}, "types, A10-4Q is 1.0"),
        (("nodes", 0, "gpus", 0, "types"), {4: 1}, "types, 4 is 1"),
        (("nodes", 0, "gpus", 0, "before"), [], r"before is \[\]; it maps a type"),
        (("nodes", 0, "gpus", 0, "serves"), [{"demand": "a", "type": "b", "count": "1"}], r"serves\[0\], count is '1'; that is no value"),
        (("nodes", 0, "gpus", 0, "serves"), [{"demand": "a", "type": "b", "count": True}], r"serves\[0\], count is True"),
        (("nodes", 0, "gpus", 0, "serves"), [{"type": "b", "count": 1}], r"serves\[0\], demand is None"),
        (("nodes", 0, "gpus", 0, "serves"), [{"demand": "a", "count": 1}], r"serves\[0\], type is None"),
        (("nodes", 0, "gpus", 0, "holds"), [{"vm": "a"}], r"holds\[0\], type is None"),
        (("nodes", 0, "gpus", 0, "holds"), [{"type": "a"}], r"holds\[0\], vm is None"),
        (("nodes", 0, "gpus", 0, "placements"), [{"id": 0}], r"placements\[0\], size_gb is None"),
        (("nodes", 0, "gpus", 0, "placements"), [{"size_gb": 0}], r"placements\[0\], id is None"),
        (("nodes", 0, "gpus", 0, "disturbed"), "ml/a", "disturbed is 'ml/a'; it is a list of VMs"),
        (("served",), {"web": -1}, "served, web is -1"),
        (("unserved",), [{"demand": "web"}], r"unserved\[0\], count is None"),
        (("unserved",), [{"count": 1}], r"unserved\[0\], demand is None"),
        (("objectives",), [{"name": "gpus", "value": 1, "bound": 1, "proven": 1}], r"objectives\[0\], proven is 1"),
        (("objectives",), [{"name": "gpus", "value": 1, "bound": None, "proven": True}], r"objectives\[0\], bound is None"),
        (("objectives",), [{"name": "gpus", "value": None, "bound": 1, "proven": True}], r"objectives\[0\], value is None"),
        (("objectives",), [{"name": None, "value": 1, "bound": 1, "proven": True}], r"objectives\[0\], name is None"),
        (("caveats",), "none", "caveats is 'none'; it is a list of sentences"),
    ],
)
def test_what_is_no_plan_is_named(plan: dict[str, t.Any], path: tuple[t.Any, ...], value: t.Any, said: str) -> None:
    broken = copy.deepcopy(plan)
    place: t.Any = broken
    for key in path[:-1]:
        place = place[key]
    if path:
        place[path[-1]] = value
    else:
        broken = value
    with pytest.raises(ValueError, match=rf"^reading a plan: .*{said}.*\. Give what vgpu_plan returned, or its JSON$"):
        _plan_shape.check(broken)


def test_what_is_no_plan_is_an_error_of_the_filter() -> None:
    with pytest.raises(AnsibleFilterError, match="vgpu_plan_text: reading a plan: version is 2"):
        text({"version": 2, "nodes": []})


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(ValueError, match=rf"the plan is '{'x' * 56}\.\.\.; it is"):
        _plan_shape.check("x" * 59)
    with pytest.raises(ValueError, match=f"the plan is '{'x' * 58}'; it is"):
        _plan_shape.check("x" * 58)


def test_a_plan_is_read_node_by_node_and_needs_only_what_says_what_is_made(plan: dict[str, t.Any]) -> None:
    assert _plan_shape.check(plan) == [(node["node"], node["gpus"]) for node in plan["nodes"]]
    least = {"index": 0, "mode": "unused", "types": {}}
    assert _plan_shape.check({"version": 1, "nodes": [{"node": "n1", "gpus": [least]}]}) == [("n1", [least])]
    whole = {"name": "gpus", "value": 1.5, "bound": 1, "proven": False}
    assert _plan_shape.check({"version": 1, "nodes": [], "objectives": [whole], "unserved": [], "served": {"web": 0}}) == []


# ------------------------------------------------------------------ the file with the demands


@pytest.mark.parametrize(
    "content",
    [
        "- {name: web, type: A10-4Q, count: 2}\n",
        "# what we need\ndemands:\n  - name: web\n    type: A10-4Q\n    count: 2\n",
        '[{"name": "web", "type": "A10-4Q", "count": 2}]',
    ],
)
def test_demands_are_read_from_yaml_and_json(content: str) -> None:
    assert demands(content, "d.yml") == [{"name": "web", "type": "A10-4Q", "count": 2}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it holds no demand. Write a list such as - {name: desktops"),
        ("[]", "it holds no demand"),
        ("demands:\n", "it holds no demand"),
        ("demands: 5\n", "it holds 5, and a list is needed"),
        ("name: web\n", "it holds {'name': 'web'}, and a list is needed"),
        ("demands: []\nother: 1\n", "it holds {'demands': [], 'other': 1}, and a list is needed"),
        ("- web\n- {name: db}\n", "its entry 1 is 'web', and a mapping is needed"),
        ("- {name: db}\n- 5\n", "its entry 2 is 5"),
        ("- {name: web, name: db}\n", "it is neither YAML nor JSON: line 1, column 15: the key 'name' is there twice"),
        ("- {name: web\n", "it is neither YAML nor JSON: line 2, column 1: expected ',' or '}', but got '<stream end>'. Correct it there"),
        ("- a\x01", "it is neither YAML nor JSON: unacceptable character #x0001: special characters are not allowed in "),
        ("- {name: web, node_labels: {a: 1, a: 2}}\n", "it is neither YAML nor JSON: line 1, column 35: the key 'a' is there twice"),
        (f"- {'x' * 58}\n", f"its entry 1 is '{'x' * 58}', and"),
        (f"- {'x' * 59}\n", f"its entry 1 is '{'x' * 56}..., and"),
        ("- !!python/object:os.system {}\n", "it is neither YAML nor JSON: line 1, column 3: could not determine a constructor"),
        ("- {[a]: 1}\n", "it is neither YAML nor JSON: "),
        ("\t- x", "it is neither YAML nor JSON: "),
        ("- {name: 2026-13-01}\n", "it is neither YAML nor JSON: month must be in 1..12"),
        ("- {name: 0x_}\n", "it is neither YAML nor JSON: invalid literal for int()"),
    ],
)
def test_a_wrong_file_is_named(content: str, said: str) -> None:
    with pytest.raises(AnsibleFilterError) as error:
        demands(content, "/srv/d.yml")
    assert str(error.value).startswith(f"vgpu_demands: reading the demands, /srv/d.yml: {said}")
    assert str(error.value).endswith("Nothing was planned")
