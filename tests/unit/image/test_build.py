# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies between the push and its reading back, and what an image carries."""

from __future__ import annotations

import typing as t
import urllib.parse

import fake_registry
import pytest
from conftest import VERSION, Bench, MakeBench

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _inputs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._installer import Installer
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused
from tests.unit.conftest import RunModule

NAME = "vgpu_manager_image"
INSTALLER = Installer(f"/srv/NVIDIA-Linux-x86_64-{VERSION}-vgpu-kvm.run", VERSION, "x86_64", "5" * 64)


def answers_after_the_push(bench: Bench, monkeypatch: pytest.MonkeyPatch, status: int, tag: str) -> None:
    """The registry answers with ``status`` where the manifest of a tag is read that is there by then."""
    answer = bench.registry.answer

    def changed(method: str, path: str, *rest: t.Any) -> tuple[int, bytes, dict[str, str]]:
        if method == "GET" and path.endswith(f"/manifests/{tag}") and tag in bench.registry.tags:
            return status, b"", {}
        return answer(method, path, *rest)

    monkeypatch.setattr(bench.registry, "answer", changed)


def test_what_was_pushed_is_said_where_it_cannot_be_read_back(run_module: RunModule, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_after_the_push(bench, monkeypatch, 503, f"{VERSION}-ubuntu22.04")
    result = run_module(NAME, bench.params())
    assert result["failed"] and result["changed"] and "ended with status 503" in result["msg"]
    assert [change["target"].rpartition("-")[2] for change in result["changes"]] == ["ubuntu22.04"] and "What was done: push" in result[
        "msg"
    ]


def test_an_image_that_is_gone_before_its_other_tags_are_written_is_said(
    run_module: RunModule, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_after_the_push(bench, monkeypatch, 404, f"{VERSION}-rhel9")
    result = run_module(NAME, bench.params(os_tags=["rhel9", "rhel9.6"]))
    assert result["failed"] and "it was pushed, and the registry has no such tag" in result["msg"]
    assert {blocker["target"].rpartition("-")[2] for blocker in result["blockers"]} == {"rhel9", "rhel9.6"}
    assert bench.registry.tags == {f"{VERSION}-rhel9"}


def test_a_token_that_ran_out_during_the_build_is_asked_for_anew(
    run_module: RunModule, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("bearer")
    answer = bench.registry.answer

    def changed(*asked: t.Any) -> tuple[int, bytes, dict[str, str]]:
        monkeypatch.setattr(fake_registry, "TOKEN", f"token-{len(bench.registry.tags)}")
        return answer(*asked)

    monkeypatch.setattr(bench.registry, "answer", changed)
    assert not run_module(NAME, bench.params(os_tags=["rhel9", "rhel9.6"]))["failed"]
    assert bench.registry.tags == {f"{VERSION}-rhel9", f"{VERSION}-rhel9.6"}
    tokens = [urllib.parse.unquote(path) for _method, path in bench.registry.requests if path.startswith("/token")]
    assert len(tokens) == 3 and all(path.endswith("scope=repository:nvidia/vgpu-manager:pull,push") for path in tokens)


def test_an_engine_that_does_not_say_what_it_pushed_is_believed(run_module: RunModule, bench: Bench) -> None:
    (bench.directory / "silent").touch()
    result = run_module(NAME, bench.params(engine="docker"))
    assert not result["failed"] and result["images"][0]["pushed"]


def test_what_an_image_carries_is_what_earlier_releases_wrote() -> None:
    """With another label or another digest of the same inputs, every image would be built anew."""
    inputs = _inputs.Inputs("rhel9", "git:" + "1" * 40, INSTALLER, _inputs.arguments_of(INSTALLER, "1" * 40, {"CUDA_VERSION": "12"}))
    assert inputs.arguments == (("CUDA_VERSION", "12"), ("DRIVER_ARCH", "x86_64"), ("DRIVER_VERSION", VERSION), ("GIT_COMMIT", "1" * 40))
    assert inputs.labels() == {
        "gpufleet.kubevirt.input": "sha256:dfb41b6e4d0309bc3975c213d20c6c043b3d510a71226e166e85f9439feb4dd2",
        "gpufleet.kubevirt.source": "git:" + "1" * 40,
        "gpufleet.kubevirt.installer": "sha256:" + "5" * 64,
    }


@pytest.mark.parametrize("key", ["DRIVER_VERSION", "DRIVER_ARCH", "GIT_COMMIT"])
def test_what_the_module_says_itself_is_no_argument_of_the_user(key: str) -> None:
    with pytest.raises(Refused, match=f"build argument {key}: it comes from the installer and the source"):
        _inputs.check_arguments({key: "x"})
