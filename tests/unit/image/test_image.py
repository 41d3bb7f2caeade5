# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module ``vgpu_manager_image``: what it builds and pushes, when it does not, and what it refuses before anything is written."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from conftest import INSTALLER, VERSION, Bench, MakeBench
from fake_registry import PASSWORD, USER, Fault

from tests.unit.conftest import RunModule

Json = dict[str, t.Any]
NAME = "vgpu_manager_image"
TAG = f"{VERSION}-ubuntu22.04"


def problem(result: Json) -> str:
    """The only problem, after checking that the failure is a whole one and that nothing was written."""
    assert result["failed"] and not result["changed"] and result["changes"] == []
    assert [set(blocker) for blocker in result["blockers"]] == [{"target", "problem", "remedy"}]
    blocker = result["blockers"][0]
    assert all(blocker.values()) and f"- {blocker['target']}: {blocker['problem']}. {blocker['remedy']}" in result["msg"]
    assert PASSWORD not in json.dumps(result) and "Traceback" not in result["msg"]
    return str(blocker["problem"])


@pytest.mark.parametrize("engine", ["podman", "buildah", "docker"])
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_missing_image_is_built_and_pushed_once(engine: str, auth: str, run_module: RunModule, make_bench: MakeBench) -> None:
    bench = make_bench(auth)
    first = run_module(NAME, bench.params(engine=engine))
    assert first["changed"] and first["images"] == [
        {
            "reference": f"{bench.registry.host}/nvidia/vgpu-manager:{TAG}",
            "os_tag": "ubuntu22.04",
            "digest": first["images"][0]["digest"],
            "pushed": True,
        }
    ]
    assert first["images"][0]["digest"].startswith("sha256:") and first["checksum"] == f"sha256:{bench.sha256}"
    assert [call.split()[:2] for call in bench.said("calls")] == [[engine, "bud" if engine == "buildah" else "build"], [engine, "push"]]
    assert bench.said("context") == ["./Dockerfile", f"./{INSTALLER}", "./certs/.keep", "./nvidia-driver"]
    assert bench.said("arguments") == ["DRIVER_ARCH=x86_64", f"DRIVER_VERSION={VERSION}"]
    bench.forget()
    second = run_module(NAME, bench.params(engine=engine))
    assert not second["changed"] and second["images"] == [{**first["images"][0], "pushed": False}]
    assert bench.said("calls") == [] and {method for method, _path in bench.registry.requests} == {"GET"}


def test_credentials_reach_the_engine_in_a_file_that_goes_away(run_module: RunModule, bench: Bench) -> None:
    result = run_module(NAME, bench.params(engine="podman"))
    auth = json.loads("".join(bench.said("auth")))["auths"]
    assert base64.b64decode(auth[bench.registry.host]["auth"]).decode() == f"{USER}:{PASSWORD}"
    assert bench.said("modes") == ["700", "600"] and bench.said("certificates") == ["ca.crt"]
    assert PASSWORD not in json.dumps(result) + "".join(bench.said("calls"))
    assert os.listdir(bench.directory / "tmp") == []


def test_docker_gets_a_configuration_of_its_own_in_place_of_the_users(
    run_module: RunModule, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(bench.directory / "of the user"))
    assert run_module(NAME, bench.params(engine="docker"))["changed"]
    assert list(json.loads("".join(bench.said("auth")))["auths"]) == [bench.registry.host]


def test_one_image_gets_all_tags_that_are_built_from_one_directory(run_module: RunModule, bench: Bench) -> None:
    result = run_module(NAME, bench.params(os_tags=["rhel9", "ubuntu22.04", "rhel9.6", "rhcos4.18"]))
    digests = {image["os_tag"]: image["digest"] for image in result["images"]}
    assert digests["rhel9"] == digests["rhel9.6"] == digests["rhcos4.18"] != digests["ubuntu22.04"]
    assert all(image["pushed"] for image in result["images"])
    assert [call.split()[1] for call in bench.said("calls")] == ["build", "push", "build", "push"]
    bench.forget()
    (bench.registry.directory / "manifests" / f"{VERSION}-rhel9").unlink()
    again = run_module(NAME, bench.params(os_tags=["rhel9", "rhel9.6"]))
    assert [change["target"].rpartition("-")[2] for change in again["changes"]] == ["rhel9"] and bench.said("calls") == []
    assert {image["digest"] for image in again["images"]} == {digests["rhel9"]}


