# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The profile calculator: every question, every way to name a GPU, the shape of the answer, and what is refused in which words."""

from __future__ import annotations

import copy
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.filter import vgpu_plan_page, vgpu_profile_calc
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _calc, _catalogue, _gpu_fits, _host_gpu, _mig
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._calc import profile_calc
from tests.vgpu import plans
from tests.vgpu.gpus import table

DOCS = Path(vgpu_profile_calc.__file__ or "").with_suffix(".yml")
A10 = {
    "address": "0000:41:00.0",
    "vendor_device": "10DE:2236",
    "subsystem": "10DE:1482",
    "class": "0302",
    "vgpu": {
        "backend": "mdev",
        "why": None,
        "types": [
            {"id": "nvidia-593", "name": "ACME A10-4Q", "plain": "A10-4Q", "available": 4},
            {"id": "nvidia-594", "name": "ACME A10-6Q"},
        ],
    },
    "mig": {"mode": None, "instances": None},
}


def entry(**changes: t.Any) -> dict[str, t.Any]:
    return {**copy.deepcopy(A10), **changes}


def test_the_answer_about_a_type_is_whole():
    assert profile_calc("L4", type="L4-12Q") == {
        "gpu": "L4",
        "type": "L4-12Q",
        "max": {"equal": 2, "mixed": 2},
        "framebuffer_mib": 12288,
        "licence": "NVIDIA RTX vWS",
        "names": {
            "plain": "L4-12Q",
            "mdev": "NVIDIA L4-12Q",
            "resource": "nvidia.com/NVIDIA_L4-12Q",
            "selector": "NVIDIA L4-12Q",
        },
        "fits": True,
        "why_not": "",
        "mixes": [{"L4-12Q": 2}],
        "placement_ids": {
            "mode": "equal",
            "order": "any",
            "required": False,
            "placements": [{"type": "L4-12Q", "id": 0, "size_gb": 12}, {"type": "L4-12Q", "id": 12, "size_gb": 12}],
            "equal": [0, 12],
            "mixed": [0, 12],
        },
        "caveats": [_calc.NAMES_FROM_HOST],
    }


@pytest.mark.parametrize("question", [{"type": "A10-4Q"}, {"vms": 30}, {"mix": {"A10-4Q": 3, "A10-6Q": 2}}, {"mix": {"A10-4Q": 1}}])
def test_every_answer_has_the_documented_keys(question):
    documented = yaml.safe_load(DOCS.read_text())["RETURN"]["_value"]["contains"]
    assert list(profile_calc("A10", **question)) == list(documented)


@pytest.mark.parametrize("family", [gpu.family for gpu in _catalogue.gpus()])
def test_every_type_of_every_gpu_is_answered_with_the_figures_of_the_table(family):
    rows = {row["name"]: row for gpu in table()["gpus"] if gpu["family"] == family for row in gpu["types"]}
    for kind in _catalogue.find(family).types:
        found = profile_calc(family, type=kind.name)
        assert found["fits"] and len(found["placement_ids"]["placements"]) == kind.most
        if kind.name in rows:
            row = rows[kind.name]
            assert found["max"]["equal"] == (row.get("max_equal_size") or row["max_per_gpu"])
            assert found["framebuffer_mib"] == 1024 * row["framebuffer_gb"]
            assert found["licence"] == table()["series"][row["series"]]["license"]


@pytest.mark.parametrize(
    "given",
    ["A10", "NVIDIA A10", "10DE:2236", "10de:2236", "2236", "0x223610DE", "10DE:2236:10DE:1482", A10],
    ids=lambda given: str(given)[:20],
)
def test_a_gpu_is_a_model_a_pci_id_or_an_entry_of_a_host(given):
    assert profile_calc(given, type="A10-4Q")["gpu"] == "A10"


@pytest.mark.parametrize("spelled", ["A10-4Q", "NVIDIA A10-4Q", "nvidia.com/NVIDIA_A10-4Q", "NVIDIA_A10-4Q", "nvidia_a10-4q"])
def test_a_type_is_known_in_every_spelling(spelled):
    assert profile_calc("A10", type=spelled)["type"] == "A10-4Q"
    assert profile_calc("A10", mix={spelled: 2})["mixes"] == [{"A10-4Q": 2}]


def test_a_stock_alias_stands_for_its_type():
    assert profile_calc("DC-96", type="DC-1-2QGFX")["type"] == "DC-1-2Q"


