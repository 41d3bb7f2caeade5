# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.operator_values import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import merged
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._values import MUST_KEEP, operator_values

REGISTRY = {"registry": "registry.example.com/nvidia", "vgpu_version": "580.95.02", "pull_secret": "pull"}


def intent(host, workload, **more):
    return {"host": host, "workload": workload, "state": "wanted", "limited": True, **more}


FLEET = [intent("c", "container"), intent("p", "vm-passthrough"), intent("v", "vm-vgpu")]
PLAIN = FLEET[:2]
BASE = {
    "sandboxWorkloads": {"enabled": True, "defaultWorkload": "container"},
    "daemonsets": {"updateStrategy": "OnDelete"},
    "ccManager": {"enabled": False},
    "vgpuManager": {"enabled": False},
}
MANAGER = {
    "enabled": True,
    "repository": "registry.example.com/nvidia",
    "image": "vgpu-manager",
    "version": "580.95.02",
    "imagePullSecrets": ["pull"],
}


def with_values(values, intents=PLAIN, **more):
    return operator_values(intents, {**REGISTRY, "values": values, **more})


# ------------------------------------------------------------------ what the collection wants


@pytest.mark.parametrize("intents", [[], PLAIN])
def test_a_fleet_without_vgpu_needs_no_registry(intents):
    assert operator_values(intents) == BASE


def test_a_vgpu_host_brings_the_vgpu_manager():
    assert operator_values(FLEET, REGISTRY) == {**BASE, "vgpuManager": MANAGER}


def test_without_a_pull_secret_none_is_named():
    found = operator_values(FLEET, {**REGISTRY, "pull_secret": ""})
    assert "imagePullSecrets" not in found["vgpuManager"]


@pytest.mark.parametrize(
    ("options", "named", "silent"),
    [
        ({}, ["v", "gpufleet_registry", "gpufleet_vgpu_version"], []),
        ({"registry": "r"}, ["v", "gpufleet_vgpu_version"], ["gpufleet_registry"]),
        ({"vgpu_version": "1"}, ["v", "gpufleet_registry"], ["gpufleet_vgpu_version"]),
        ({**REGISTRY, "values": {"vgpuManager": {"image": ""}}}, ["v", "image"], ["gpufleet_registry"]),
        ({**REGISTRY, "values": {"vgpuManager": {"version": None}}}, ["gpufleet_vgpu_version"], ["gpufleet_registry"]),
    ],
)
def test_an_incomplete_vgpu_image_names_its_variables(options, named, silent):
    with pytest.raises(ValueError) as caught:
        operator_values(FLEET, options)
    for word in named:
        assert word in str(caught.value)
    for word in silent:
        assert word not in str(caught.value)


def test_variables_and_own_values_together_make_one_image():
    found = operator_values(FLEET, {"registry": "r", "values": {"vgpuManager": {"version": "1"}}})
    assert (found["vgpuManager"]["repository"], found["vgpuManager"]["version"]) == ("r", "1")


def test_a_vgpu_manager_of_the_sites_own_must_be_complete_too():
    with pytest.raises(ValueError, match="gpufleet_registry"):
        operator_values(PLAIN, {"values": {"vgpuManager": {"enabled": True, "version": "1"}}})


# ------------------------------------------------------------------ the site's own values


def test_own_values_are_merged_last():
    own = {
        "daemonsets": {"tolerations": [{"key": "x"}]},
        "vgpuManager": {"imagePullSecrets": ["mine"]},
        "vgpuDeviceManager": {"config": {"name": "n"}},
    }
    found = with_values(own, FLEET)
    assert found["daemonsets"] == {"updateStrategy": "OnDelete", "tolerations": [{"key": "x"}]}
    assert found["vgpuManager"] == {**MANAGER, "imagePullSecrets": ["mine"]}
    assert found["vgpuDeviceManager"] == {"config": {"name": "n"}}


