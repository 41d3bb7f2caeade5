# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.operator_step import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _installs
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator import _toggles
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import merged
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._step import differences, lost, operator_step
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._values import operator_values

WANTED = operator_values([])
BY_HAND = {
    "sandboxWorkloads": {"enabled": True, "defaultWorkload": "container"},
    "ccManager": {"enabled": False},
    "vgpuManager": {"enabled": False},
}
ON = {operand: operand not in _toggles.OFF for operand in _installs.SWITCHES}


def release(values=WANTED, **more):
    named = {"name": "gpu-operator-1764021600", "namespace": "nvidia", "chart": "gpu-operator", "version": "v26.7.0"}
    return {**named, "revision": 3, "status": "deployed", "values": copy.deepcopy(values), **more}


def policy(strategy="OnDelete", operands=None, **more):
    mode = {"sandbox_enabled": True, "default_workload": "container", "driver_crd": False}
    return {"name": "cluster-policy", "update_strategy": strategy, "operands": {**ON, **(operands or {})}, **mode, **more}


def node(name, workload, vms=()):
    used = {"nvidia.com/GA102GL_A10": [{"namespace": "ml", "pod": None, "vmi": vm, "count": 1} for vm in vms]} if vms else {}
    return {"name": name, "workload": workload, "used": used}


def cluster(present=None, its_policy=None, nodes=(), **operator):
    own = {"namespace": "nvidia", "by": "Helm", "release": "gpu-operator-1764021600", "release_namespace": "nvidia"}
    facts = {
        "installs": [own] if present else [],
        "policies": [its_policy["name"]] if its_policy else [],
        "drivers": [],
        "gpu_clusters": [],
        "subscriptions": [],
        "claims": [],
        "openshift": False,
    }
    return {"release": present, "cluster_policy": its_policy, "nodes": list(nodes), "operator": {**facts, **operator}}


HAND = cluster(release(BY_HAND), policy("RollingUpdate"), [node("p", "vm-passthrough", ["a"])])


# ------------------------------------------------------------------ the step


def test_where_there_is_none_it_is_installed_as_asked_for():
    found = operator_step(WANTED, cluster(), {"release": "mine", "namespace": "there", "version": "v26.7.0"})
    assert (found["step"], found["release"], found["namespace"], found["version"]) == ("install", "mine", "there", "v26.7.0")
    assert found["problems"] == []


@pytest.mark.parametrize(("openshift", "namespace"), [(False, "gpu-operator"), (True, "nvidia-gpu-operator")])
def test_without_a_wish_the_namespace_is_the_platforms(openshift, namespace):
    found = operator_step(WANTED, cluster(openshift=openshift))
    assert (found["release"], found["namespace"]) == ("gpu-operator", namespace)


def test_a_release_installed_by_hand_is_adopted_with_on_delete_alone_as_its_first_change():
    found = operator_step(WANTED, HAND, {"version": "v26.7.0"})
    assert (found["step"], found["release"], found["namespace"]) == ("adopt", "gpu-operator-1764021600", "nvidia")
    assert differences(BY_HAND, found["first"]) == ["daemonsets"]
    assert found["first"]["daemonsets"] == {"updateStrategy": "OnDelete"}
    assert found["problems"] == [], found["text"]


def test_the_first_change_of_an_adoption_keeps_the_rest_of_the_daemonsets_settings():
    values = merged(BY_HAND, {"daemonsets": {"updateStrategy": "RollingUpdate", "labels": {"a": "b"}}})
    found = operator_step(merged(WANTED, {"daemonsets": {"labels": {"a": "b"}}}), cluster(release(values), policy("RollingUpdate")))
    assert found["first"]["daemonsets"] == {"updateStrategy": "OnDelete", "labels": {"a": "b"}}


def test_equal_values_are_converged_and_others_are_named_by_their_keys():
    assert operator_step(WANTED, cluster(release(), policy()))["step"] == "converged"
    found = operator_step(merged(WANTED, {"driver": {"version": "1"}}), cluster(release(), policy()))
    assert (found["step"], found["changed"]) == ("change", ["driver"])


# ------------------------------------------------------------------ what stops it


