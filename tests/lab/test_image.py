# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook `image` with real engines and a real registry: what is built, pushed, read back, and left alone the next time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts import tree
from tests.lab import engines, pki, processes, registry
from tests.lab.layout import CHECKOUT, Layout

#: Not part of ``make test``: container engines are installed by an administrator.
pytestmark = pytest.mark.engine
VERSION = "580.95.02"


@dataclasses.dataclass
class Bench:
    """A registry of the lab without its control plane, and a machine that builds: this one, kept to the lab's directory."""

    layout: Layout
    host: str
    env: dict[str, str]
    password: str

    def play(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run the playbook `image`; its output with what the tasks returned."""
        inventory = self.layout.directory / "inventory.yml"
        hosts = {name: {"gpufleet_host_root": str(self.layout.hosts / name)} for name in ("gpu-ubuntu", "gpu-rhel")}
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "gpufleet_registry": f"{self.host}/nvidia",
            "gpufleet_registry_username": registry.USER,
            "gpufleet_registry_password": self.password,
            "gpufleet_registry_ca_cert": str(self.layout.pki / "ca.crt"),
            "gpufleet_vgpu_run_file": str(self.layout.directory / f"NVIDIA-Linux-x86_64-{VERSION}-vgpu-kvm.run"),
            "gpufleet_vgpu_source": str(self.layout.directory / "sources"),
            **variables,
        }
        inventory.write_text(yaml.safe_dump({"all": {"vars": common, "children": {"gpu_vm_vgpu": {"hosts": hosts}}}}))
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-v",
            "-i",
            str(inventory),
            "gpufleet.kubevirt.image",
            *arguments,
        ]
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**os.environ, **self.env, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def curl(self, path: str) -> bytes:
        """What the registry has, asked with another client than the collection's."""
        command = [sys.executable, "-c", "import ssl, sys, urllib.request as u\n" + _CLIENT, f"https://{self.host}{path}"]
        own = {"CA": str(self.layout.pki / "ca.crt"), "LOGIN": f"{registry.USER}:{self.password}"}
        return subprocess.run(command, env={**os.environ, **own}, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout

    def digest(self, os_tag: str) -> str:
        return f"sha256:{hashlib.sha256(self.curl(f'/v2/nvidia/vgpu-manager/manifests/{VERSION}-{os_tag}')).hexdigest()}"


_CLIENT = """
import base64, os
request = u.Request(sys.argv[1], headers={"Authorization": "Basic " + base64.b64encode(os.environ["LOGIN"].encode()).decode(),
    "Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"})
context = ssl.create_default_context(cafile=os.environ["CA"])
sys.stdout.buffer.write(u.build_opener(u.ProxyHandler({}), u.HTTPSHandler(context=context)).open(request).read())
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    engines.check()
    layout = Layout(tmp_path_factory.mktemp("image") / "lab")
    layout.create({"ports": {}, "programs": ""})
    env: dict[str, str] = {}
    try:
        pki.make(layout.pki)
        host = registry.start(layout)
        env = engines.environment(layout, host)
        engines.push_base(layout, host, env)
        engines.write_installer(layout.directory, VERSION)
        engines.write_sources(layout.directory / "sources")
        tree.build(layout.hosts / "gpu-ubuntu", tree.HostSpec(tree.a10s(), os_id="ubuntu", os_version="22.04"))
        tree.build(layout.hosts / "gpu-rhel", tree.HostSpec(tree.a10s(), os_id="rhel", os_version="9.6"))
        yield Bench(layout, host, env, (registry.directory(layout) / "password").read_text())
    finally:
        processes.stop(layout)
        if env:
            engines.clear(layout, env)
        layout.remove()
        assert not layout.directory.exists()


def recap(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.rpartition("PLAY RECAP")[2]


@pytest.mark.parametrize("engine", ["podman", "buildah"])
def test_the_fleet_gets_one_image_per_system_and_a_second_run_only_reads(engine: str, bench: Bench) -> None:
    name = {"gpufleet_registry": f"{bench.host}/nvidia"}
    if engine == "podman":
        planned = bench.play("--check", gpufleet_image_engine=engine, **name)
        assert planned.returncode == 0 and "known after apply" in planned.stdout, planned.stdout + planned.stderr
    first = bench.play(gpufleet_image_engine=engine, gpufleet_image_force=engine != "podman", **name)
    assert first.returncode == 0 and "changed=1" in recap(first), first.stdout + first.stderr
    assert bench.password not in first.stdout + first.stderr
    tags = json.loads(bench.curl("/v2/nvidia/vgpu-manager/tags/list"))["tags"]
    assert sorted(tags) == [f"{VERSION}-rhel9", f"{VERSION}-rhel9.6", f"{VERSION}-ubuntu22.04"]
    digests = {os_tag: bench.digest(os_tag) for os_tag in ("rhel9", "rhel9.6", "ubuntu22.04")}
    assert digests["rhel9"] == digests["rhel9.6"] != digests["ubuntu22.04"]
    assert all(digest in first.stdout for digest in digests.values())
    began = time.monotonic()
    second = bench.play(gpufleet_image_engine=engine, **name)
    assert second.returncode == 0 and "changed=0" in recap(second) and "changed=1" not in recap(second), second.stdout + second.stderr
    assert {os_tag: bench.digest(os_tag) for os_tag in digests} == digests
    assert time.monotonic() - began < 60


def test_the_image_that_nodes_pull_has_the_unpacked_installer(bench: Bench) -> None:
    """Pulled with the pull secret's account, by the engine that nodes with CRI-O share their code with."""
    reference = f"{bench.host}/nvidia/vgpu-manager:{VERSION}-rhel9.6"
    access = ["--authfile", str(registry.directory(bench.layout) / "config.json"), "--cert-dir", str(engines.certificates(bench.layout))]
    env = {**os.environ, **bench.env}
    pulled = subprocess.run(["buildah", "from", *access, "--pull-always", reference], env=env, capture_output=True, text=True, check=False)
    assert pulled.returncode == 0, pulled.stderr
    container = pulled.stdout.strip().splitlines()[-1]
    mounted = subprocess.run(["buildah", "mount", container], env=env, capture_output=True, text=True, check=True).stdout.strip()
    try:
        assert (Path(mounted) / "driver" / f"NVIDIA-Linux-x86_64-{VERSION}-vgpu-kvm" / ".manifest").read_text() == VERSION
        assert "# rhel9" in (Path(mounted) / "driver" / "nvidia-driver").read_text()
    finally:
        subprocess.run(["buildah", "rm", container], env=env, capture_output=True, check=True)


def test_docker_builds_through_a_compatible_socket(bench: Bench) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("NOT RUN: there is no docker command line on this machine, so building with docker was not tried")
    socket = bench.layout.directory / "podman.sock"
    bundle = bench.layout.directory / "bundle.crt"
    bundle.write_text((bench.layout.pki / "ca.crt").read_text())
    processes.start(
        bench.layout,
        "engine",
        ["podman", "--log-level=error", "system", "service", "-t", "0", f"unix://{socket}"],
        # Docker's client has no option for CAs: they are the service's.
        environment={**bench.env, "SSL_CERT_FILE": str(bundle)},
    )
    processes.wait(bench.layout, "engine", lambda: None if socket.exists() else "no socket yet", 30)
    try:
        bench.env["DOCKER_HOST"] = f"unix://{socket}"
        done = bench.play(gpufleet_image_engine="docker", gpufleet_registry=f"{bench.host}/docker")
        assert done.returncode == 0 and "changed=1" in recap(done), done.stdout + done.stderr
    finally:
        del bench.env["DOCKER_HOST"]
        processes.stop(bench.layout, ["engine"])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"gpufleet_registry_password": "not-it", "gpufleet_registry_push_password": "PASSWORD"}, "it refuses user lab with this password"),
        ({"gpufleet_vgpu_source": ""}, "not all is given"),
    ],
    ids=["password to pull", "source"],
)
def test_what_cannot_be_is_refused_and_the_registry_stays_as_it_is(variables: dict[str, Any], expected: str, bench: Bench) -> None:
    given = {key: bench.password if value == "PASSWORD" else value for key, value in variables.items()}
    before = json.loads(bench.curl("/v2/nvidia/vgpu-manager/tags/list"))["tags"]
    done = bench.play(**given)
    assert done.returncode == 2 and expected in done.stdout and "not-it" not in done.stdout, done.stdout + done.stderr
    assert json.loads(bench.curl("/v2/nvidia/vgpu-manager/tags/list"))["tags"] == before
