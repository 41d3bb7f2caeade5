#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: virt_handler_restart
short_description: Have KubeVirt's own device plugin look at a node's devices anew
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Deletes the pod of virt-handler on each of the nodes, and waits until its DaemonSet has made a new one that is ready.
  - KubeVirt's own device plugin looks at devices when virt-handler starts. A plugin that runs is never refreshed, so devices that came later, or
    other numbers of them, are not seen before that.
  - Running VMs are not touched. A node that a VM migrates from or to is left as it is, and named.
  - Restarts whenever it is called. Call it only for nodes that need it, such as those in RV(gpufleet.kubevirt.gpu_operator_wait#module:problems).
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Names the pods, and deletes none.
  diff_mode:
    support: full
    description: Shows the pods.
options:
  nodes:
    description: Names of the nodes.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait for the new pods at most.
    type: int
    default: 120
seealso:
  - module: gpufleet.kubevirt.gpu_operator_wait
"""

EXAMPLES = r"""
- name: Have KubeVirt look at the devices of a node anew
  gpufleet.kubevirt.virt_handler_restart:
    nodes: [gpu05]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changes:
  description: What was restarted, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: node gpu05
      action: restart virt-handler
      before: {pod: virt-handler-x7k2p, uid: 5f0d}
      after: {pod: a new one}
      reason: it looks at the node's devices only at its start
blockers:
  description: Nodes whose virt-handler was not restarted, or is not back.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: node gpu05
      problem: shop/build-7 migrates from or to it, which virt-handler carries out
      remedy: Run again when that is over
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _fleet, _unanswered, _virt_handler

DOING = "Restarting virt-handler"
POLL_SECONDS = 1


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "nodes": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    client = _client.connect(module)

    def observe():
        pods = client.list("/api/v1/pods", {"labelSelector": _virt_handler.SELECTOR})
        return _virt_handler.Observed(pods, _fleet.list_if_served(client, _fleet.VMIS) or [])

    def delete(change):
        # Looked for again at the last moment: a migration may have begun since.
        seen = observe()
        node = change.target[len("node ") :]
        again = _virt_handler.make_plan([node], seen)
        if again.blockers:
            return again.blockers[0]
        meta = seen.handler(node)["metadata"]
        if meta.get("uid") == change.before["uid"] and not meta.get("deletionTimestamp"):
            client.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", {"preconditions": {"uid": meta["uid"]}})
        return None

    def apply(changes):
        blockers = []
        for change in changes:
            try:
                blocker = delete(change)
            except _client.ApiError as error:
                blocker = _unanswered.blocker(change.target, error, "Look at virt-handler on it and run again", stops="target")
            if blocker:
                blockers.append(blocker)
        stopped = {blocker.target for blocker in blockers}
        waiting = [change for change in changes if change.target not in stopped]
        until = time.monotonic() + module.params["timeout"]
        while True:
            left = _virt_handler.not_back(waiting, observe())
            if not left or time.monotonic() >= until:
                break
            time.sleep(POLL_SECONDS)
        remedy = "Look at the pods of virt-handler: VMs of this node are not managed without it"
        return blockers + [
            _change.Blocker(target, f"{why}, {module.params['timeout']} s after the old one was deleted", remedy, stops="target")
            for target, why in left.items()
        ]

    try:
        # Planning again would always find something: what came of it has been waited for.
        _change.run(
            module,
            DOING,
            observe,
            lambda seen: _virt_handler.make_plan(module.params["nodes"], seen),
            apply,
            verify=lambda seen: [],
            unreadable=(_client.ApiError,),
        )
    except _client.ApiError as error:
        module.fail_json(msg=f"{DOING}: {error}. Look at the pods of virt-handler, and run again.")


if __name__ == "__main__":
    main()
