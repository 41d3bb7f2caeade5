# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from fake_api import FakeApi, Fault

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _namespace

PATH = "/api/v1/namespaces/gpu-operator"
SECRET = f"{PATH}/secrets/pull"
LEVEL = "pod-security.kubernetes.io/enforce"
PASSWORD = "hunter2-and-more"


def arguments(api: FakeApi, **more: t.Any) -> dict[str, t.Any]:
    pull = {"name": "pull", "registry": "registry.example.com/nvidia", "username": "robot", "password": PASSWORD}
    return {**api.params, "name": "gpu-operator", "pod_security": "privileged", "pull_secret": pull, **more}


def content(api: FakeApi) -> t.Any:
    return json.loads(base64.b64decode(api.objects[SECRET]["data"][".dockerconfigjson"]))


def test_a_missing_namespace_is_made_with_its_secret(api: FakeApi, run_module) -> None:
    api.add("/api/v1/namespaces/default")
    checked = run_module("gpu_operator_namespace", arguments(api), check=True)
    assert api.written == []
    done = run_module("gpu_operator_namespace", arguments(api))
    assert not done["failed"]
    assert done["changes"] == checked["changes"]
    assert [change["target"] for change in done["changes"]] == ["namespace gpu-operator", "secret gpu-operator/pull"]
    assert api.objects[PATH]["metadata"]["labels"] == {LEVEL: "privileged"}
    entry = content(api)["auths"]["registry.example.com"]
    assert (entry["username"], entry["password"]) == ("robot", PASSWORD)
    assert base64.b64decode(entry["auth"]).decode() == f"robot:{PASSWORD}"
    assert not run_module("gpu_operator_namespace", arguments(api))["changed"]


def test_other_labels_and_secrets_stay(api: FakeApi, run_module) -> None:
    api.add(PATH, {"metadata": {"labels": {LEVEL: "baseline", "team": "ml"}}})
    api.add(f"{PATH}/secrets/other", {"type": "Opaque"})
    done = run_module("gpu_operator_namespace", arguments(api))
    assert [change["action"] for change in done["changes"]] == ["label", "create"]
    assert api.objects[PATH]["metadata"]["labels"] == {LEVEL: "privileged", "team": "ml"}
    assert f"{PATH}/secrets/other" in api.objects


def test_without_a_secret_and_a_level_only_the_namespace_counts(api: FakeApi, run_module) -> None:
    api.add(PATH, {"metadata": {"labels": {LEVEL: "baseline"}}})
    assert not run_module("gpu_operator_namespace", {**api.params, "name": "gpu-operator"})["changed"]


@pytest.mark.parametrize("key", ["registry", "username", "password"])
def test_half_a_pull_secret_is_refused_and_overwrites_nothing(api: FakeApi, run_module, key: str) -> None:
    run_module("gpu_operator_namespace", arguments(api))
    before = content(api)
    asked = arguments(api)
    done = run_module("gpu_operator_namespace", {**asked, "pull_secret": {**asked["pull_secret"], key: ""}})
    assert done["failed"] and f"{key} is empty" in done["msg"]
    assert content(api) == before


def test_a_new_password_is_written_and_never_shown(api: FakeApi, run_module, capsys: pytest.CaptureFixture[str]) -> None:
    run_module("gpu_operator_namespace", arguments(api))
    other = {"name": "pull", "registry": "registry.example.com", "username": "robot", "password": "another-secret"}
    done = run_module("gpu_operator_namespace", arguments(api, pull_secret=other), diff=True)
    assert [change["action"] for change in done["changes"]] == ["update"]
    assert content(api)["auths"]["registry.example.com"]["password"] == "another-secret"
    for secret in (PASSWORD, "another-secret", base64.b64encode(b"robot:another-secret").decode()):
        assert secret not in json.dumps({key: value for key, value in done.items() if key != "invocation"})


