#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vgpu_manager_image
short_description: Have NVIDIA's vGPU manager as images in a private registry, one tag per operating system
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Runs on a machine with a container engine, which the controller need not be. Builds from the sources of NVIDIA's driver container and the
    installer that you have downloaded, pushes, and reads back what the registry has then.
  - The commit (or the content) of the sources, the checksum of the installer and the build arguments are kept in the image as a label. Where the
    registry's image has the same, nothing is fetched, built or pushed.
  - What cannot be right is refused before anything is built, such as the driver for guests, an installer of another version or architecture, or an
    operating system that the sources do not know.
  - An image that is there under the same tag and was not made by this module is left alone unless O(force=true).
  - Tags that are built from one directory, such as C(rhel9) and C(rhel9.6), become one image.
  - Only TLS is spoken with the registry, and its certificate is always verified.
attributes:
  check_mode:
    support: full
    description: Reads the registry and the inputs, and says what it would build. The digest of an image is not known before it is built.
  diff_mode:
    support: full
    description: Shows the tags that get another image.
options:
  run_file:
    description:
      - The host driver of the vGPU software, C(NVIDIA-Linux-x86_64-VERSION-vgpu-kvm.run), on the machine that builds.
      - That of NVIDIA AI Enterprise, C(...-vgpu-kvm-aie.run), gets the plain name in the image.
    type: path
    required: true
  driver_version:
    description: The version that O(run_file) must have. Left out, the file's name decides.
    type: str
  arch:
    description: Architecture of the hosts.
    type: str
    choices: [x86_64, aarch64]
    default: x86_64
  checksum:
    description: SHA-256 that O(run_file) must have.
    type: str
  source:
    description:
      - The sources of NVIDIA's driver container, with C(vgpu-manager/OS/Dockerfile) in them.
      - A directory on the machine that builds, or what C(git clone) takes, over https or ssh.
    type: str
    required: true
  revision:
    description: Commit, tag or branch of O(source), which is then read with git. Needed unless O(source) is a directory. A commit has all its digits.
    type: str
  os_tags:
    description: Operating systems to build for, as the operator names them, such as V(ubuntu22.04), V(rhel9) or V(rhel9.6).
    type: list
    elements: str
    required: true
  registry:
    description: Host of the registry, with a port if it is not 443, and a path in it if images lie below one.
    type: str
    required: true
  name:
    description: Name of the image below O(registry).
    type: str
    default: vgpu-manager
  engine:
    description: What builds. V(auto) takes the first of podman, buildah and docker that is there.
    type: str
    choices: [auto, podman, buildah, docker]
    default: auto
  build_args:
    description:
      - Further build arguments. C(DRIVER_VERSION), C(DRIVER_ARCH) and C(GIT_COMMIT) are given by the module.
      - They can be read in the image by whoever may pull it, so put no password into one.
    type: dict
    default: {}
  username:
    description: Account of the registry that may pull and push.
    type: str
  password:
    description: Its password. It reaches the engine in a file that nobody else can read and that goes away.
    type: str
  auth_file:
    description:
      - A file with accounts, as C(podman login --authfile) writes it, instead of O(username) and O(password).
      - Its other entries serve base images.
    type: path
  ca_cert:
    description:
      - File with CA certificates, PEM, to trust besides those of the machine.
      - Docker's daemon does not take it from here. Put it into C(/etc/docker/certs.d) on the machine that the daemon runs on.
    type: path
  force:
    description: Build and push although nothing has changed, without the engine's cache, and replace an image that others have made.
    type: bool
    default: false
  timeout:
    description: Seconds that one build, push or git command may take. A registry's answer is awaited for 60 seconds at most.
    type: int
    default: 3600
notes:
  - A base image whose tag has moved is no other input. To build on it, remove the old one from the engine's store and set O(force=true).
  - The engine's own settings count, from its files and the environment, but not the user's logins.
seealso:
  - module: gpufleet.kubevirt.vgpu_manager_image_info
"""

EXAMPLES = r"""
- name: Have the vGPU manager for the systems of the fleet
  gpufleet.kubevirt.vgpu_manager_image:
    run_file: /srv/nvidia/NVIDIA-Linux-x86_64-580.95.02-vgpu-kvm.run
    checksum: sha256:{{ vgpu_manager_sha256 }}
    source: https://github.com/NVIDIA/gpu-driver-container.git
    revision: 06a208c5e9f8a1f3b7d2c4e6f8091a2b3c4d5e6f
    os_tags: [ubuntu22.04, rhel9, rhel9.6]
    registry: registry.example.com/nvidia
    username: builder
    password: "{{ vault_gpufleet_registry_password }}"
  delegate_to: builder.example.com
  register: built

- name: Show where they are
  ansible.builtin.debug:
    msg: "{{ built.images | map(attribute='reference') }}"
"""

RETURN = r"""
changes:
  description: Tags that were written, or would be. C(before) is the digest that the tag had.
  type: list
  elements: dict
  returned: always
  sample:
    - target: registry.example.com/nvidia/vgpu-manager:580.95.02-ubuntu22.04
      action: push
      before: null
      after: known after apply
      reason: the registry has none
images:
  description: One per tag that was asked for.
  type: list
  elements: dict
  returned: when the registry could be read
  contains:
    reference:
      description: The tag, with its registry.
      type: str
    os_tag:
      description: The operating system.
      type: str
    digest:
      description: What the registry has there, or C(known after apply) in check mode.
      type: str
    pushed:
      description: Whether this run wrote it.
      type: bool
  sample:
    - reference: registry.example.com/nvidia/vgpu-manager:580.95.02-ubuntu22.04
      os_tag: ubuntu22.04
      digest: sha256:0f5a6a3d1d2f4e8c9b7a6958473625140f0e1d2c3b4a59687766554433221100
      pushed: true