@pytest.mark.parametrize(
    ("fleet", "options", "words"),
    [
        pytest.param(
            HAND, {"release": "mine"}, ["release gpu-operator-1764021600 in namespace nvidia", "gpufleet_operator_release"], id="name"
        ),
        pytest.param(HAND, {"namespace": "other"}, ["namespace nvidia", "gpufleet_operator_namespace"], id="namespace"),
        pytest.param(HAND, {"version": "v26.8.0"}, ["v26.7.0", "v26.8.0", "gpufleet_operator_version"], id="version"),
        pytest.param(HAND, {"limited": True}, ["OnDelete", "without --limit"], id="limited"),
        pytest.param(cluster(release(chart="umbrella"), policy()), {}, ["umbrella", "--skip-tags"], id="another chart"),
        pytest.param(cluster(release(status="pending-upgrade"), policy()), {}, ["pending-upgrade", "helm rollback"], id="Helm at work"),
        pytest.param(
            cluster(release(merged(BY_HAND, {"toolkit": {"env": []}})), policy("RollingUpdate")),
            {},
            ["toolkit", "gpufleet_operator_values"],
            id="values that would be lost",
        ),
        pytest.param(cluster(release(), policy("RollingUpdate")), {}, ["RollingUpdate", "kubectl patch clusterpolicy"], id="edited policy"),
        pytest.param(
            cluster(release(), policy(), policies=["old", "new"]), {}, ["follows the oldest, old", "ignores new"], id="two policies"
        ),
        pytest.param(
            cluster(
                release(),
                policy(),
                installs=[{"namespace": n, "by": "Helm", "release": n, "release_namespace": n} for n in ("a", "b")],
            ),
            {},
            ["2 times", "release a in namespace a", "release b in namespace b"],
            id="two releases",
        ),
        pytest.param(cluster(None, policy()), {}, ["ClusterPolicy cluster-policy", "no Helm release"], id="policy of nobody"),
        pytest.param(
            cluster(installs=[{"namespace": "x", "by": None, "release": None, "release_namespace": None}]),
            {},
            ["Deployment x/gpu-operator"],
            id="operator of nobody",
        ),
        pytest.param(cluster(release(), policy(), drivers=["a10"]), {}, ["NVIDIADriver a10", "nvidiaDriverCRD"], id="NVIDIADriver"),
        pytest.param(cluster(gpu_clusters=["gpu-cluster"]), {}, ["GPUCluster gpu-cluster", "DRA"], id="GPUCluster"),
        pytest.param(cluster(claims=[{"vmi": "ml/a", "claims": ["gpu"]}]), {}, ["VM ml/a", "DRA: gpu"], id="DRA VM"),
    ],
)
def test_what_stops_it_is_named_with_the_remedy(fleet, options, words):
    found = operator_step(WANTED, fleet, options)
    [problem] = found["problems"]
    said = " ".join(problem.values())
    assert all(word in said for word in words), said
    assert all(word in found["text"] for word in words)
    assert "Nothing was changed." in found["text"]


def test_a_version_with_and_without_its_v_is_the_same():
    assert operator_step(WANTED, HAND, {"version": "26.7.0"})["problems"] == []


def test_drivers_by_another_resource_are_refused_also_before_there_is_one():
    found = operator_step(merged(WANTED, {"driver": {"nvidiaDriverCRD": {"enabled": True}}}), cluster())
    assert "nvidiaDriverCRD" in found["text"]


# ------------------------------------------------------------------ OLM


@pytest.mark.parametrize(
    "how", [{"subscriptions": ["nvidia-gpu-operator/gpu"]}, {"installs": [{"namespace": "nvidia-gpu-operator", "by": "OLM"}]}]
)
def test_an_operator_of_olm_is_left_alone_where_its_policy_serves(how):
    found = operator_step(WANTED, cluster(None, policy(), **how))
    assert (found["step"], found["problems"]) == ("leave", [])


def test_the_namespace_of_an_operator_of_olm_is_where_it_runs():
    found = operator_step(WANTED, cluster(None, policy(), installs=[{"namespace": "elsewhere", "by": "OLM"}]))
    assert found["namespace"] == "elsewhere"


@pytest.mark.parametrize(
    ("its_policy", "words"),
    [
        (None, ["no ClusterPolicy"]),
        (policy("RollingUpdate"), ["daemonsets.updateStrategy is RollingUpdate, not OnDelete"]),
        (policy(sandbox_enabled=False), ["sandboxWorkloads.enabled is false, not true"]),
        (policy(operands={"vgpu-manager": None}), ["vgpuManager.enabled is false, not true"]),
    ],
)
def test_what_the_policy_of_olm_lacks_is_named_and_not_written(its_policy, words):
    found = operator_step(merged(WANTED, {"vgpuManager": {"enabled": True}}), cluster(None, its_policy, subscriptions=["n/gpu"]))
    assert found["step"] == "leave"
    assert all(word in found["text"] for word in words), found["text"]