def test_a_value_that_says_the_same_is_no_problem():
    assert with_values(copy.deepcopy(BASE)) == BASE


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"sandboxWorkloads": {"enabled": False}}, "sandboxWorkloads.enabled"),
        # Helm forgets a key whose value is null, and the chart's default is another one.
        ({"sandboxWorkloads": {"enabled": None}}, "sandboxWorkloads.enabled"),
        ({"sandboxWorkloads": None}, "sandboxWorkloads"),
        ({"sandboxWorkloads": {"enabled": "true"}}, "sandboxWorkloads.enabled"),
        ({"sandboxWorkloads": {"enabled": 1}}, "sandboxWorkloads.enabled"),
        ({"sandboxWorkloads": {"defaultWorkload": "vm-vgpu"}}, "sandboxWorkloads.defaultWorkload"),
        ({"sandboxWorkloads": {"mode": "kata"}}, "sandboxWorkloads.mode"),
        ({"daemonsets": {"updateStrategy": "RollingUpdate"}}, "daemonsets.updateStrategy"),
        ({"daemonsets": {"updateStrategy": None}}, "daemonsets.updateStrategy"),
        ({"daemonsets": []}, "daemonsets"),
        ({"ccManager": {"enabled": True}}, "ccManager.enabled"),
        ({"ccManager": {"enabled": 0}}, "ccManager.enabled"),
        ({"ccManager": {"defaultMode": "sometimes"}}, "ccManager.defaultMode"),
        ({"driver": {"kernelModuleType": "closed"}}, "driver.kernelModuleType"),
        ({"vgpuManager": True}, "vgpuManager"),
        ({"vgpuManger": {}}, "vgpuManager"),
        ({"sandbox": {}}, "no key sandbox"),
        (["driver"], "mapping"),
        ("driver", "mapping"),
    ],
)
def test_a_value_that_would_undo_or_do_nothing_is_refused(values, named):
    with pytest.raises(ValueError) as caught:
        with_values(values)
    assert named in str(caught.value)
    assert "gpufleet_operator_values" in str(caught.value)


@pytest.mark.parametrize("off", [False, None])
def test_the_vgpu_manager_stays_on_while_a_host_needs_it(off):
    with pytest.raises(ValueError, match=r"vgpuManager\.enabled"):
        with_values({"vgpuManager": {"enabled": off}}, FLEET)


def test_every_guard_says_why():
    for path, value, why in MUST_KEEP:
        other = {True: False, False: True}.get(value, "other") if isinstance(value, bool) else "other"
        with pytest.raises(ValueError, match=why.partition(" ")[0]) as caught:
            with_values({path[0]: {path[1]: other}})
        assert why in str(caught.value)


# ------------------------------------------------------------------ a run of a part of the fleet


def test_a_limited_run_keeps_what_the_release_has_and_adds_what_it_lacks():
    present = {"daemonsets": {"updateStrategy": "RollingUpdate"}, "nfd": {"enabled": False}}
    found = with_values({"nfd": {"enabled": True}, "dcgm": {"enabled": False}}, present=present)
    assert found["daemonsets"] == {"updateStrategy": "RollingUpdate"}
    assert found["nfd"] == {"enabled": False}
    assert found["dcgm"] == {"enabled": False}
    assert found["sandboxWorkloads"] == BASE["sandboxWorkloads"]


@pytest.mark.parametrize("present", [None, {}])
def test_without_present_values_the_wanted_ones_stand(present):
    assert with_values({}, present=present) == BASE


def test_a_limited_run_of_a_converged_fleet_changes_nothing():
    present = operator_values(FLEET, REGISTRY)
    assert operator_values(FLEET, {**REGISTRY, "vgpu_version": "999", "present": present}) == present


@pytest.mark.parametrize(
    ("who", "present", "needed"),
    [
        (intent("v", "vm-vgpu"), {"vgpuManager": {"enabled": False}}, ["v", "vgpuManager.enabled", "--limit"]),
        (intent("p", "vm-passthrough"), {"sandboxWorkloads": {"enabled": False}}, ["p", "sandboxWorkloads.enabled", "--limit"]),
        (intent("v", "vm-vgpu", limited=False), {"vgpuManager": {"enabled": False}}, []),
        (intent("v", "vm-vgpu", state="refused"), {"vgpuManager": {"enabled": False}}, []),
        (intent("c", "container"), {"sandboxWorkloads": {"enabled": False}}, []),
        (intent("p", "vm-passthrough"), {"vgpuManager": {"enabled": False}}, []),
    ],
)
def test_a_limited_run_says_when_the_release_could_never_serve_its_host(who, present, needed):
    if not needed:
        assert merged(operator_values([who], {**REGISTRY, "present": present}), present) == merged(
            operator_values([who], REGISTRY), present
        )
        return
    with pytest.raises(ValueError) as caught:
        operator_values([who], {**REGISTRY, "present": present})
    for word in needed:
        assert word in str(caught.value)


