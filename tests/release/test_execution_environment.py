# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The execution environment: what ansible-builder makes of its definition, and that it has what the collection imports. No image is built."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.tools import env, release

DEFINITION = env.CHECKOUT / "execution-environment" / "execution-environment.yml"
#: Names of modules, and of the packages that bring them.
PACKAGES = {"highspy": "highspy", "jmespath": "jmespath", "jsonschema": "jsonschema", "kubernetes": "kubernetes"}
#: What comes with ansible-core or with one of those packages, or is only a host's own.
BROUGHT = {"ansible", "ansible_collections", "jinja2", "numpy", "urllib3", "yaml", "referencing"} | {"dnf", "rpm", "apt"}


def builder(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ansible-builder", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_definition_names_the_archive_that_is_built() -> None:
    version = yaml.safe_load((env.CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    assert set(re.findall(r"gpufleet-kubevirt-[0-9.]+\.tar\.gz", DEFINITION.read_text(encoding="utf-8"))) == {
        f"gpufleet-kubevirt-{version}.tar.gz"
    }


def test_ansible_builder_makes_a_build_context_of_it(tmp_path: Path) -> None:
    release.build(tmp_path / "dist")
    shutil.copytree(DEFINITION.parent, tmp_path / "execution-environment")
    done = builder("create", "--context", tmp_path / "context", cwd=tmp_path / "execution-environment")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "context" / "Containerfile").read_text(encoding="utf-8").splitlines()
    helm = next(index for index, line in enumerate(lines) if "helm.tar.gz" in line)
    assert lines.index("FROM base AS final") < helm
    assert lines[helm].index("sha256sum --check") < lines[helm].index("tar --extract"), "nothing is unpacked that was not checked"
    asked = yaml.safe_load((tmp_path / "context/_build/requirements.yml").read_text(encoding="utf-8"))["collections"]
    local = [Path(entry["name"]).name for entry in asked if entry.get("type") == "file"]
    assert [(tmp_path / "context/_build/collection" / name).is_file() for name in local] == [True]


def test_the_collection_says_what_it_needs(tmp_path: Path) -> None:
    place = tmp_path / "ansible_collections" / "gpufleet" / "kubevirt"
    place.mkdir(parents=True)
    release.copy(place)
    done = builder("introspect", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = yaml.safe_load(done.stdout)
    ours = {kind: [line for line in lines if line.endswith("from collection gpufleet.kubevirt")] for kind, lines in found.items()}
    assert {re.split(r"[<>= ]", line)[0] for line in ours["python"]} == set(PACKAGES.values())
    assert [line.split()[0] for line in ours["system"]] == ["openssh-clients", "openssh-client"]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_nothing_is_imported_that_nobody_asks_for() -> None:
    everything = set().union(*(imported(path) for path in (env.CHECKOUT / "plugins").rglob("*.py")))
    assert everything - set(sys.stdlib_module_names) - BROUGHT == set(PACKAGES)


@pytest.mark.parametrize("name", ["meta/execution-environment-python.txt", "meta/execution-environment-system.txt"])
def test_lists_have_no_address_and_no_exact_version(name: str) -> None:
    text = (env.CHECKOUT / name).read_text(encoding="utf-8")
    assert "//" not in re.sub(r"^#.*", "", text, flags=re.MULTILINE) and "==" not in text
