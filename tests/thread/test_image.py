# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vGPU manager's image as a step of ``site``: built for the fleet's systems by a real engine, and asked for before anything is touched."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from tests.lab import engines, registry
from tests.lab.layout import Layout

from .conftest import Lab, Run
from .test_site import writes

#: Not part of ``make test``: container engines are installed by an administrator.
pytestmark = pytest.mark.engine
VERSION = "580.95.02"


class Site(t.Protocol):
    def __call__(self, *arguments: str, **variables: t.Any) -> Run: ...


@pytest.fixture(scope="module")
def site(lab: Lab) -> t.Iterator[Site]:
    """Run ``site`` with an installer, sources and the lab's registry."""
    engines.check()
    layout = Layout(Path(lab.dir).absolute())
    host = registry.start(layout)
    env = engines.environment(layout, host)
    try:
        engines.push_base(layout, host, env)
        variables = {
            "gpufleet_registry": f"{host}/nvidia",
            "gpufleet_registry_username": registry.USER,
            "gpufleet_registry_password": (registry.directory(layout) / "password").read_text(),
            "gpufleet_registry_ca_cert": str(layout.pki / "ca.crt"),
            "gpufleet_vgpu_run_file": str(engines.write_installer(layout.directory / "engines", VERSION)),
            "gpufleet_vgpu_source": str(engines.write_sources(layout.directory / "engines" / "sources")),
            "gpufleet_vgpu_version": VERSION,
        }

        def run(*arguments: str, **more: t.Any) -> Run:
            return lab.play("site.yml", "-e", json.dumps({**variables, **more}), *arguments, env=env)

        yield run
    finally:
        engines.clear(layout, env)
        registry.clear(layout)


def test_the_step_builds_for_the_systems_of_the_vgpu_hosts(site: Site) -> None:
    first = site("--tags", "vgpu_manager_image")
    written = {target for _host, target, _action in first.changes() if "vgpu-manager" in target}
    assert {target.rpartition("/")[2] for target in written} == {f"vgpu-manager:{VERSION}-ubuntu22.04"}, first.output


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"gpufleet_registry_password": "not-it"}, ["it refuses user lab with this password", "gpufleet_registry_password"]),
        (
            {"gpufleet_vgpu_run_file": f"/srv/NVIDIA-Linux-x86_64-{VERSION}-grid.run"},
            ["it is the driver for guests", "gpufleet_vgpu_run_file"],
        ),
    ],
    ids=["password", "guest driver"],
)
def test_an_image_that_cannot_be_had_stops_site_before_a_host_or_the_cluster_is_touched(
    variables: dict[str, str], words: list[str], site: Site, lab: Lab
) -> None:
    trees, position = lab.tree_digest(), lab.audit_size()
    run = site(**variables)
    message = " ".join(run.failures().values())
    assert run.rc == 2 and all(word in message for word in words), run.output
    assert lab.tree_digest() == trees and writes(lab.audit(position)) == []
    assert "not-it" not in run.output and "Traceback" not in run.output
