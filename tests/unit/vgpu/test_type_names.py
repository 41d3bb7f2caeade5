# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of vGPU types: every spelling is read and made, back and forth; what is none, or of two GPUs, says so."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _type_names, _types
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._type_names import TypeName, parse

EVERY = [(gpu, kind) for gpu in _catalogue.gpus() for kind in gpu.types]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A10-4Q", TypeName("A10", 4, "Q")),
        ("NVIDIA A10-4Q", TypeName("A10", 4, "Q", brand="NVIDIA")),
        ("NVIDIA_A10-4Q", TypeName("A10", 4, "Q", brand="NVIDIA")),
        ("nvidia.com/NVIDIA_A10-4Q", TypeName("A10", 4, "Q", brand="NVIDIA")),
        (" GRID  T4-8Q\n", TypeName("T4", 8, "Q", brand="GRID")),
        ("A100-1-5CME", TypeName("A100", 5, "C", 1, "ME")),
        ("DC-1-2QGFX", TypeName("DC", 2, "Q", 1, "GFX")),
        ("RTX6000-Ada-2Q", TypeName("RTX6000-Ada", 2, "Q")),
        ("nvidia_rtx6000-ada-2q", TypeName("RTX6000-Ada", 2, "Q", brand="nvidia")),
        ("nvidia_l40s-12q", TypeName("L40S", 12, "Q", brand="nvidia")),
        ("nvidia_rtx_pro_6000_blackwell_dc-96q", TypeName("DC", 96, "Q", brand="nvidia rtx pro 6000 blackwell")),
        ("NVIDIA RTX 6000D-84Q", TypeName("6000D", 84, "Q", brand="NVIDIA RTX")),
        ("GRID M60-0Q", TypeName("M60", 0, "Q", brand="GRID")),
        ("GRID T4-2B4", TypeName("T4", 2, "B", brand="GRID", old=True)),
    ],
)
def test_a_name_is_read_in_every_spelling(text, parts):
    assert parse(text) == parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nvidia-592", "number that one host gives"),
        ("592", "number that one host gives"),
        ("12q", "the GPU is missing"),
        ("L40S-48", "the series is missing"),
        ("DC-1-2", "the series is missing"),
        ("RTX6000-Ada-1-2Q", "no types on GPU instances"),
        ("A10-04Q", "a zero in front"),
        ("A10-4X", "write the GPU, the size"),
        ("A10-4QGFX", "write the GPU, the size"),
        ("T4-4B4", "write the GPU, the size"),
        ("nvidia.com/gpu", "write the GPU, the size"),
        ("nvidia.com/", "write the GPU, the size"),
        ("A10-4Q;", "write the GPU, the size"),
        ("", "write one such as"),
        (" \n", "write one such as"),
        (None, "write one such as"),
        (4, "write one such as"),
    ],
)
def test_what_is_no_name_says_why(text, words):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert repr(text) in str(caught.value) and words in str(caught.value)


def test_every_type_is_known_again_in_every_spelling():
    for gpu, kind in EVERY:
        names = _types.spellings(gpu, kind)
        spelled = [names.plain, *names.config_keys]
        if names.mdev:
            spelled += [names.mdev, names.resource, names.selector, names.vsphere, names.resource.partition("/")[2]]
        for text in spelled:
            assert _types.resolve(text, gpu)[:2] == (gpu, kind), text
            assert parse(text).plain == kind.name


def test_a_type_of_two_gpus_needs_the_gpu_or_a_brand_that_says_it():
    shared = {kind.name for gpu, kind in EVERY if sum(kind.name in other.by_name for other in _catalogue.gpus()) > 1}
    assert shared == {name for name in _catalogue.find("DC-32").by_name if name in _catalogue.find("DC-96").by_name}
    for gpu, kind in EVERY:
        if kind.name not in shared:
            assert _types.resolve(kind.name)[:2] == (gpu, kind)
            continue
        with pytest.raises(ValueError, match=r"several GPUs: DC-96 \(.*; at most \d+\), DC-32 \(.*; at most \d+\)\. Say which GPU"):
            _types.resolve(kind.name)
        if gpu.prefix:
            assert _types.resolve(gpu.mdev_name(kind.name))[:2] == (gpu, kind)
            assert _types.resolve(_types.spellings(gpu, kind).vsphere)[:2] == (gpu, kind)


@pytest.mark.parametrize(
    ("text", "gpu", "words"),
    [
        ("A10-5Q", None, ["the nearest are A10-4Q, A10-6Q"]),
        ("A10-1-4Q", None, ["the nearest are A10-4Q"]),
        ("A11-4Q", None, ["A10-4Q"]),
        ("A100-2-10CME", None, ["A100-2-10C"]),
        ("ZZZZZZ-4Q", None, ["no vGPU type that is known"]),
        ("A16-4Q", "A10", ["no vGPU type of A10", "it is one of A16", "A10-4Q"]),
        ("DC-4Q", "DC-32", ["it is one of DC-96", "DC-16Q"]),
        ("A10-5Q", "A10", ["no GPU has it", "A10-4Q, A10-6Q"]),
    ],
)
def test_an_unknown_type_comes_with_the_nearest(text, gpu, words):
    with pytest.raises(ValueError) as caught:
        _types.resolve(text, gpu and _catalogue.find(gpu))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_an_alias_of_the_stock_configuration_is_the_type_without_its_suffix():
    found = _types.resolve("DC-1-2QGFX")
    assert (found.kind.name, found.name.key, found.name.plain) == ("DC-1-2Q", "DC-1-2QGFX", "DC-1-2Q")
    assert _types.spellings(found.gpu, found.kind).config_keys == ("DC-1-2Q", "DC-1-2QGFX")
    assert [parse(f"A100-1-5C{suffix}").plain for suffix in ("", "ME", "NOME", "MEALL")] == ["A100-1-5C", "A100-1-5CME"] + ["A100-1-5C"] * 2
    assert {parse(alias).plain: alias for alias in _catalogue.stock_aliases()} == {v: k for k, v in _catalogue.stock_aliases().items()}