@pytest.mark.parametrize(
    ("gpu", "question", "kind"),
    [
        ("A10", {"size_gb": 4}, "A10-4Q"),
        ("A10", {"size_gb": 4, "series": "c"}, "A10-4C"),
        ("A100", {"size_gb": 20}, "A100-20C"),
        ("DC-96", {"size_gb": 2}, "DC-2B"),
        ("M60", {"size_gb": 0}, "M60-0Q"),
        ("A10", {"vms": 1}, "A10-24Q"),
        ("A10", {"vms": 5}, "A10-4Q"),
        ("A10", {"vms": 5, "series": "C"}, "A10-4C"),
        ("A100", {"vms": 3}, "A100-10C"),
        ("L40S", {"vms": 32}, "L40S-1Q"),
    ],
)
def test_a_size_or_a_number_of_vms_finds_its_type(gpu, question, kind):
    found = profile_calc(gpu, **question)
    assert found["type"] == kind and found["fits"]


def test_more_vms_than_any_type_serves_get_the_most_there_are():
    found = profile_calc("L40S", vms=33)
    assert (found["fits"], found["type"], found["mixes"]) == (False, "L40S-1Q", [{"L40S-1Q": 32}])
    assert found["why_not"] == "33 x 1 GB were asked for, and L40S holds at most 32 of this size"


def test_vms_list_every_type_that_is_enough():
    assert profile_calc("A10", vms=5)["mixes"] == [{"A10-4Q": 6}, {"A10-3Q": 8}, {"A10-2Q": 12}, {"A10-1Q": 24}]


def test_a_mix_of_several_types_is_answered_by_type():
    found = profile_calc("L40S", mix={"L40S-24Q": 1, "L40S-8Q": 2, "L40S-4Q": 2})
    assert found["type"] is None and found["fits"] and list(found["max"]) == ["L40S-24Q", "L40S-8Q", "L40S-4Q"]
    assert found["max"]["L40S-8Q"] == {"equal": 6, "mixed": 4} and found["names"]["L40S-4Q"]["plain"] == "L40S-4Q"
    assert [(one["type"], one["id"]) for one in found["placement_ids"]["placements"]] == [
        ("L40S-24Q", 0),
        ("L40S-8Q", 24),
        ("L40S-8Q", 40),
        ("L40S-4Q", 32),
        ("L40S-4Q", 36),
    ]
    assert found["placement_ids"]["order"] == "largest-first" and not found["placement_ids"]["required"]


def test_a_mix_that_only_placement_ids_reach_says_that_they_are_required():
    found = profile_calc("DC-96", mix={"DC-48Q": 1, "DC-32Q": 1, "DC-8Q": 1, "DC-6Q": 1})
    assert found["fits"] and found["placement_ids"]["required"]


@pytest.mark.parametrize(
    ("gpu", "mix", "why", "nearest"),
    [
        ("A10", {"A10-4Q": 3, "A10-6Q": 2}, "places that the driver has for these sizes overlap", {"A10-6Q": 2, "A10-4Q": 2}),
        ("T4", {"T4-8Q": 1, "T4-4Q": 1}, "T4 (turing) has no mixed-size mode", {"T4-8Q": 1}),
        ("DC-96", {"DC-48Q": 1, "DC-1-24Q": 1}, "never share a GPU", {"DC-48Q": 1}),
        ("A100", {"A100-3-20C": 2, "A100-1-5C": 1}, "do not fit beside each other", {"A100-3-20C": 2}),
    ],
)
def test_a_mix_that_does_not_fit_has_a_reason_and_the_nearest(gpu, mix, why, nearest):
    found = profile_calc(gpu, mix=mix)
    assert not found["fits"] and why in found["why_not"] and found["mixes"][0] == nearest
    assert found["placement_ids"]["placements"] == []


@pytest.mark.parametrize(
    ("gpu", "question", "caveat"),
    [
        ("A10", {"type": "A10-4Q"}, _calc.NAMES_FROM_HOST),
        ("RTX PRO 4500", {"type": "DC-16Q"}, _calc.NO_NAME),
        ("A10", {"type": "A10-2B"}, "A10-2B is not in NVIDIA's stock configuration"),
        ("A10", {"type": "A10-2B"}, "of this size it has A10-2Q"),
        ("A10G", {"type": "A10G-4Q"}, "A10G-4Q is not in NVIDIA's stock configuration"),
        ("A10", {"type": "A10-2B"}, "[C] A10-2B: its maximum is taken from the type of another series"),
        ("A10G", {"type": "A10G-4Q"}, "[C] A10G-4Q: its maximum is computed from its size"),
        ("DC-96", {"type": "DC-1-2A"}, "[C] DC-1-2A: its maximum is computed from the size of a GPU instance"),
        ("DC-32", {"type": "DC-1-8C"}, "[X] DC-1-8C"),
        ("DC-96", {"type": "DC-1-2Q"}, _mig.SHARED),
        ("A100", {"mix": {"A100-3-20C": 1, "A100-1-5C": 1}}, _mig.UNPROVEN),
        ("L4", {"mix": {"L4-8Q": 1, "L4-8C": 1}}, _gpu_fits.SERIES_SHARE),
        ("A10", {"mix": {"A10-8Q": 1, "A10-6Q": 1}}, _gpu_fits.MIXED_SIZE),
        ("A10", {"mix": {"A10-8Q": 1, "A10-6Q": 1}}, _gpu_fits.COMPUTED),
        ("A16", {"type": "A16-8Q"}, "A board has 4 GPUs; all figures are of one GPU."),
        ("M60", {"type": "M60-4Q"}, "M60 is a GPU of old vGPU releases"),
    ],
)
def test_how_far_an_answer_is_proven_stands_in_its_caveats(gpu, question, caveat):
    assert any(caveat in said for said in profile_calc(gpu, **question)["caveats"])


