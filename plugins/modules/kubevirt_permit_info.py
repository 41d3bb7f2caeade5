#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubevirt_permit_info
short_description: Compare the devices that KubeVirt permits, that nodes advertise and that VMs ask for
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Reads the KubeVirt object, the nodes, and the VMs, VMIs and instancetypes that name devices, and shows each device from all three sides.
  - Devices that are asked for through resource claims are left out, since KubeVirt's list does not apply to them.
  - Only reads.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  resource_prefix:
    description:
      - What a resource name must start with to be shown when nodes advertise it and nobody permits it or asks for it.
    type: str
    default: nvidia.com/
  name:
    description: Name of the KubeVirt object. Without it, the only one there is.
    type: str
  namespace:
    description: Namespace of the KubeVirt object. Without it, the only one there is.
    type: str
seealso:
  - module: gpufleet.kubevirt.kubevirt_permit
"""

EXAMPLES = r"""
- name: Compare what is permitted, advertised and asked for
  gpufleet.kubevirt.kubevirt_permit_info:
  register: permits
  delegate_to: localhost
  run_once: true

- name: Stop if a VM asks for what it cannot get
  ansible.builtin.assert:
    that: permits.misses | length == 0
    fail_msg: "{{ permits.misses }}"
"""

RETURN = r"""
kubevirt:
  description:
    - The KubeVirt object. C(allow_list) says whether it has a list. Without one it permits every device.
    - C(feature_gates) are listed. C(gates_in_effect) has each gate for devices that this version has, and each listed one, with whether it is on.
  type: dict
  returned: success
  sample:
    namespace: kubevirt
    name: kubevirt
    version: v1.7.0
    owner: null
    allow_list: true
    mdev_handling: disabled
    feature_gates: [DisableMDEVConfiguration]
    gates_in_effect: {DisableMDEVConfiguration: true, GPU: true, GPUsWithDRA: false, HostDevices: false, HostDevicesWithDRA: false}
devices:
  description: Each device that is permitted, asked for, or advertised below O(resource_prefix), sorted by resource name.
  type: list
  elements: dict
  returned: success
  sample:
    - resource_name: nvidia.com/GA102GL_A10
      permitted: true
      entries: [{kind: pci, selector: "10DE:2236", external: true}]
      advertised: {gpu01: 2}
      requested_by: [VM ml/a, VMI ml/a]
orphans:
  description: Resource names that are permitted and that no node advertises.
  type: list
  elements: str
  returned: success
  sample: []
misses:
  description: What somebody asks for and cannot get, and why not.
  type: list
  elements: dict
  returned: success
  sample:
    - resource_name: nvidia.com/NVIDIA_A10-8Q
      problem: KubeVirt does not permit it, so these cannot start
      remedy: Permit it with kubevirt_permit
      requested_by: [VM ml/b]
unpermitted:
  description: Resource names that nodes advertise and that no VM may use. Those of containers and of a GPU's companions are left out.
  type: list
  elements: str
  returned: success
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _client,
    _fleet,
    _kubevirt_gates,
    _kubevirt_seen,
    _kubevirt_view,
    _permit_io,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "resource_prefix": {"type": "str", "default": "nvidia.com/"},
            "name": {"type": "str"},
            "namespace": {"type": "str"},
        },
        required_together=[("name", "namespace")],
        supports_check_mode=True,
    )
    client = _client.connect(module)
    try:
        found = _permit_io.kubevirt(client, module.params["name"], module.params["namespace"])
        nodes, users = client.list("/api/v1/nodes"), _permit_io.users(client)
        seen = _kubevirt_seen.Seen(found, has_enabled_field=False)
        developer = seen.configuration.get("developerConfiguration") or {}
        permitted = seen.configuration.get(_kubevirt_seen.PERMITTED)
        compared = _kubevirt_view.view(permitted, nodes, users, module.params["resource_prefix"])
    except (_client.ApiError, _permit_io.Unclear, ValueError) as error:
        module.fail_json(msg=f"Comparing permitted devices: {error}. Nothing was changed.")
    shown = _fleet.kubevirt_of([found])
    module.exit_json(
        changed=False,
        kubevirt={
            **{key: shown[key] for key in ("namespace", "name", "version", "owner", "feature_gates")},
            "allow_list": permitted is not None,
            "mdev_handling": _kubevirt_seen.handling(seen),
            "gates_in_effect": _kubevirt_gates.effective(
                seen.version, developer.get("featureGates") or [], developer.get("disabledFeatureGates") or []
            ),
        },
        **compared,
    )


if __name__ == "__main__":
    main()
