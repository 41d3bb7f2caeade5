# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Tags of operating systems, and references of images: how they are spelled, and which ones the GPU Operator asks for."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

#: Of these the operator takes the major version only (NVIDIA/gpu-operator v26.7.0, controllers/state_manager.go, getGPUNodeOSTag).
MAJOR_ONLY = ("ol", "rocky", "rhel")

_OS_TAG = re.compile(r"(?P<id>[a-z][a-z_-]*)(?P<version>\d+(?:\.\d+)*)")
_VERSION = re.compile(r"\d+(?:\.\d+){1,3}")
#: A registry's host, its port, and the path to repositories in it (distribution/reference, the grammar's ``domain`` and ``path-component``).
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REGISTRY = re.compile(rf"(?P<host>{_HOST})(?:/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*))?")
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")


def os_tags(os_id: str, os_version: str) -> list[str]:
    """The tags under which the image of one operating system is looked for, from the ID and VERSION_ID of its os-release.

    The operator asks for ``rhel9`` where NVIDIA's OpenShift documentation has users build ``rhel9.6``: Red Hat's system gets both.
    Raises ValueError for what is no operating system of an image.
    """
    os_id, os_version = os_id.strip().lower(), os_version.strip()
    if not _OS_TAG.fullmatch(f"{os_id}{os_version}"):
        raise ValueError(f"{os_id!r} with version {os_version!r} is no operating system with a version, so no image can be named after it")
    if os_id not in MAJOR_ONLY:
        return [f"{os_id}{os_version}"]
    major = f"{os_id}{os_version.partition('.')[0]}"
    return sorted({major, f"{os_id}{os_version}"}) if os_id == "rhel" else [major]


def source_directory(os_tag: str) -> str:
    """The directory below ``vgpu-manager/`` of the driver container sources that an image with this tag is built from.

    ``rhel9.6`` and ``rhcos4.18`` are built from ``rhel9`` (NVIDIA/gpu-driver-container, Makefile, DIST of the targets build-vgpuhost-*).
    """
    match = _OS_TAG.fullmatch(os_tag)
    if match and match["id"] == "rhel":
        return f"rhel{match['version'].partition('.')[0]}"
    return "rhel9" if match and match["id"] == "rhcos" else os_tag


def check_os_tag(os_tag: str) -> str:
    if not _OS_TAG.fullmatch(os_tag):
        problem = "it is no name of an operating system with its version, such as ubuntu22.04 or rhel9"
        raise Refused(f"os_tag {os_tag}", problem, "Correct gpufleet_vgpu_os_tags (option os_tags)")
    return os_tag


def image_tag(version: str, os_tag: str) -> str:
    """The tag that the operator looks for: it puts the operating system behind the version itself. Raises Refused."""
    check_os_tag(os_tag)
    if not _VERSION.fullmatch(version):
        remedy = "Correct gpufleet_vgpu_version (option driver_version)"
        raise Refused("driver_version", f"{version!r} is no version of a driver, such as 580.95.02", remedy)
    return f"{version}-{os_tag}"


class Repository(t.NamedTuple):
    """Where images lie: the registry's host (with its port), and the repository in it."""

    host: str
    path: str

    def reference(self, tag: str) -> str:
        return f"{self.host}/{self.path}:{tag}"


def repository(registry: str, name: str) -> Repository:
    """The repository of a registry such as ``registry.example.com:5000/nvidia`` and a name such as ``vgpu-manager``. Raises Refused."""
    remedy = "Write HOST, HOST:PORT or HOST/PATH, without a scheme, in gpufleet_registry (option registry)"
    scheme, separator, _rest = registry.partition("://")
    if separator:
        found = "only TLS is spoken" if scheme.lower() == "http" else "a scheme is no part of it"
        raise Refused("registry", f"{registry if '@' not in registry else scheme + '://...'} is no registry: {found}", remedy)
    if "@" in registry:
        raise Refused("registry", "what is given has a user name in it", "Give that in username and password")
    match = _REGISTRY.fullmatch(registry)
    if not match or (match["host"].rpartition(":")[2].isdigit() and int(match["host"].rpartition(":")[2]) > 65535):
        raise Refused("registry", f"{registry!r} is no registry: paths are in lower case", remedy)
    if match["host"] == "docker.io":
        raise Refused("registry", "Docker Hub is not served here", "Give a private registry in gpufleet_registry (option registry)")
    if "." not in match["host"] and ":" not in match["host"] and match["host"] != "localhost":
        # An engine takes a first part like this for a repository of Docker Hub, and would push there (distribution/reference, normalize.go).
        raise Refused("registry", f"{match['host']} is no host to an engine, which would push to Docker Hub", f"{remedy}, with its domain")
    if not _NAME.fullmatch(name):
        problem = f"{name!r} is none: lower-case letters and digits, with '.', '_' and '-' between them"
        raise Refused("image name", problem, "Correct name")
    return Repository(match["host"], f"{match['path']}/{name}" if match["path"] else name)