driver_version:
  description: Version of the installer.
  type: str
  returned: when the registry could be read
  sample: 580.95.02
checksum:
  description: SHA-256 of the installer.
  type: str
  returned: when the registry could be read
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
commit:
  description: Commit of the sources, or V(null) of a directory.
  type: str
  returned: when the registry could be read
  sample: 06a208c5e9f8a1f3b7d2c4e6f8091a2b3c4d5e6f
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: installer NVIDIA-Linux-x86_64-580.95.05-grid.run
      problem: it is the driver for guests (-grid), which no host can use
      remedy: Give the host driver of the vGPU software's zip, NVIDIA-Linux-ARCH-VERSION-vgpu-kvm.run
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import (
    _build,
    _inputs,
    _installer,
    _login,
    _plan,
    _scratch,
    _source,
    _tags,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._http import Https
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._registry import Registry

DOING = "Building the vGPU manager's image"
#: Seconds that an answer of a registry is awaited for.
ANSWER = 60


class Request:
    """The module's options, each understood by itself, so that all that is wrong with them is said at once."""

    def __init__(self, options):
        self.options, self.blockers = options, []
        self.checksum = self._try(lambda: _installer.of_checksum(options["checksum"])) if options["checksum"] else None
        self.installer = self._try(lambda: _installer.read(self._named(), self.checksum))
        self.repository = self._try(lambda: _tags.repository(options["registry"], options["name"]))
        self.arguments = self._try(lambda: _inputs.check_arguments(options["build_args"]))
        self.source = self._try(lambda: _source.resolve(options["source"], options["revision"], min(options["timeout"], 120)))
        self.https = self._try(lambda: Https(options["ca_cert"], ANSWER))
        self.login = self._try(self._login) if self.repository else None
        for os_tag in options["os_tags"]:
            self._try(lambda tag=os_tag: _tags.check_os_tag(tag))

    def _try(self, read):
        try:
            return read()
        except Refused as error:
            self.blockers.append(error.blocker())
            return None

    def _named(self):
        return _installer.of_name(self.options["run_file"], self.options["driver_version"], self.options["arch"])

    def _login(self):
        host = self.repository.host
        if self.options["auth_file"]:
            return _login.of_file(host, self.options["auth_file"], self.repository.path)
        return _login.of_password(host, self.options["username"], self.options["password"])


def run(module, request, build):
    options = module.params
    wanted = build.wanted(request.repository, request.arguments)
    registry = Registry(request.https, request.repository, request.login.username, request.login.password)

    def result(seen, plan):
        planned = {change.target for change in plan.changes} if module.check_mode else set()
        images = []
        for entry in wanted:
            image = seen.images.get(entry.tag)
            digest = _change.KNOWN_AFTER_APPLY if entry.reference in planned else image.digest if image else None
            pushed = entry.reference in build.pushed
            images.append({"reference": entry.reference, "os_tag": entry.os_tag, "digest": digest, "pushed": pushed})
        return {
            "images": images,
            "driver_version": request.installer.version,
            "checksum": f"sha256:{request.installer.sha256}",
            "commit": request.source.commit,
        }

    _change.run(
        module,
        DOING,
        lambda: build.observe(registry, wanted),
        lambda seen: _plan.make_plan(wanted, seen, options["force"]),
        lambda changes: build.apply(registry, request.login, wanted, changes),
        result,
        lambda seen: _plan.not_taken(wanted, seen, build.pushed),
    )


def refuse(module, blockers, done=()):
    module.fail_json(
        msg=_change.message(DOING, blockers, done),
        blockers=[blocker.as_dict() for blocker in blockers],
        changed=bool(done),
        changes=[change.as_dict() for change in done],
        diff=_change.diff(done),
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "run_file": {"type": "path", "required": True},
            "driver_version": {"type": "str"},
            "arch": {"type": "str", "choices": list(_installer.ARCHITECTURES), "default": "x86_64"},
            "checksum": {"type": "str"},
            "source": {"type": "str", "required": True},
            "revision": {"type": "str"},
            "os_tags": {"type": "list", "elements": "str", "required": True},
            "registry": {"type": "str", "required": True},
            "name": {"type": "str", "default": "vgpu-manager"},
            "engine": {"type": "str", "choices": ["auto", "podman", "buildah", "docker"], "default": "auto"},
            "build_args": {"type": "dict", "default": {}},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "auth_file": {"type": "path"},
            "ca_cert": {"type": "path"},
            "force": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 3600},
        },
        mutually_exclusive=[("auth_file", "username"), ("auth_file", "password")],
        supports_check_mode=True,
    )
    if not module.params["os_tags"]:
        refuse(module, [_change.Blocker("os_tags", "no operating system is given", "Give those of the fleet in gpufleet_vgpu_os_tags")])
    request = Request(module.params)
    if request.blockers:
        refuse(module, request.blockers)
    done = []
    try:
        with _scratch.directory() as scratch:
            build = _build.Build(module.params, request.installer, request.source, scratch)
            try:
                run(module, request, build)
            finally:
                done = build.done
    except Refused as error:
        # What was pushed before the registry went away is there, whether or not it could be read back.
        refuse(module, [error.blocker()], done)
    except OSError as error:
        remedy = "Make room in TMPDIR of the machine that builds, and run again"
        refuse(module, [_change.Blocker("the machine that builds", str(error), remedy)], done)


if __name__ == "__main__":
    main()