def test_the_same_content_in_another_spacing_is_no_difference(api: FakeApi, run_module) -> None:
    run_module("gpu_operator_namespace", arguments(api))
    loose = base64.b64encode(json.dumps(content(api), indent=4).encode()).decode()
    api.objects[SECRET]["data"][".dockerconfigjson"] = loose
    assert not run_module("gpu_operator_namespace", arguments(api))["changed"]


@pytest.mark.parametrize(
    ("namespace", "secret", "words"),
    [
        ({"status": {"phase": "Terminating"}}, None, "being deleted"),
        ({}, {"type": "Opaque"}, "type Opaque"),
    ],
)
def test_what_stands_in_the_way_stops_before_the_first_write(api: FakeApi, run_module, namespace, secret, words: str) -> None:
    api.add(PATH, namespace)
    if secret:
        api.add(SECRET, secret)
    result = run_module("gpu_operator_namespace", arguments(api))
    assert result["failed"]
    assert words in result["msg"]
    assert api.written == []


def test_a_refusal_of_the_server_is_reported(api: FakeApi, run_module) -> None:
    api.faults = [Fault(403, times=99, when=lambda request: request.method == "POST", reason="Forbidden", message="no")]
    result = run_module("gpu_operator_namespace", arguments(api))
    assert result["failed"]
    assert "403 Forbidden: no" in result["msg"]
    assert PASSWORD not in result["msg"]


def test_a_malformed_name_is_refused_before_any_request(api: FakeApi, run_module) -> None:
    result = run_module("gpu_operator_namespace", {**arguments(api), "name": "GPU Operator"})
    assert result["failed"]
    assert "'GPU Operator' is no name" in result["msg"]
    assert api.requests == []


PULL = _namespace.PullSecret("pull", "registry.example.com", "robot", PASSWORD)


def test_a_pull_secret_is_what_kubernetes_takes_for_one_and_hides_its_password() -> None:
    body = PULL.body()
    assert (body["apiVersion"], body["kind"], body["type"], body["metadata"]) == (
        "v1",
        "Secret",
        "kubernetes.io/dockerconfigjson",
        {"name": "pull"},
    )
    assert PASSWORD not in repr(PULL)


@pytest.mark.parametrize(
    ("data", "actions"),
    [
        ({".dockerconfigjson": PULL.body()["data"][".dockerconfigjson"]}, []),
        ({".dockerconfigjson": base64.b64encode(b"{").decode()}, ["update"]),
        ({".dockerconfigjson": "%"}, ["update"]),
        ({".dockerconfigjson": f"%{PULL.body()['data']['.dockerconfigjson']}"}, ["update"]),
        ({}, ["update"]),
        (None, ["update"]),
    ],
    ids=["as wanted", "no JSON", "no base64", "not quite base64", "no content", "no data"],
)
def test_a_secret_that_cannot_be_read_is_written_anew(data: t.Any, actions: list[str]) -> None:
    secret = {"type": "kubernetes.io/dockerconfigjson", "data": data}
    plan = _namespace.make_plan("gpu-operator", None, PULL, _namespace.Observed({}, secret))
    assert [change.action for change in plan.changes] == actions
    for change in plan.changes:
        assert change.after == {"registry": "registry.example.com", "username": "robot", "content": "as given"}


@pytest.mark.parametrize(("labels", "before"), [({LEVEL: "baseline", "team": "ml"}, {LEVEL: "baseline"}), ({"team": "ml"}, {})])
def test_a_level_that_changes_shows_what_it_was(labels: t.Any, before: t.Any) -> None:
    plan = _namespace.make_plan("gpu-operator", "privileged", None, _namespace.Observed({"metadata": {"labels": labels}}, None))
    assert [(change.before, change.after) for change in plan.changes] == [({"labels": before}, {"labels": {LEVEL: "privileged"}})]


def test_a_secret_that_is_made_shows_whose_it_is() -> None:
    plan = _namespace.make_plan("gpu-operator", None, PULL, _namespace.Observed({}, None))
    assert [change.after for change in plan.changes] == [{"registry": "registry.example.com", "username": "robot"}]
