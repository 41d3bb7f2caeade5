#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_operator_rollout_info
short_description: See how the GPU Operator's operands are updated, and which nodes still have old ones
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Reads the DaemonSets of the operands, their revisions and their pods.
  - With O(update_strategy) it waits until every one of these DaemonSets is updated that way, and fails naming those that are not.
  - A pod of an older revision makes its node pending. Under C(OnDelete) it stays until somebody deletes it.
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
  namespace:
    description: Namespace of the operator.
    type: str
    default: gpu-operator
  nodes:
    description: Nodes that may be pending. Empty means all.
    type: list
    elements: str
    default: []
  update_strategy:
    description: The update strategy that all operands must have. Without it none is required.
    type: str
    choices: [OnDelete, RollingUpdate]
  settle:
    description: Seconds for which no DaemonSet of an operand may change, so that the operator has done what it was told.
    type: int
    default: 0
  timeout:
    description: Seconds to wait for the strategy and for DaemonSets to settle.
    type: int
    default: 120
  poll:
    description: Seconds between two looks, at least 0.1.
    type: float
    default: 1
seealso:
  - module: gpufleet.kubevirt.gpu_operator_wait
"""

EXAMPLES = r"""
- name: See that no update restarts an operand
  gpufleet.kubevirt.gpu_operator_rollout_info:
    update_strategy: OnDelete
  register: rollout

- name: Say which nodes still have old operands
  ansible.builtin.debug:
    msg: "{{ rollout.text }}"
"""

RETURN = r"""
daemonsets:
  description: The operands' DaemonSets.
  type: list
  elements: dict
  returned: always
  sample: [{name: nvidia-vfio-manager, update_strategy: OnDelete}]
pending:
  description: Nodes with pods of an older revision, and the VMs with GPUs there.
  type: list
  elements: dict
  returned: always
  sample: [{node: gpu01, pods: [nvidia-vfio-manager-x7k2p], vms: [ml/a]}]
text:
  description: The same as a message, empty if no node is pending.
  type: str
  returned: success
  sample: ""
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _fleet, _rollout

DOING = "Reading how the operands are updated"


def look(client, namespace):
    base = f"/apis/apps/v1/namespaces/{namespace}"
    vms = {}
    for use in _fleet.uses([], _fleet.list_if_served(client, _fleet.VMIS) or []):
        vms.setdefault(use.node, []).append(f"{use.namespace}/{use.vmi}")
    return _rollout.Seen(
        daemonsets=client.list(f"{base}/daemonsets"),
        revisions=client.list(f"{base}/controllerrevisions"),
        pods=client.list(f"/api/v1/namespaces/{namespace}/pods"),
        vms=vms,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "namespace": {"type": "str", "default": "gpu-operator"},
            "nodes": {"type": "list", "elements": "str", "default": []},
            "update_strategy": {"type": "str", "choices": ["OnDelete", "RollingUpdate"]},
            "settle": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 120},
            "poll": {"type": "float", "default": 1},
        },
        supports_check_mode=True,
    )
    namespace, strategy = module.params["namespace"], module.params["update_strategy"]
    client = _client.connect(module)
    began = since = time.monotonic()
    before = None
    while True:
        try:
            seen = look(client, namespace)
        except _client.ApiError as error:
            module.fail_json(msg=f"{DOING}: {error}. Nothing was changed.", daemonsets=[], pending=[])
        now = time.monotonic()
        if _rollout.state(seen) != before:
            before, since = _rollout.state(seen), now
        other = _rollout.other_strategy(seen, strategy) if strategy else []
        unsettled = _rollout.unsettled(seen)
        found = {
            "daemonsets": [{"name": item["metadata"]["name"], "update_strategy": _rollout.strategy_of(item)} for item in seen.operands],
            "pending": _rollout.pending(seen, module.params["nodes"]),
        }
        if not other and not unsettled and now - since >= module.params["settle"]:
            module.exit_json(changed=False, text=_rollout.text(found["pending"], namespace), **found)
        if now - began >= module.params["timeout"]:
            lines = [f"{DOING}: not as wanted in namespace {namespace} after {now - began:.0f} s."]
            lines += [f"- DaemonSet {name}: it must be {strategy}." for name in other]
            lines += [f"- DaemonSet {name}: its controller has not seen its last change." for name in unsettled]
            lines += [] if other or unsettled else ["- the DaemonSets are still being changed."]
            module.fail_json(msg="\n".join([*lines, "Look at the operator's log, and run again. Nothing else was changed."]), **found)
        time.sleep(max(0.1, module.params["poll"]))


if __name__ == "__main__":
    main()
