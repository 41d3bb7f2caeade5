#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_node_cordon
short_description: Cordon a node, and take back only your own cordon
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Keeps new pods off a node and notes on it, in the annotation C(gpufleet.kubevirt/cordoned), that this collection did so and why.
  - A node that is cordoned already is left as it is, without that note.
  - O(state=uncordoned) makes a node schedulable only if it carries the note. Somebody else's cordon stays.
  - Evicts nothing.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Asks the API server with C(dryRun=All) and writes nothing.
  diff_mode:
    support: full
    description: Shows whether the node takes pods, and why not.
options:
  node:
    description: Name of the Node object.
    type: str
    required: true
  state:
    description: Whether new pods are to be kept off the node.
    type: str
    choices: [cordoned, uncordoned]
    required: true
  reason:
    description: Why, in a few words.
    type: str
    default: maintenance
  planned:
    description:
      - In check mode, an earlier step of the same run would have cordoned the node. Ignored otherwise.
    type: bool
    default: false
seealso:
  - module: gpufleet.kubevirt.gpu_fleet_info
"""

EXAMPLES = r"""
- name: Keep new pods off the node
  gpufleet.kubevirt.gpu_node_cordon:
    node: gpu02
    state: cordoned
    reason: reboot
  delegate_to: localhost

- name: Let pods in again
  gpufleet.kubevirt.gpu_node_cordon:
    node: gpu02
    state: uncordoned
  delegate_to: localhost
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: node gpu02
      action: cordon
      before: {unschedulable: false, reason: null}
      after: {unschedulable: true, reason: reboot}
      reason: "no new pods before: reboot"
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: node gpu02
      problem: no such node
      remedy: Compare gpufleet_node_name with the names of the cluster's nodes
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _cordon, _unanswered


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "node": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["cordoned", "uncordoned"], "required": True},
            "reason": {"type": "str", "default": "maintenance"},
            "planned": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    name, reason = module.params["node"], module.params["reason"]
    path = f"/api/v1/nodes/{name}"
    client = _client.connect(module)

    def observe():
        node = client.find(path)
        if node is not None and module.check_mode and module.params["planned"]:
            node = _cordon.planned(node, reason)
        return node

    def apply(changes):
        for change in changes:
            try:
                client.patch(path, _cordon.patch(change), dry_run=module.check_mode)
            except _client.ApiError as error:
                return [_unanswered.blocker(change.target, error, "Look at the node and run again")]
        return []

    apply.dry_runs = True
    try:
        _change.run(
            module,
            f"Setting node {name} {module.params['state']}",
            observe,
            lambda node: _cordon.make_plan(name, module.params["state"], reason, node),
            apply,
            settle=_unanswered.settle,
            unreadable=(_client.ApiError,),
        )
    except _client.ApiError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