def test_check_mode_says_what_a_run_would_write(run_module: RunModule, bench: Bench) -> None:
    planned = run_module(NAME, bench.params(), check=True, diff=True)
    assert bench.said("calls") == [] and bench.registry.tags == set()
    assert planned["images"][0]["digest"] == "known after apply" and not planned["images"][0]["pushed"]
    real = run_module(NAME, bench.params())
    assert planned["changes"] == real["changes"] and [change["action"] for change in real["changes"]] == ["push"]
    assert "the registry has none" in json.dumps(real["changes"])


def _touch(bench: Bench) -> Json:
    os.utime(bench.source / "vgpu-manager" / "ubuntu22.04" / "Dockerfile", (1, 1))
    (bench.source / "vgpu-manager" / "rhel9" / "Dockerfile").write_text("FROM other\n")
    return {}


def _edit(bench: Bench) -> Json:
    (bench.source / "vgpu-manager" / "ubuntu22.04" / "Dockerfile").write_text("FROM other\n")
    return {}


def _make_executable(bench: Bench) -> Json:
    (bench.source / "vgpu-manager" / "ubuntu22.04" / "Dockerfile").chmod(0o755)
    return {}


def _other_installer(bench: Bench) -> Json:
    bench.installer.write_text("#!/bin/sh\nexit 1\n")
    return {}


def _move(bench: Bench) -> Json:
    place = bench.directory / "elsewhere"
    place.mkdir()
    return {"run_file": str(bench.installer.rename(place / INSTALLER))}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_touch, None),
        (_move, None),
        (_edit, "it was made with another source"),
        (_make_executable, "it was made with another source"),
        (_other_installer, "it was made with another installer"),
        (lambda bench: {"build_args": {"CVE_UPDATES": "curl"}}, "it was made with other build arguments"),
        (lambda bench: {"force": True}, "force: true"),
    ],
    ids=["times and other systems", "place of the installer", "source", "mode", "installer", "build arguments", "force"],
)
def test_only_other_inputs_make_another_image(
    change: t.Callable[[Bench], Json], reason: str | None, run_module: RunModule, bench: Bench
) -> None:
    digest = run_module(NAME, bench.params())["images"][0]["digest"]
    result = run_module(NAME, bench.params(**change(bench)), check=True)
    assert [(entry["action"], entry["before"], entry["reason"]) for entry in result["changes"]] == (
        [("replace", digest, reason)] if reason else []
    )
    assert ("keeps the old one" in "".join(result.get("warnings", []))) == bool(reason)


def test_an_image_of_others_is_left_alone_unless_forced(run_module: RunModule, bench: Bench) -> None:
    digest = bench.registry.put(TAG, {"maintainer": "somebody"})
    found = run_module(NAME, bench.params())
    assert f"an image is there ({digest}) that was not made by this module" in problem(found) and bench.said("calls") == []
    assert run_module(NAME, bench.params(force=True))["changes"][0]["before"] == digest
    assert "--no-cache" in bench.said("calls")[0]


def _named(name: str) -> t.Callable[[Bench], Json]:
    return lambda bench: {"run_file": str(bench.installer.rename(bench.directory / name))}


def _written(content: bytes) -> t.Callable[[Bench], Json]:
    def write(bench: Bench) -> Json:
        bench.installer.write_bytes(content)
        return {}

    return write


def _link_out(bench: Bench) -> Json:
    (bench.source / "vgpu-manager" / "ubuntu22.04" / "secret").symlink_to("/etc/shadow")
    return {}


def _no_engine(bench: Bench) -> Json:
    bench.engines()
    return {}


def _auth_file(content: str) -> t.Callable[[Bench], Json]:
    def write(bench: Bench) -> Json:
        (bench.directory / "auth.json").write_text(content)
        return {"auth_file": str(bench.directory / "auth.json"), "username": None, "password": None}

    return write