# ------------------------------------------------------------------ switches under running VMs

VM = [node("p", "vm-passthrough", ["a"]), node("c", "container")]


@pytest.mark.parametrize(
    ("its_policy", "values", "stops"),
    [
        pytest.param(policy(sandbox_enabled=False), {}, "sandboxWorkloads.enabled", id="sandbox on"),
        pytest.param(policy(), {"sandboxWorkloads": {"enabled": False}}, "sandboxWorkloads.enabled", id="sandbox off"),
        pytest.param(policy(driver_crd=True), {}, "driver.nvidiaDriverCRD.enabled", id="NVIDIADriver off"),
        pytest.param(policy(), {"driver": {"enabled": False}}, "driver.enabled", id="an operand of other nodes off"),
        pytest.param(policy(), {"vfioManager": {"enabled": False}}, "vfioManager.enabled", id="an operand of its node off"),
        pytest.param(policy(operands={"sandbox-device-plugin": False}), {}, "sandboxDevicePlugin.enabled", id="an operand of its node on"),
        pytest.param(policy(operands={"vgpu-manager": False}), {"vgpuManager": {"enabled": True}}, None, id="an operand of other nodes on"),
        pytest.param(policy(operands={"driver": False}), {}, None, id="an operand of container nodes on"),
        pytest.param(policy(operands={"driver": None}), {"driver": {"enabled": False}}, None, id="nothing known of before"),
        pytest.param(policy(), {}, None, id="no switch turned"),
    ],
)
def test_switches_are_turned_only_where_no_running_vm_notices(its_policy, values, stops):
    wanted = merged(WANTED, values)
    problems = operator_step(wanted, cluster(release(), its_policy, VM))["problems"]
    assert [stops in entry["problem"] and "ml/a" in entry["problem"] for entry in problems] == ([True] if stops else [])
    assert operator_step(wanted, cluster(release(), its_policy, [node("p", "vm-passthrough")]))["problems"] == []


def test_a_node_without_a_workload_counts_as_a_container_node():
    found = operator_step(WANTED, cluster(release(), policy(operands={"driver": False}), [node("x", None, ["a"])]))
    assert "driver.enabled" in found["text"]


def test_the_charts_own_values_say_what_is_on_by_itself():
    fleet = cluster(release(), policy(operands={"dcgm": True}), VM)
    assert "dcgm.enabled" in operator_step(WANTED, fleet)["text"]
    assert operator_step(WANTED, fleet, {"defaults": {"dcgm": {"enabled": True}}})["problems"] == []


def test_bad_facts_are_an_error_of_the_filter():
    with pytest.raises(AnsibleFilterError, match="operator_step"):
        FilterModule().filters()["operator_step"](WANTED, {})


# ------------------------------------------------------------------ properties

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["OnDelete", "x"]),
    lambda below: st.dictionaries(st.sampled_from(["driver", "daemonsets", "updateStrategy", "enabled", "env"]), below, max_size=3),
    max_leaves=6,
).filter(lambda value: isinstance(value, dict))


@given(VALUES, VALUES)
def test_nothing_differs_only_where_values_are_equal_and_what_is_lost_differs(present, wanted):
    found = differences(present, wanted)
    assert found or present == wanted
    assert differences(present, copy.deepcopy(present)) == []
    assert found == differences(wanted, present)
    assert all(any(key == path or key.startswith(path + ".") for path in found) for key in lost(present, wanted))
    assert lost(present, merged(wanted, present)) == []


@given(VALUES, st.booleans())
def test_no_step_but_an_adoption_follows_a_release_that_is_not_on_delete(values, limited):
    before = copy.deepcopy(values)
    found = operator_step(WANTED, cluster(release(values), policy()), {"limited": limited})
    on_delete = isinstance(values.get("daemonsets"), dict) and values["daemonsets"].get("updateStrategy") == "OnDelete"
    assert (found["step"] == "adopt") == (not on_delete)
    if found["step"] == "adopt":
        assert found["first"]["daemonsets"]["updateStrategy"] == "OnDelete"
        assert {key: value for key, value in found["first"].items() if key != "daemonsets"} == {
            key: value for key, value in values.items() if key != "daemonsets"
        }
    assert values == before
