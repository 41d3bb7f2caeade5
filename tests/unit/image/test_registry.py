# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry has, asked with ``vgpu_manager_image_info``; and the names of tags, directories and repositories."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest
from conftest import VERSION, Bench, MakeBench
from fake_registry import INDEX, PASSWORD, USER, Fault, digest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _registry, _tags
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._inputs import Inputs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._installer import Installer
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused
from tests.unit.conftest import RunModule

Json = dict[str, t.Any]
NAME = "vgpu_manager_image_info"
TAG = f"{VERSION}-ubuntu22.04"


def asked(bench: Bench, **more: t.Any) -> Json:
    params = {
        "driver_version": VERSION,
        "os_tags": ["ubuntu22.04"],
        "registry": f"{bench.registry.host}/nvidia",
        "username": USER,
        "password": PASSWORD,
        "ca_cert": str(bench.ca_cert),
        **more,
    }
    return {key: value for key, value in params.items() if value is not None}


@pytest.mark.parametrize("auth", ["basic", "bearer", "none"])
def test_an_image_that_can_be_pulled_is_found_whole(auth: str, run_module: RunModule, make_bench: MakeBench) -> None:
    bench = make_bench(auth)
    digest = bench.registry.put(TAG, {"a": "b"})
    login = {} if auth == "basic" else {"username": None, "password": None}
    result = run_module(NAME, asked(bench, os_tags=["ubuntu22.04", "rhel9"], **login))
    assert not result["failed"] and [(image["digest"], image["whole"]) for image in result["images"]] == [(digest, True), (None, False)]
    assert result["missing"] == [f"{bench.registry.host}/nvidia/vgpu-manager:{VERSION}-rhel9"] and result["images"][0]["labels"] == {
        "a": "b"
    }
    assert {method for method, _path in bench.registry.requests} == {"GET", "HEAD"}


def test_an_image_of_which_a_part_is_missing_is_not_whole(run_module: RunModule, bench: Bench) -> None:
    bench.registry.put(TAG, {})
    bench.registry.faults = [Fault(404, "HEAD", "/blobs/")]
    result = run_module(NAME, asked(bench))
    assert result["images"][0]["whole"] is False and len(result["missing"]) == 1


@pytest.mark.parametrize(("arch", "found"), [("x86_64", True), ("aarch64", False)])
def test_of_a_list_of_images_the_one_for_the_hosts_counts(arch: str, found: bool, run_module: RunModule, bench: Bench) -> None:
    inner = bench.registry.put("inner", {"a": "b"})
    attestation = {"digest": "sha256:x", "platform": {"os": "unknown", "architecture": "unknown"}}
    entry = {"digest": inner, "platform": {"os": "linux", "architecture": "amd64"}}
    index = bench.registry.put_manifest(TAG, {"mediaType": INDEX, "manifests": [attestation, entry]})
    result = run_module(NAME, asked(bench, arch=arch))
    if found:
        assert (result["images"][0]["digest"], result["images"][0]["labels"]) == (index, {"a": "b"})
    else:
        assert "it lists no image for linux/arm64" in result["msg"]


def test_the_storage_behind_a_registry_gets_no_password(run_module: RunModule, bench: Bench) -> None:
    bench.registry.put(TAG, {"a": "b"})
    config = json.loads((bench.registry.directory / "manifests" / TAG).read_bytes())["config"]["digest"]
    bench.registry.faults = [Fault(307, "GET", f"/blobs/{config}", headers={"Location": f"https://{bench.registry.host}/storage/{config}"})]
    assert run_module(NAME, asked(bench))["images"][0]["labels"] == {"a": "b"}
    assert [value for path, value in bench.registry.sent if path.startswith("/storage/")] == [None]


