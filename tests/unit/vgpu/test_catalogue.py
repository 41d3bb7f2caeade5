# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The catalogue: what its rules derive is, row by row, the table it was made from; and a GPU is found by what people call it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import tomllib
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _derive
from tests.vgpu.gpus import table

GPUS = {gpu.family: gpu for gpu in _catalogue.gpus()}
FILE = Path(_catalogue.__file__).with_name("catalogue.toml")

# The derivation


@pytest.mark.parametrize("row", table()["gpus"], ids=lambda row: row["family"])
def test_a_gpu_is_that_of_the_table(row):
    gpu = GPUS[row["family"]]
    assert {
        "family": gpu.family,
        "product": gpu.product,
        "architecture": gpu.architecture,
        "framebuffer_gb": gpu.framebuffer_gb,
        "gpus_per_board": gpu.gpus_per_board,
        "pci": [{"device": pci.device, "filter": pci.filter, "subsystems": [list(board) for board in pci.subsystems]} for pci in gpu.pci],
        "sriov": gpu.sriov,
        "mig_capable": gpu.mig_capable,
        "mdev_name_prefix": gpu.prefix,
        "mixed_size_rule": gpu.mixed_rule,
        "equal_size_placement_ids": gpu.equal_size_ids,
    } == {key: value for key, value in row.items() if key not in ("types", "placement_ids_mixed")}
    assert not gpu.legacy


@pytest.mark.parametrize("row", table()["gpus"], ids=lambda row: row["family"])
def test_every_type_of_a_gpu_is_that_of_the_table_in_every_field(row):
    series, display = table()["series"], table()["display"]
    derived = []
    for kind in GPUS[row["family"]].types:
        sliced = {"gpu_instance_profile": kind.mig_profile, "gpu_instances_per_gpu": kind.mig_instances, "max_per_gpu": kind.most}
        found = {
            "name": kind.name,
            "series": kind.series,
            "framebuffer_gb": kind.size_gb,
            "vgpu_type_id": kind.type_id,
            "max_src": kind.evidence,
            "src": kind.sources,
            "partition_flag": kind.partition_flag,
            "guest_pci_subsystem_id": kind.guest_subsystem,
            **(sliced if kind.slices else {"max_equal_size": kind.most}),
        }
        derived.append({key: value for key, value in found.items() if value is not None})
        assert kind.slices == (int(kind.name.rpartition("-")[0].rpartition("-")[2]) if "max_per_gpu" in found else 0)
        limits = display["Q_1GB" if kind.series == "Q" and kind.size_gb == 1 else kind.series]
        assert {"heads": kind.display.heads, "max_resolution": kind.display.max_resolution, "frl": kind.display.frl} == limits
        assert kind.licence == series[kind.series]["license"]
        assert kind.framebuffer_mib == 1024 * kind.size_gb
    assert derived == row["types"]


def test_the_table_and_the_catalogue_have_the_same_gpus_and_as_many_types():
    current = [gpu for gpu in _catalogue.gpus() if not gpu.legacy]
    assert [gpu.family for gpu in current] == [row["family"] for row in table()["gpus"]]
    counts = (len(current), sum(len(gpu.types) for gpu in current))
    assert counts == (55, 1037) == tuple(table()["about"]["counts"].values())


def test_legacy_gpus_are_marked_and_have_the_figures_of_the_table():
    legacy = [gpu for gpu in _catalogue.gpus() if gpu.legacy]
    assert [
        {
            "family": gpu.family,
            "pci_device": gpu.pci[0].device,
            "mdev_name_prefix": gpu.prefix,
            "types": {kind.name: kind.most for kind in gpu.types},
        }
        for gpu in legacy
    ] == table()["legacy_gpus"]
    assert GPUS["M60"].by_name["M60-0Q"].framebuffer_mib == 512
    assert {_catalogue.evidence(kind) for gpu in legacy for kind in gpu.types} == {"printed by source L"}


def test_the_stock_configuration_is_that_of_the_table():
    patterns = [[f"0x{device}10DE", kind, count] for device, kind, count in _catalogue.default_config()]
    assert patterns == table()["default_config"]
    aliases = {name: max(_most(kind)) for name, kind in _catalogue.stock_aliases().items()}
    assert aliases == table()["config_aliases_gfx"]
    limits = table()["limits"]
    assert _catalogue.limits() == {
        "per_gpu": limits["max_vgpu_per_gpu"],
        "per_gpu_time_sliced": limits["max_vgpu_per_gpu_non_mig"],
        "per_gpu_instance": limits["max_vgpu_per_gi"],
        "per_vm": limits["max_vgpu_per_vm"],
    }


def _most(kind):
    return [gpu.by_name[kind].most for gpu in _catalogue.gpus() if kind in gpu.by_name]


def test_every_figure_says_where_it_comes_from():
    rows = [kind for gpu in _catalogue.gpus() for kind in gpu.types]
    assert {_catalogue.evidence(kind) for kind in rows} <= {*table()["max_src_codes"].values(), "printed by source L"}
    assert all(_catalogue.sources(kind) for kind in rows)
    assert _catalogue.sources(GPUS["A10"].by_name["A10-4Q"]) == [table()["source_codes"][letter] for letter in "VNW"]


def _wrong(change):
    tables = copy.deepcopy(tomllib.loads(FILE.read_text(encoding="utf-8")))
    change(tables["gpu"]["A10"])
    return tables


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda gpu: gpu["type_ids"].update(Q="590-596"), "A10: type_ids of Q: 7 numbers for 8 types (1Q, 2Q"),
        (lambda gpu: gpu["guest_ids"].update(B="14b6-14b9"), "A10: guest_ids of B: 4 numbers for 3 types"),
    ],
)
def test_numbers_that_do_not_go_with_the_types_are_an_error_that_names_the_entry(change, words):
    with pytest.raises(ValueError, match=r"^Reading the catalogue: ") as caught:
        _derive.gpus(_wrong(change))
    assert words in str(caught.value)