def _unreadable(name: str) -> t.Callable[[Bench], Json]:
    """To whoever builds. Root may read all, so the system calls say it."""

    def make(bench: Bench) -> Json:
        place = str(bench.source / "vgpu-manager" / "ubuntu22.04" / name)
        bench.forbid(place)
        return {}

    return make


REFUSED: list[tuple[t.Callable[[Bench], Json], str]] = [
    (_named(f"NVIDIA-Linux-x86_64-{VERSION}-grid.run"), "it is the driver for guests (-grid)"),
    (_named(f"NVIDIA-Linux-x86_64-{VERSION}.run"), "it is a driver for containers, not the vGPU manager"),
    (_named("NVIDIA-GRID-Linux-KVM-580.95.02.zip"), "it is an archive"),
    (_named("installer.run"), "its name is none of a vGPU manager's installer"),
    (_named(f"NVIDIA-Linux-aarch64-{VERSION}-vgpu-kvm.run"), "it is for aarch64, and the hosts are x86_64"),
    (lambda bench: {"arch": "aarch64"}, "it is for x86_64, and the hosts are aarch64"),
    (lambda bench: {"driver_version": "580.95.05"}, f"it is version {VERSION}, and version 580.95.05 is asked for"),
    (lambda bench: {"checksum": "sha256:" + "0" * 64}, f"not {'0' * 64}"),
    (lambda bench: {"checksum": "md5:1"}, "is no SHA-256"),
    (lambda bench: {"run_file": f"/nowhere/{INSTALLER}"}, "cannot be read: No such file"),
    (_written(b""), "does not begin like an installer"),
    (_written(b"<html>"), "does not begin like an installer"),
    (lambda bench: {"os_tags": ["ubuntu26.04"]}, "has no vgpu-manager/ubuntu26.04 with a Dockerfile, only rhel9, ubuntu22.04"),
    (lambda bench: {"os_tags": ["ubuntu"]}, "it is no name of an operating system"),
    (lambda bench: {"os_tags": ["../etc1"]}, "it is no name of an operating system"),
    (lambda bench: {"os_tags": []}, "no operating system is given"),
    (lambda bench: {"source": "/nowhere"}, "there is no such directory"),
    (lambda bench: {"source": str(bench.directory)}, "it has no directory vgpu-manager"),
    (_link_out, "is a link that leads out of vgpu-manager/ubuntu22.04"),
    (lambda bench: {"source": "http://git.example.com/x.git", "revision": "main"}, "http does not prove who sends the sources"),
    (lambda bench: {"source": "https://git.example.com/x.git"}, "no revision is given"),
    (
        lambda bench: {"source": f"https://me:{PASSWORD}@git.example.com/x.git", "revision": "main"},
        "its address has a password or a user in it",
    ),
    (lambda bench: {"revision": "--upload-pack=x"}, "is no name of a branch or tag"),
    (lambda bench: {"registry": "http://registry.example.com"}, "only TLS is spoken"),
    (lambda bench: {"registry": "https://registry.example.com"}, "a scheme is no part of it"),
    (lambda bench: {"registry": "me@registry.example.com"}, "has a user name in it"),
    (lambda bench: {"registry": "registry.example.com/NVIDIA"}, "paths are in lower case"),
    (lambda bench: {"registry": "registry"}, "would push to Docker Hub"),
    (lambda bench: {"registry": "docker.io/me"}, "Docker Hub is not served"),
    (lambda bench: {"registry": "registry.example.com:99999"}, "is no registry"),
    (lambda bench: {"name": "vGPU"}, "'vGPU' is none"),
    (lambda bench: {"build_args": {"DRIVER_VERSION": "1"}}, "it comes from the installer and the source"),
    (lambda bench: {"build_args": {"A B": "1"}}, "that is no name"),
    (lambda bench: {"build_args": {"A": ["1"]}}, "its value is no text: list"),
    (lambda bench: {"password": None}, "the password is missing"),
    (lambda bench: {"username": None}, "the user name is missing"),
    (lambda bench: {"password": "wrong"}, f"it refuses user {USER} with this password"),
    (lambda bench: {"username": None, "password": None}, "it lets nobody in without a password"),
    (lambda bench: {"ca_cert": "/nowhere.crt"}, "/nowhere.crt cannot be read as CA certificates"),
    (lambda bench: {"ca_cert": None}, "its certificate comes from a CA that is not trusted here"),
    (_no_engine, "none of podman, buildah, docker is installed here"),
    (lambda bench: (bench.engines("docker"), {"engine": "podman"})[1], "podman is installed here"),
    (_auth_file("{}"), "it is no authentication file"),
    (_auth_file('{"auths": {}}'), "it has no entry for 127.0.0.1"),
    (_auth_file('{"auths": {"127.0.0.1": {"auth": "h\u00e9"}}}'), "it has no entry for 127.0.0.1"),
    (_auth_file("[" * 100_000), "it is no authentication file"),
    (_unreadable("nvidia-driver"), "nvidia-driver cannot be read: Permission denied"),
    (_unreadable("certs"), "certs cannot be read: Permission denied"),
    (
        lambda bench: {"source": f"https://{PASSWORD}@git.example.com/x.git", "revision": "main"},
        "its address has a password or a user in it",
    ),
    (lambda bench: {"auth_file": "/nowhere", "username": None, "password": None}, "it cannot be read: No such file"),
]