# ------------------------------------------------------------------ merging

LEAVES = st.none() | st.booleans() | st.integers() | st.lists(st.integers(), max_size=2)
VALUES = st.dictionaries(
    st.sampled_from("abcd"), st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)), max_size=3
)


def leaves(values, path=()):
    """``(path, value)`` of everything that is no mapping with something in it."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def at(values, path):
    for key in path:
        values = values[key]
    return values


@given(VALUES, VALUES)
def test_a_merge_has_all_of_the_upper_and_what_it_does_not_cover_of_the_lower(base, top):
    before = copy.deepcopy((base, top))
    result = merged(base, top)
    assert (base, top) == before
    for path, value in leaves(top):
        assert at(result, path) == value or value == {}
    assert set(result) == set(base) | set(top)
    assert merged(result, top) == result
    assert merged(base, {}) == base and merged({}, top) == top


def test_what_was_merged_shares_nothing_with_its_source():
    own = {"daemonsets": {"tolerations": []}}
    with_values(own)["daemonsets"]["tolerations"].append("x")
    assert own == {"daemonsets": {"tolerations": []}}


def test_the_filter_fails_with_a_sentence():
    run = FilterModule().filters()["operator_values"]
    assert run(PLAIN, options={}) == BASE
    with pytest.raises(AnsibleFilterError, match=r"operator_values: .*vgpuManger"):
        run(PLAIN, options={"values": {"vgpuManger": {}}})


# ------------------------------------------------------------------ keys of the chart

CHART = yaml.safe_load((Path(__file__).parents[2] / "lab/chart/gpu-operator/values.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("chart", [None, CHART], ids=["chart not at hand", "chart at hand"])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sandboxWorkload": {}}, ["sandboxWorkload", "nearest: sandboxWorkloads"]),
        ({"driver": {"useOpenKernelModules": True}}, ["driver.useOpenKernelModules", "driver.kernelModuleType: open"]),
        ({"driver": {"useNvidiaDriverCRD": True}}, ["driver.nvidiaDriverCRD.enabled"]),
        ({"driver": {"licensingConfig": {"configMapName": "x"}}}, ["driver.licensingConfig.secretName"]),
        ({"driver": {"upgradePolicy": {"podDeletion": {}}}}, ["driver.upgradePolicy.gpuPodDeletion"]),
    ],
)
def test_a_key_that_the_chart_does_not_know_is_refused_with_its_new_name(chart, values, words):
    with pytest.raises(ValueError, match="would ignore") as error:
        with_values(values, chart_values=chart)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"vgpuDeviceManager": {"confg": {}}}, "vgpuDeviceManager.confg (nearest: vgpuDeviceManager.config"),
        ({"vgpuManager": {"driverManager": {"tag": "x"}}}, "vgpuManager.driverManager.tag"),
        ({"daemonsets": {"updatestrategy": "OnDelete"}}, "nearest: daemonsets.updateStrategy"),
        ({"a": {}, "b": {}}, "none of these keys: a, b"),
    ],
)
def test_with_the_chart_at_hand_keys_are_compared_at_every_depth(values, word):
    with pytest.raises(ValueError) as error:
        with_values(values, chart_values=CHART)
    assert word in str(error.value), error.value


@pytest.mark.parametrize(
    "values",
    [
        {"daemonsets": {"labels": {"team": "ml"}}},
        {"operator": {"resources": {"limits": {"nvidia.com/x": 1}}}},
        {"node-feature-discovery": {"worker": {"tolerations": []}}},
        {"vfioManager": {"env": [{"name": "BIND_NVSWITCHES", "value": "true"}]}},
        {"vgpuManager": {"kernelModuleConfig": {"name": "x"}}},
        {"global": {"imagePullSecrets": ["x"]}},
        {"validator": {"plugin": {"env": []}}},
        {"driver": {"nvidiaDriverCRD": {"nodeSelector": {"a": "b"}}}},
    ],
)
def test_keys_that_are_the_users_or_an_operands_are_left_alone(values):
    assert with_values(values, chart_values=CHART)


def test_what_this_collection_sets_is_known_to_the_chart_also_on_openshift():
    assert operator_values(FLEET, {**REGISTRY, "vgpu_config_name": "x", "openshift": True, "chart_values": CHART})["platform"] == {
        "openshift": True
    }
    renamed = {key: value for key, value in CHART.items() if key != "sandboxWorkloads"}
    with pytest.raises(ValueError, match="no key sandboxWorkloads"):
        operator_values(FLEET, {**REGISTRY, "chart_values": renamed})


# ------------------------------------------------------------------ taints

GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
ON = [intent("c", "container", node="c"), intent("x", "container", node="x", state="refused")]
NFD_WORKER = ("node-feature-discovery", "worker", "tolerations")


def tainted(*taints, on="c", **more):
    return operator_values(ON, {"nodes": [{"name": on, "taints": [{"effect": "NoSchedule", **taint} for taint in taints]}], **more})


@pytest.mark.parametrize(
    "taint",
    [
        {"key": "nvidia.com/gpu", "value": "present"},
        {"key": "node.kubernetes.io/unschedulable"},
        {"key": "dedicated", "effect": "PreferNoSchedule"},
    ],
)
def test_what_is_tolerated_anyway_sets_nothing(taint):
    assert tainted(taint) == BASE


def test_taints_of_nodes_without_operands_are_not_tolerated():
    assert tainted({"key": "dedicated"}, on="x") == tainted({"key": "dedicated"}, on="elsewhere") == BASE


@pytest.mark.parametrize(
    ("taint", "toleration"),
    [
        ({"key": "dedicated", "value": "gpu"}, {"key": "dedicated", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}),
        ({"key": "dedicated"}, {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}),
        ({"key": "nvidia.com/gpu", "effect": "NoExecute"}, {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}),
    ],
)
def test_operands_and_feature_discovery_tolerate_a_taint_beside_what_the_chart_tolerates(taint, toleration):
    found = tainted(taint)
    assert found["daemonsets"] == {"updateStrategy": "OnDelete", "tolerations": [GPU, toleration]}
    assert toleration in at(found, NFD_WORKER) and GPU in at(found, NFD_WORKER)


def test_the_charts_own_list_is_what_is_added_to():
    own = {"key": "own", "operator": "Exists"}
    found = tainted({"key": "dedicated"}, chart_values=merged(CHART, {"daemonsets": {"tolerations": [own]}}))
    assert found["daemonsets"]["tolerations"][0] == own


def test_what_a_release_tolerates_it_goes_on_tolerating_and_the_site_has_the_last_word():
    first = tainted({"key": "dedicated"})
    assert tainted(release_values=first) == first == tainted({"key": "dedicated"}, release_values=first)
    site = tainted({"key": "dedicated"}, release_values=first, values={"daemonsets": {"tolerations": []}})
    assert site["daemonsets"]["tolerations"] == []


# ------------------------------------------------------------------ mirrors

MIRRORS = {"registry.example.com": "mirror.example.com/all", "registry.example.com/nvidia/cloud-native": "mirror.example.com/native/"}


def test_every_image_of_the_chart_is_taken_from_the_longest_mirror_that_fits():
    found = operator_values(FLEET, {**REGISTRY, "chart_values": CHART, "mirrors": MIRRORS})
    assert found["driver"] == {"repository": "mirror.example.com/all/nvidia"}
    assert found["vfioManager"] == {"repository": "mirror.example.com/native"}
    assert found["vgpuManager"] == {**MANAGER, "driverManager": {"repository": "mirror.example.com/native"}}
    assert "toolkit" not in found  # the stand-in names no image for it


def test_the_site_has_the_last_word_on_an_image():
    found = with_values({"driver": {"repository": "mine.example.com"}}, chart_values=CHART, mirrors=MIRRORS)
    assert found["driver"]["repository"] == "mine.example.com"


@pytest.mark.parametrize(
    ("mirrors", "chart", "word"),
    [
        (MIRRORS, None, "helm pull --untar"),
        ({**MIRRORS, "registry.example": "m"}, CHART, "no image from registry.example. "),
        (["nvcr.io"], CHART, "maps registries to mirrors"),
        ({"nvcr.io": ""}, CHART, "maps registries to mirrors"),
    ],
)
def test_mirrors_that_could_do_nothing_are_refused(mirrors, chart, word):
    with pytest.raises(ValueError) as error:
        operator_values(PLAIN, {"mirrors": mirrors, "chart_values": chart})
    assert word in str(error.value)