# Finding a GPU


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("A10", ["A10", "a10", "NVIDIA A10", " nvidia  a10 ", "10DE:2236", "10de:2236", "2236", "0x2236", "0x223610DE", "2236:1482"]),
        ("RTX6000-Ada", ["RTX 6000 Ada", "RTX6000-Ada", "rtx6000ada", "NVIDIA RTX 6000 Ada Generation", "10DE:26B1", "26B1:1028:16A1"]),
        ("DC-96", ["RTX PRO 6000", "RTX PRO 6000 BSE", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "dc-96", "0x2bb5"]),
        ("DC-32", ["RTX PRO 4500", "RTXPRO4500BSE", "10DE:2C3A"]),
        ("RTXA6000", ["RTXA6000", "RTX A6000", "A6000", "NVIDIA RTX A6000"]),
        ("A16", ["A16", "25B6:14A9", "10DE:25B6:10DE:14A9", "0x25B610DE:0x14A910DE", "0x25b610de:0x14a910de"]),
        ("A2", ["A2", "NVIDIA A2", "25B6:157E", "10DE:25B6/157e"]),
        ("RTX6000P", ["1E78:13D9", "Quadro RTX 6000 (passive)", "RTX6000P"]),
        ("RTX6000", ["RTX6000"]),
        # The code of the NVL board, and the driver's name of the SXM board.
        ("H200", ["H200", "H200 NVL", "NVIDIA H200 NVL", "233B"]),
        ("H200X", ["NVIDIA H200", "H200X", "H200 SXM"]),
        ("H100XM", ["H100 SXM5 80GB", "NVIDIA H100 80GB HBM3", "10DE:2330", "10DE:2336"]),
        ("GH200", ["NVIDIA GH200 480GB", "GH200"]),
        ("A100DX", ["A100 SXM4 80GB", "A100-SXM4-80GB"]),
        ("T4", ["Tesla T4", "t4"]),
    ],
)
def test_a_gpu_is_found_by_each_of_its_names(family, names):
    assert [_catalogue.find(name).family for name in names] == [family] * len(names)


def test_every_gpu_is_found_by_its_code_its_driver_name_and_its_ids():
    for gpu in _catalogue.gpus():
        assert _catalogue.find(gpu.family) is gpu
        for pci in gpu.pci:
            boards = pci.subsystems if pci.needs_subsystem else ()
            if not boards and len(_catalogue.at(pci.device)) == 1:
                assert _catalogue.find(f"10DE:{pci.device}") is gpu and _catalogue.find(pci.filter) is gpu
            for board, _product in boards:
                assert _catalogue.find(f"10DE:{pci.device}", board) is gpu and _catalogue.find(pci.filter) is gpu


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("25B6", ["A2 (NVIDIA A2)", "A16 (NVIDIA A16)", "25B6:14A9", "25B6:157E"]),
        ("10DE:25B6:10DE:FFFF", ["A2 (NVIDIA A2)", "10DE:FFFF is the subsystem of none of them", "25B6:14A9"]),
        ("0x1E78", ["RTX6000P", "RTX8000P", "1E78:13D8", "1E78:13D9"]),
        ("1E30", ["RTX6000 (Quadro RTX 6000)", "RTX8000 (Quadro RTX 8000)", "write the model"]),
        ("DC", ["DC-96", "DC-32"]),
        ("RTX 6000", ["RTX6000P", "RTX6000-Ada", "DC-96", "Write one of these"]),
        ("A100 80GB", ["A100D (", "A100DX ("]),
        ("A11", ["no vGPU types are known", "A10", "A16"]),
        ("RTX A7000", ["no vGPU types are known", "RTXA6000"]),
        ("NVIDIA GeForce RTX 4090", ["no vGPU types are known", "only be passed through whole"]),
        ("10DE:2684", ["no vGPU types are known", "10DE:2684", "only be passed through whole"]),
        ("10DE:2237X", ["no vGPU types are known"]),
        ("A10-4Q", ["is a vGPU type, not a GPU"]),
        ("RTX6000-Ada-4Q", ["is a vGPU type, not a GPU"]),
        ("", ["is no GPU"]),
        (None, ["is no GPU"]),
        (["A10"], ["is no GPU"]),
        ("NVIDIA", ["no vGPU types are known"]),
    ],
)
def test_a_name_of_none_or_of_several_says_which_may_be_meant(name, words):
    with pytest.raises(ValueError) as caught:
        _catalogue.find(name)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_gpu_that_only_can_be_passed_through_gets_no_other_gpu_s_name():
    with pytest.raises(ValueError) as caught:
        _catalogue.find("GeForce RTX 4090")
    assert "nearest" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=20))
def test_any_text_is_a_gpu_or_a_reason(text):
    try:
        assert _catalogue.find(text) in _catalogue.gpus()
    except ValueError as error:
        assert repr(text) in str(error)


def test_a_board_of_a_shared_id_is_found_by_its_subsystem_and_else_all_are():
    assert [gpu.family for gpu in _catalogue.at("10DE:25B6", "10DE:14A9")] == ["A16"]
    assert [gpu.family for gpu in _catalogue.at("10de:25b6", "10DE:0001")] == ["A2", "A16"]
    assert [gpu.family for gpu in _catalogue.at("10DE:2236", "1028:0001")] == ["A10"]
    assert _catalogue.at("10DE:2684") == ()
