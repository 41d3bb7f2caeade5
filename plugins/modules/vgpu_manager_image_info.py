#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vgpu_manager_image_info
short_description: Which images of the vGPU manager a registry has, as an account may pull them
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Reads the manifest of each tag that the GPU Operator would pull, and asks the registry for every part of the image, with the account that the
    nodes pull with. Nothing is pulled or written, and no container engine is needed.
  - Only TLS is spoken with the registry, and its certificate is always verified.
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  driver_version:
    description: Version of the vGPU manager, the first part of the tag.
    type: str
    required: true
  os_tags:
    description: Operating systems, as the operator names them, the second part of the tag.
    type: list
    elements: str
    required: true
  arch:
    description: Architecture of the hosts.
    type: str
    choices: [x86_64, aarch64]
    default: x86_64
  registry:
    description: Host of the registry, with a port if it is not 443, and a path in it if images lie below one.
    type: str
    required: true
  name:
    description: Name of the image below O(registry).
    type: str
    default: vgpu-manager
  username:
    description: Account that the nodes pull with. Without it the registry is asked as anybody.
    type: str
  password:
    description: Its password.
    type: str
  auth_file:
    description: A file with accounts, as C(podman login --authfile) writes it, instead of O(username) and O(password).
    type: path
  ca_cert:
    description: File with CA certificates, PEM, to trust besides those of the machine.
    type: path
seealso:
  - module: gpufleet.kubevirt.vgpu_manager_image
"""

EXAMPLES = r"""
- name: Ask whether the nodes will find their image
  gpufleet.kubevirt.vgpu_manager_image_info:
    driver_version: 580.95.02
    os_tags: [ubuntu22.04]
    registry: registry.example.com/nvidia
    username: puller
    password: "{{ vault_gpufleet_registry_password }}"
  delegate_to: localhost
  register: there

- name: Stop where one is missing
  ansible.builtin.assert:
    that: there.missing | length == 0
    fail_msg: "No image {{ there.missing | join(', ') }}"
"""

RETURN = r"""
images:
  description: One per tag.
  type: list
  elements: dict
  returned: success
  contains:
    reference:
      description: The tag, with its registry.
      type: str
    os_tag:
      description: The operating system.
      type: str
    digest:
      description: What the registry has there, or V(null).
      type: str
    whole:
      description: Whether the account may pull all parts of it.
      type: bool
    labels:
      description: The image's labels.
      type: dict
  sample:
    - reference: registry.example.com/nvidia/vgpu-manager:580.95.02-ubuntu22.04
      os_tag: ubuntu22.04
      digest: sha256:0f5a6a3d1d2f4e8c9b7a6958473625140f0e1d2c3b4a59687766554433221100
      whole: true
      labels: {}
missing:
  description: References of tags that the registry does not have, or not whole.
  type: list
  elements: str
  returned: success
  sample: []
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: registry registry.example.com
      problem: it refuses user puller with this password
      remedy: Correct gpufleet_registry_username and gpufleet_registry_password
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _installer, _login, _tags
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._http import Https
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._registry import Registry

DOING = "Looking for the vGPU manager's image"
#: Seconds that an answer of a registry is awaited for.
ANSWER = 60


def read(options):
    """One entry per tag. Raises Refused."""
    repository = _tags.repository(options["registry"], options["name"])
    if options["auth_file"]:
        login = _login.of_file(repository.host, options["auth_file"], repository.path)
    else:
        login = _login.of_password(repository.host, options["username"], options["password"])
    tags = [(os_tag, _tags.image_tag(options["driver_version"], os_tag)) for os_tag in dict.fromkeys(options["os_tags"])]
    registry = Registry(Https(options["ca_cert"], ANSWER), repository, login.username, login.password)
    registry.log_in(push=False)
    found = []
    for os_tag, tag in tags:
        image = registry.image(tag, options["arch"])
        found.append(
            {
                "reference": repository.reference(tag),
                "os_tag": os_tag,
                "digest": image.digest if image else None,
                "whole": image is not None and not registry.missing_blobs(image),
                "labels": dict(image.labels) if image else {},
            }
        )
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "driver_version": {"type": "str", "required": True},
            "os_tags": {"type": "list", "elements": "str", "required": True},
            "arch": {"type": "str", "choices": list(_installer.ARCHITECTURES), "default": "x86_64"},
            "registry": {"type": "str", "required": True},
            "name": {"type": "str", "default": "vgpu-manager"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "auth_file": {"type": "path"},
            "ca_cert": {"type": "path"},
        },
        mutually_exclusive=[("auth_file", "username"), ("auth_file", "password")],
        supports_check_mode=True,
    )
    try:
        images = read(module.params)
    except Refused as error:
        module.fail_json(msg=_change.message(DOING, [error.blocker()]), blockers=[error.blocker().as_dict()])
    missing = [image["reference"] for image in images if not image["whole"]]
    module.exit_json(changed=False, images=images, missing=missing)


if __name__ == "__main__":
    main()