@pytest.mark.parametrize(("change", "expected"), REFUSED, ids=[expected[:40] for _change, expected in REFUSED])
def test_what_cannot_be_right_is_refused_before_anything_is_written(
    change: t.Callable[[Bench], Json], expected: str, run_module: RunModule, bench: Bench
) -> None:
    assert expected in problem(run_module(NAME, bench.params(**change(bench))))
    assert bench.said("calls") == [] and bench.registry.tags == set() and os.listdir(bench.directory / "tmp") == []


def test_all_that_is_wrong_with_a_request_is_said_at_once(run_module: RunModule, bench: Bench) -> None:
    result = run_module(NAME, bench.params(source="/nowhere", registry="docker.io/me", os_tags=["x"], run_file="/nowhere/x.run"))
    assert [blocker["target"].split()[0] for blocker in result["blockers"]] == ["installer", "registry", "source", "os_tag"]
    assert bench.registry.requests == []


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_password_is_tried_once(auth: str, run_module: RunModule, make_bench: MakeBench) -> None:
    bench = make_bench(auth)
    assert f"it refuses user {USER} with this password" in problem(run_module(NAME, bench.params(password="not-it")))
    assert len([value for _path, value in bench.registry.sent if value]) == 1


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        ("own", "signed by itself"),
        ("expired", "has expired"),
        ("elsewhere", "is for another address"),
        ("none", "it speaks no TLS there"),
    ],
)
def test_a_registry_that_proves_nothing_gets_no_password(
    certificate: str, expected: str, run_module: RunModule, make_bench: MakeBench
) -> None:
    bench = make_bench(certificate=certificate)
    assert expected in problem(run_module(NAME, bench.params())) and bench.registry.sent == []


def test_a_token_service_without_tls_gets_no_password(run_module: RunModule, make_bench: MakeBench) -> None:
    bench = make_bench("bearer")
    bench.registry.realm = "http://127.0.0.1:1/token"
    assert "where no TLS is spoken" in problem(run_module(NAME, bench.params()))


def test_nobody_at_the_address(run_module: RunModule, bench: Bench) -> None:
    bench.registry.close()
    assert "no connection: Connection refused" in problem(run_module(NAME, bench.params()))


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("The command '/bin/sh -c make' returned a non-zero code: 2", "what is in the registry was left as it was"),
        ("write /x: no space left on device", "Make room"),
    ],
)
def test_a_build_that_fails_is_told_with_its_end(said: str, remedy: str, run_module: RunModule, bench: Bench) -> None:
    (bench.directory / "fail").write_text(f"STEP 1\n{said}\n")
    result = run_module(NAME, bench.params(os_tags=["ubuntu22.04", "rhel9", "rhel9.6"]))
    assert [blocker["target"].rpartition("-")[2] for blocker in result["blockers"]] == ["ubuntu22.04", "rhel9", "rhel9.6"]
    assert said in result["msg"] and remedy in result["msg"] and not result["changed"] and bench.registry.tags == set()