def test_an_answer_without_doubt_has_only_the_caveat_about_names():
    assert profile_calc("A100", type="A100-1-5C")["caveats"] == [_calc.NAMES_FROM_HOST]


def test_names_of_a_host_are_its_own():
    found = profile_calc(A10, type="A10-4Q")
    assert found["names"] == {
        "plain": "A10-4Q",
        "mdev": "ACME A10-4Q",
        "resource": "nvidia.com/ACME_A10-4Q",
        "selector": "ACME A10-4Q",
    }
    assert found["caveats"] == []


@pytest.mark.parametrize(
    ("changes", "question", "caveat"),
    [
        ({}, {"type": "A10-8Q"}, "The host does not list A10-8Q now, it lists A10-4Q, A10-6Q"),
        (
            {"vgpu": {"backend": "none", "why": "no vGPU driver", "types": []}},
            {"type": "A10-4Q"},
            "makes no vGPUs of this GPU now: no vGPU driver.",
        ),
        ({"vgpu": {"backend": "none", "types": []}}, {"type": "A10-4Q"}, _calc.NAMES_FROM_HOST),
        ({"vgpu": {"backend": "mdev", "types": ["x", {}]}}, {"type": "A10-4Q"}, _calc.NAMES_FROM_HOST),
        ({"vgpu": "x", "mig": 3}, {"type": "A10-4Q"}, _calc.NAMES_FROM_HOST),
        ({"vgpu": None}, {"type": "A10-4Q"}, _calc.NAMES_FROM_HOST),
        ({"vendor_device": "10DE:20F1", "mig": {"mode": True}}, {"type": "A100-4C"}, "MIG mode of this GPU is on now, and has to be off."),
        (
            {"vendor_device": "10DE:20F1", "mig": {"mode": False}},
            {"type": "A100-1-5C"},
            "MIG mode of this GPU is off now, and has to be on.",
        ),
    ],
)
def test_what_a_host_says_is_compared_with_the_catalogue(changes, question, caveat):
    assert any(caveat in said for said in profile_calc(entry(**changes), **question)["caveats"])


def test_on_vendor_vfio_the_selector_is_the_pci_id_and_the_resource_is_free():
    found = profile_calc(entry(vgpu={**A10["vgpu"], "backend": "vendor_vfio"}), type="A10-4Q")
    assert found["names"] == {"plain": "A10-4Q", "mdev": "ACME A10-4Q", "resource": None, "selector": "10DE:2236"}
    assert found["caveats"] == [_calc.BY_PCI_ID]