def test_a_redirect_to_where_no_tls_is_spoken_is_not_followed(run_module: RunModule, bench: Bench) -> None:
    bench.registry.put(TAG, {})
    bench.registry.faults = [Fault(307, "GET", "/blobs/", headers={"Location": "http://127.0.0.1:1/x"})]
    assert "where no TLS is spoken" in run_module(NAME, asked(bench))["msg"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            Fault(403, "GET", "/manifests/", body={"errors": [{"code": "DENIED", "message": "requested access"}]}),
            f"is denied to user {USER}: re",
        ),
        (Fault(503, "GET", "/manifests/"), "ended with status 503"),
        (Fault(200, "GET", "/v2/", headers={"Content-Type": "text/html"}), "so there is no registry"),
        (Fault(404, "GET", "/v2/"), "/v2/ answers with status 404, so there is no registry"),
        (Fault(200, "GET", "/manifests/", body=["x"]), "is no JSON object"),
        (Fault(200, "GET", "/manifests/", body={"x": 1}), "it is no image"),
        (Fault(200, "GET", "/manifests/", body={"x": 1}, headers={"Docker-Content-Digest": "sha256:0"}), "and the registry says sha256:0"),
        (Fault(200, "GET", "/blobs/", body={"x": 1}), "has the digest sha256:"),
        (Fault(401, "GET", "/v2/", headers={"WWW-Authenticate": "Negotiate"}), "it wants to be logged in to with negotiate"),
        (Fault(401, "GET", "/v2/", headers={"WWW-Authenticate": 'Bearer realm="https://["'}), "leads to 'https://[', which is no address"),
        (Fault(307, "GET", "/blobs/", headers={"Location": "https://["}), "leads to 'https://[', which is no address"),
        (Fault(503, "HEAD", "/blobs/"), "ended with status 503"),
        (Fault(200, "GET", "/manifests/", body={"config": "x"}), "it is no image"),
        (Fault(200, "GET", "/manifests/", body={"config": ["x"], "layers": {"digest": 1}}), "it is no image"),
        (Fault(200, "GET", "/manifests/", body={"config": {"digest": "../../../other/blobs/sha256:0"}}), "it is no image"),
        (Fault(200, "GET", "/manifests/", body={"config": {"digest": "sha256:0"}, "layers": ["x", 3]}), "it is no image"),
        (Fault(200, "GET", "/manifests/", body={"manifests": [1, {"platform": "x"}, {"platform": {"os": "linux"}}]}), "no image for linux"),
        (Fault(200, "GET", "/manifests/", body={"manifests": "x"}), "no image for linux"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_registry_says_that_is_no_image(fault: Fault, expected: str, run_module: RunModule, bench: Bench) -> None:
    bench.registry.put(TAG, {})
    bench.registry.faults = [fault]
    result = run_module(NAME, asked(bench))
    assert result["failed"] and expected in result["msg"] and "Traceback" not in result["msg"] and result["blockers"][0]["remedy"]


@pytest.mark.parametrize("settings", [{"config": {"Labels": ["x"]}}, {"config": "x"}, {"config": None}, {}])
def test_an_image_without_labels_is_one(settings: Json, run_module: RunModule, bench: Bench) -> None:
    config = json.dumps(settings).encode()
    (bench.registry.directory / "blobs" / digest(config)).write_bytes(config)
    bench.registry.put_manifest(TAG, {"config": {"digest": digest(config)}})
    assert run_module(NAME, asked(bench))["images"][0]["labels"] == {}


def test_a_token_that_cannot_be_sent_is_not_shown(run_module: RunModule, make_bench: MakeBench) -> None:
    bench = make_bench("bearer")
    bench.registry.faults = [Fault(200, "GET", "/token", body={"token": f"{PASSWORD}\nX: y"})]
    result = run_module(NAME, asked(bench))
    assert "nothing can be sent with" in result["msg"] and PASSWORD not in json.dumps(result)


@pytest.mark.parametrize(("key", "value"), [("driver_version", "latest"), ("os_tags", ["x"]), ("registry", "a b")])
def test_bad_names_are_refused(key: str, value: t.Any, run_module: RunModule, bench: Bench) -> None:
    result = run_module(NAME, asked(bench, **{key: value}))
    assert result["failed"] and result["blockers"][0]["target"].startswith(key[:6]) and bench.registry.tags == set()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="a, b"', ("basic", {"realm": "a, b"})),
        (
            'Bearer realm="https://r/token",service="s",scope="repository:a:pull,push"',
            ("bearer", {"realm": "https://r/token", "service": "s", "scope": "repository:a:pull,push"}),
        ),
        ("bearer Realm=https://r", ("bearer", {"realm": "https://r"})),
        ("", ("", {})),
    ],
)
def test_how_a_registry_asks_for_a_login(header: str, expected: tuple[str, Json]) -> None:
    assert _registry.challenge(header) == expected