def test_a_push_that_did_not_arrive_as_it_was_sent_is_an_error(run_module: RunModule, bench: Bench) -> None:
    (bench.directory / "wrong").touch()
    result = run_module(NAME, bench.params(engine="podman"))
    assert result["failed"] and "was pushed, and the registry has sha256:" in result["msg"]


def test_a_registry_that_fails_after_a_push_does_not_hide_it(run_module: RunModule, bench: Bench) -> None:
    bench.registry.faults = [Fault(503, "PUT", "rhel9.6")]
    result = run_module(NAME, bench.params(os_tags=["rhel9", "rhel9.6"]))
    assert result["failed"] and result["changed"] and [change["target"].rpartition("-")[2] for change in result["changes"]] == ["rhel9"]
    assert "writing the tag" in result["msg"] and "rhel9.6" in result["blockers"][0]["target"]
    assert run_module(NAME, bench.params(os_tags=["rhel9", "rhel9.6"]))["changed"]
    assert bench.registry.tags == {f"{VERSION}-rhel9", f"{VERSION}-rhel9.6"}


@pytest.mark.parametrize("key", ["HOST", "HOST/nvidia", "https://HOST"])
def test_an_authentication_file_that_is_given_is_used(key: str, run_module: RunModule, bench: Bench) -> None:
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    auths = {key.replace("HOST", bench.registry.host): {"auth": token}, "nvcr.io": {"auth": "eDp5"}}
    file = bench.directory / "auth.json"
    file.write_text(json.dumps({"auths": auths}))
    assert run_module(NAME, bench.params(auth_file=str(file), username=None, password=None))["changed"]
    assert json.loads("".join(bench.said("auth"))) == {"auths": auths}


def test_the_installer_of_nvidia_ai_enterprise_gets_the_plain_name(run_module: RunModule, bench: Bench) -> None:
    aie = bench.installer.rename(bench.directory / INSTALLER.replace("-kvm", "-kvm-aie"))
    assert run_module(NAME, bench.params(run_file=str(aie)))["changed"] and f"./{INSTALLER}" in bench.said("context")


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main"]
    command = ["/usr/bin/env", f"PATH={os.defpath}", "git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_branch_is_resolved_to_a_commit_that_decides(run_module: RunModule, bench: Bench) -> None:
    git(bench.source, "init", "-q")
    git(bench.source, "add", "-A")
    git(bench.source, "commit", "-q", "-m", "one")
    git(bench.source, "tag", "-a", "v1", "-m", "annotated")
    commit = git(bench.source, "rev-parse", "HEAD")
    address = f"file://{bench.source}"
    (bench.source / "vgpu-manager" / "ubuntu22.04" / "Dockerfile").write_text("FROM of-nobody\n")  # not committed
    first = run_module(NAME, bench.params(source=address, revision="main"))
    assert first["changed"] and first["commit"] == commit and f"GIT_COMMIT={commit}" in bench.said("arguments")
    assert bench.said("context") == ["./Dockerfile", f"./{INSTALLER}", "./certs/.keep", "./nvidia-driver"]
    for source, revision in ((address, "v1"), (str(bench.source), "main"), (address, commit)):
        assert not run_module(NAME, bench.params(source=source, revision=revision))["changed"]
    (bench.registry.directory / "manifests" / TAG).unlink()
    assert run_module(NAME, bench.params(source=str(bench.source), revision=commit))["changed"] and "./Dockerfile" in bench.said("context")
    git(bench.source, "commit", "-q", "-a", "-m", "two")
    assert run_module(NAME, bench.params(source=address, revision="main"), check=True)["changed"]
    assert "it has no branch or tag mian" in problem(run_module(NAME, bench.params(source=address, revision="mian")))
    missing = run_module(NAME, bench.params(source=address, revision=commit, os_tags=["ubuntu26.04"]), check=True)
    assert "has no vgpu-manager/ubuntu26.04" in problem(missing)
    assert "git fetch failed" in problem(run_module(NAME, bench.params(source=address, revision="0" * 40)))