@pytest.mark.parametrize(
    ("gpu", "kind", "mdev", "resource", "vsphere"),
    [
        ("A10", "A10-12Q", "NVIDIA A10-12Q", "nvidia.com/NVIDIA_A10-12Q", "nvidia_a10-12q"),
        ("T4", "T4-8Q", "GRID T4-8Q", "nvidia.com/GRID_T4-8Q", "grid_t4-8q"),
        ("A100D", "A100D-40C", "GRID A100D-40C", "nvidia.com/GRID_A100D-40C", "grid_a100d-40c"),
        (
            "DC-96",
            "DC-96Q",
            "NVIDIA RTX Pro 6000 Blackwell DC-96Q",
            "nvidia.com/NVIDIA_RTX_Pro_6000_Blackwell_DC-96Q",
            "nvidia_rtx_pro_6000_blackwell_dc-96q",
        ),
        ("6000D", "6000D-84Q", "NVIDIA RTX 6000D-84Q", "nvidia.com/NVIDIA_RTX_6000D-84Q", "nvidia_rtx_6000d-84q"),
        ("DC-32", "DC-16Q", None, None, None),
    ],
)
def test_a_type_is_spelled_for_each_place(gpu, kind, mdev, resource, vsphere):
    found = _catalogue.find(gpu)
    names = _types.spellings(found, found.by_name[kind])
    assert (names.plain, names.mdev, names.selector, names.resource, names.vsphere) == (kind, mdev, mdev, resource, vsphere)


def test_every_spelling_is_valid_where_it_goes():
    for gpu, kind in EVERY:
        names = _types.spellings(gpu, kind)
        assert [_names.check_label_value(key) for key in names.config_keys] == list(names.config_keys)
        # Two old types of 1 and 2 GB are in no configuration of the vGPU Device Manager.
        assert all(_type_names.device_manager_reads(key) for key in names.config_keys) is not kind.name.endswith("B4")
        if names.mdev:
            assert names.selector == names.selector.strip()
            assert _type_names.mdev_of(names.resource) == names.mdev == _type_names.mdev_of(names.resource.partition("/")[2])
            assert _device_names.plain_type(names.resource) == kind.name


def test_the_profile_that_the_device_manager_asks_for_is_the_gpu_s_unless_an_instance_is_shared_or_has_graphics():
    wrong = {gpu.family for gpu, kind in EVERY if kind.slices and parse(kind.name).asked_profile != kind.mig_profile}
    assert wrong == {"DC-96", "DC-32", "6000D"}
    assert parse("6000D-1-42QGFX").asked_profile == _catalogue.find("6000D").by_name["6000D-1-42Q"].mig_profile
    assert parse("DC-1-2QGFX").asked_profile == "1g.2gb+gfx" != _catalogue.find("DC-96").by_name["DC-1-2Q"].mig_profile
    assert (parse("A100-1-5CNOME").asked_profile, parse("A100-1-5CMEALL").asked_profile) == ("1g.5gb-me", "1g.5gb+me.all")
    assert parse("A10-4Q").asked_profile is None


NAMES = st.builds(
    lambda code, gb, series, slices, attribute: TypeName(code, gb, series, slices, attribute if slices else ""),
    st.text(alphabet="ABDLX0139", min_size=1, max_size=6).map("R{}".format),
    st.integers(0, 300),
    st.sampled_from("ABCQ"),
    st.integers(0, 9),
    st.sampled_from(["", "ME", *_type_names.ALIASES]),
)


@settings(max_examples=60, deadline=None)
@given(NAMES, st.sampled_from(["", "NVIDIA", "GRID", "NVIDIA RTX Pro 6000 Blackwell"]), st.booleans(), st.booleans())
def test_a_name_that_is_written_is_read_again(name, brand, underscores, lower):
    text = f"{brand} {name.key}".strip()
    text = text.replace(" ", "_") if underscores else text
    found = parse(text.lower() if lower else text)
    assert (found.key, found.plain) == (name.key, name.plain)
    assert found.brand == (brand.lower() if lower else brand)
    assert _type_names.device_manager_reads(found.key)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["A10", "-", "-", "Ada", "0", "1", "12", "Q", "C", "ME", "GFX", "b", "\n"]), max_size=8).map("".join))
def test_the_two_patterns_read_what_the_device_manager_s_read(text):
    sliced = r"^(?P<GPU>[A-Z0-9]+(-([a-zA-Z]+))*)-(?P<GB>0|[1-9][0-9]*)(?P<S>A|B|C|Q)\Z"
    mig = r"^(?P<GPU>[A-Z0-9]+)-(?P<G>[1-9])-(?P<GB>0|[1-9][0-9]*)(?P<S>A|B|C|Q)(?P<ATTR>(ME|NOME|MEALL|GFX))?\Z"
    assert _type_names.device_manager_reads(text) == bool(re.match(sliced, text) or re.match(mig, text))


def test_what_is_not_said_of_a_type_is_not_in_its_name():
    assert (_type_names.TypeName("A10", 4, "Q").key, _type_names.TypeName("A10", 4, "Q").brand) == ("A10-4Q", "")