def test_each_input_makes_another_digest_and_the_installers_place_does_not() -> None:
    installer = Installer("/a/x.run", VERSION, "x86_64", "00")
    base = Inputs("rhel9", "git:1", installer, (("A", "1"),))
    others = [
        dataclasses.replace(base, **changed)
        for changed in (
            {"directory": "rhel8"},
            {"source": "git:2"},
            {"arguments": ()},
            {"installer": dataclasses.replace(installer, sha256="01")},
            {"installer": dataclasses.replace(installer, version="1.2")},
        )
    ]
    assert len({entry.digest() for entry in (base, *others)}) == 6
    assert dataclasses.replace(base, installer=dataclasses.replace(installer, path="/b/x.run")).digest() == base.digest()


@pytest.mark.parametrize(
    ("os_id", "version", "tags", "directories"),
    [
        ("ubuntu", "22.04", ["ubuntu22.04"], {"ubuntu22.04"}),
        ("rhel", "9.6", ["rhel9", "rhel9.6"], {"rhel9"}),
        ("rhel", "10", ["rhel10"], {"rhel10"}),
        ("rocky", "9.6", ["rocky9"], {"rocky9"}),
        ("ol", "8.10", ["ol8"], {"ol8"}),
        ("rhcos", "4.18", ["rhcos4.18"], {"rhel9"}),
        ("debian", "12", ["debian12"], {"debian12"}),
    ],
)
def test_tags_that_the_operator_asks_for(os_id: str, version: str, tags: list[str], directories: set[str]) -> None:
    assert _tags.os_tags(os_id, version) == tags and {_tags.source_directory(tag) for tag in tags} == directories


@pytest.mark.parametrize(("os_id", "version"), [("debian", ""), ("", "12"), ("sid", "trixie/sid"), ("a b", "1")])
def test_a_system_without_a_version_has_no_tag(os_id: str, version: str) -> None:
    with pytest.raises(ValueError, match="is no operating system with a version"):
        _tags.os_tags(os_id, version)


@pytest.mark.parametrize(
    ("registry", "reference"),
    [
        ("registry.example.com", "registry.example.com/vgpu-manager:1"),
        ("registry.example.com:5000/a/b-c_d", "registry.example.com:5000/a/b-c_d/vgpu-manager:1"),
        ("localhost/x", "localhost/x/vgpu-manager:1"),
        ("[::1]:5000", "[::1]:5000/vgpu-manager:1"),
    ],
)
def test_registries_that_are_understood(registry: str, reference: str) -> None:
    assert _tags.repository(registry, "vgpu-manager").reference("1") == reference


@given(st.text(st.sampled_from("ab.:/@-_A1 ?#%\n"), max_size=12))
def test_a_registry_is_a_host_with_a_path_or_is_refused(text: str) -> None:
    try:
        found = _tags.repository(text, "x")
    except Refused:
        return
    assert f"{found.host}/{found.path}" == f"{text}/x" and not set(found.host) & set("/@?#% \n_")
    assert not set(found.path) & set(":@?#% \nA") and "//" not in found.path