@pytest.mark.parametrize(
    ("gpu", "question", "error"),
    [
        ("A10", {}, "nothing was given: give one of type, size_gb, vms and mix"),
        ("A10", {"type": "A10-4Q", "vms": 2}, "type and vms were given: give one of"),
        ("A10", {"type": "A10-4Q", "series": "Q"}, "series goes with size_gb or vms"),
        ("A10", {"type": "A10-5Q"}, "'A10-5Q' is no vGPU type of A10: no GPU has it. The nearest of A10 are A10-4Q, A10-6Q"),
        ("A10", {"type": "L4-4Q"}, "'L4-4Q' is no vGPU type of A10: it is one of L4. The nearest of A10 are A10-4Q"),
        ("A10", {"type": "A10-4B"}, "'A10-4B' is no vGPU type of A10"),
        ("A10", {"type": 4}, "4 is no vGPU type: write one as A10-"),
        ("A10", {"size_gb": 5}, "has no type of 5 GB of any series; the nearest sizes are 3, 4, 6 GB"),
        ("A10", {"size_gb": 4, "series": "B"}, "has no type of 4 GB of series B; the nearest sizes are 1, 2, 3 GB"),
        ("A10", {"size_gb": -1}, "size_gb is -1: write a whole number from 0 on"),
        ("A10", {"size_gb": "4"}, "size_gb is '4': write a whole number"),
        ("A10", {"size_gb": 4, "series": "X"}, "series is 'X': write one of Q, C, B, A"),
        ("A100", {"size_gb": 20, "series": "Q"}, "A100 (NVIDIA A100-PCIE-40GB) has no types of series Q; it has C"),
        ("A10", {"vms": 0}, "vms is 0: write a whole number from 1 on"),
        ("A10", {"vms": True}, "vms is True"),
        ("A10", {"vms": 2.5}, "vms is 2.5"),
        ("A10", {"mix": {}}, "mix is {}: write types with how many of each"),
        ("A10", {"mix": ["A10-4Q"]}, "mix is ['A10-4Q']"),
        ("A10", {"mix": {"A10-4Q": 0}}, "mix, A10-4Q is 0: write a whole number from 1 on"),
        ("A10", {"mix": {"A10-4Q": -1}}, "mix, A10-4Q is -1"),
        ("A10", {"mix": {"A16-4Q": 1}}, "'A16-4Q' is no vGPU type of A10: it is one of A16"),
        ("GeForce RTX 4090", {"type": "A10-4Q"}, "can only be passed through whole"),
        ("10DE:2684", {"vms": 1}, "can only be passed through whole"),
        ("10DE:25B6", {"type": "A16-4Q"}, "2 GPUs have the PCI id 10DE:25B6"),
        ("A11", {"type": "A10-4Q"}, "The nearest with vGPU types are A16 (NVIDIA A16), A10 (NVIDIA A10)"),
        (7, {"type": "A10-4Q"}, "7 is no GPU"),
        (entry(vendor_device="10DE:2684"), {"vms": 1}, "0000:41:00.0 (10DE:2684): '10DE:2684': no vGPU types are known"),
        (entry(vendor_device="10DE:25B6", subsystem=None), {"vms": 1}, "2 GPUs have the PCI id 10DE:25B6"),
        (entry(**{"class": "0680"}), {"vms": 1}, "0000:41:00.0 (10DE:2236) has PCI class 0680 and is no GPU"),
        ({"gpus": []}, {"vms": 1}, "vendor_device of the GPU is None: give a model, a PCI id, or an entry of the list gpus"),
    ],
)
def test_what_cannot_be_answered_is_an_error_with_item_reason_and_what_is_nearest(gpu, question, error):
    with pytest.raises(AnsibleFilterError, match=r"^vgpu_profile_calc: ") as raised:
        vgpu_profile_calc.vgpu_profile_calc(gpu, **question)
    assert error in str(raised.value)


def test_an_option_that_does_not_exist_is_an_error_and_no_traceback():
    with pytest.raises(AnsibleFilterError, match=r"vgpu_profile_calc: .*unexpected keyword argument .size"):
        vgpu_profile_calc.vgpu_profile_calc("A10", size=4)


def test_an_answer_can_be_changed_without_changing_the_next():
    first = profile_calc("A10", type="A10-4Q")
    kept = copy.deepcopy(first)
    first["caveats"].append("mine")
    first["mixes"][0]["A10-4Q"] = 99
    first["placement_ids"]["mixed"].clear()
    assert profile_calc("A10", type="A10-4Q") == kept


def test_a_call_takes_less_than_a_millisecond():
    questions = [("A10", {"type": "A10-4Q"}), ("L40S", {"mix": {"L40S-24Q": 1, "L40S-8Q": 2, "L40S-4Q": 2}}), ("A100", {"vms": 3})]
    for gpu, question in questions:
        profile_calc(gpu, **question)
    started = time.process_time()
    for _run in range(100):
        for gpu, question in questions:
            profile_calc(gpu, **question)
    assert (time.process_time() - started) / 300 < 0.001


def test_the_gpus_of_a_plan_are_found_by_family_else_by_pci_id():
    a16 = {"gpu": None, "vendor_device": "10DE:25B6", "subsystem": "10DE:14A9"}
    found = [_host_gpu.of_plan(entry) for entry in ({"gpu": "A10"}, {"gpu": "DC-96"}, a16, {"gpu": "Z9"}, {})]
    assert [gpu and gpu.family for gpu in found] == ["A10", "DC-96", "A16", None, None]


def test_the_page_filter_draws_a_plan_and_refuses_what_is_none():
    text = vgpu_plan_page.vgpu_plan_page(plans.every_kind())
    assert "75%" in text and "The catalogue does not have this GPU" in text
    with pytest.raises(AnsibleFilterError, match=r"^vgpu_plan_page: reading a plan: version is None"):
        vgpu_plan_page.vgpu_plan_page({})
