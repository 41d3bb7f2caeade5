#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_node_maintenance
short_description: Take a node out of service within a budget, and back
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - O(state=out_of_service) takes a slot, cordons the node and clears it. A slot is the right to have one more GPU node out of service; all runs
    that work on the cluster share them, in the ConfigMap C(gpufleet-slots) of the namespace C(gpufleet-system). The first slot makes it.
  - GPU nodes that are cordoned or not ready count as out of service too, without a slot.
  - What is cleared, and how, is decided for each VM and pod. Whatever may not be touched is named before anything is written.
  - A VM is stopped by its run strategy, which is written down first; O(state=in_service) writes it back. Static pods, pods of DaemonSets and pods
    that have ended stay. An eviction that a disruption budget refuses is asked for again until O(timeout), and the budget is then named.
  - O(state=in_service) waits until the node is ready, starts what was stopped, takes this collection's own cordon away, and gives the slot back.
  - A slot never ends by itself. If a run dies, another one goes on from where it was, with O(resume=true).
  - If nothing on the node was touched yet when it stops, the node is uncordoned and the slot is given back.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Writes nothing and waits for nothing.
  diff_mode:
    support: full
    description: Shows slot, cordon, and what becomes of each VM and pod.
options:
  node:
    description: Name of the Node object.
    type: str
    required: true
  state:
    description:
      - What the node is to be.
      - V(released) only gives up its slot, whoever holds it. It starts nothing and leaves the cordon.
    type: str
    choices: [out_of_service, in_service, released]
    required: true
  run:
    description: What tells this run from others, the same for all its nodes, such as the number of a job.
    type: str
    required: true
  budget:
    description:
      - How many GPU nodes may be out of service at once in the whole cluster, as a number or as a percentage, which rounds down and is at least 1.
      - While nodes are out, a run with a larger budget than theirs is refused.
    type: str
    default: '1'
  scope:
    description:
      - V(gpu) clears what uses a GPU. V(node) clears all VMs and pods, as a reboot needs it, and takes control-plane nodes one at a time.
    type: str
    choices: [gpu, node]
    default: gpu
  evacuate:
    description:
      - What may happen to VMs and pods.
      - V(refuse) touches none. V(stop) stops VMs. V(migrate) migrates them and refuses those that cannot be. V(auto) migrates them or stops them.
        All three evict pods.
    type: str
    choices: [refuse, stop, migrate, auto]
    default: refuse
  force_vms:
    description:
      - VMs, as C(NAMESPACE/NAME), that may be taken down in any case. An instance that no VirtualMachine made is then deleted for good.
    type: list
    elements: str
    default: []
  force_pods:
    description: May pods be evicted that have data in an C(emptyDir), or that nothing would make again.
    type: bool
    default: false
  reason:
    description: Why, in a few words. Stands in the node's annotation. Required with O(state=released).
    type: str
  resume:
    description: Take over the slot of another run on this node, and finish what it began. Be sure that it is over.
    type: bool
    default: false
  stale_after:
    description: Seconds, by the API server's clock, after which a slot that nobody has written to is taken over without O(resume). 0 means never.
    type: int
    default: 7200
  slot_timeout:
    description: Seconds to wait for a slot.
    type: int
    default: 3600
  timeout:
    description: Seconds until the node must be clear, or must have passed its gate.
    type: int
    default: 1800
  poll:
    description: Seconds between two looks, at least 0.1.
    type: float
    default: 5
  boot_id:
    description: With O(state=in_service), the boot id that the Node must show.
    type: str
  expect:
    description: With O(state=in_service), resources that the node must advertise, each with at least how many.
    type: dict
    default: {}
  problems:
    description:
      - With O(state=in_service), what a gate elsewhere has found. If there is any, the run is marked as failed and gets no further slot; the
        node stays out.
    type: list
    elements: str
    default: []
  planned:
    description: In check mode, an earlier step of the same run would have taken the node out of service. Ignored otherwise.
    type: bool
    default: false
seealso:
  - module: gpufleet.kubevirt.gpu_node_cordon
"""

EXAMPLES = r"""
- name: Take a node out of service, stopping its VMs
  gpufleet.kubevirt.gpu_node_maintenance:
    node: gpu02
    state: out_of_service
    run: job-4711
    scope: node
    evacuate: auto
    reason: reboot
  delegate_to: localhost

- name: Take it back, and start its VMs
  gpufleet.kubevirt.gpu_node_maintenance:
    node: gpu02
    state: in_service
    run: job-4711
  delegate_to: localhost

- name: Give up the slot of a machine that will not come back
  gpufleet.kubevirt.gpu_node_maintenance:
    node: gpu03
    state: released
    run: by hand
    reason: the machine was scrapped
  delegate_to: localhost
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: slot of node gpu02
      action: take
      before: null
      after: {run: job-4711, scope: node}
      reason: "for: reboot"
    - target: VM ml/train
      action: stop
      before: on gpu02
      after: stopped
      reason: it is started again later
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: node gpu02
      problem: "after 3600 s, 1 may be out of service at once, and these are: gpu01 (run job-4710)"
      remedy: Wait until they are back
slot:
  description: The node's slot, with what will be put back; null if it has none.
  type: dict
  returned: when the API could be read
  sample:
    run: job-4711
    scope: node
    restore:
      - {kind: VirtualMachine, namespace: ml, name: train, uid: 6c1f, field: runStrategy, value: Always}
out:
  description: All nodes that are out of service, each with the run that holds it or why.
  type: dict
  returned: when the API could be read
  sample: {gpu02: run job-4711, gpu07: cordoned}
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _client,
    _evacuation,
    _maintenance,
    _maintenance_io,
    _maintenance_out,
    _slots,
    _unanswered,
)

_DOING = {
    "out_of_service": "Taking node {0} out of service",
    "in_service": "Taking node {0} back",
    "released": "Giving up the slot of node {0}",
}


def wish_of(params, doing):
    """The arguments, checked. Raises ValueError with a whole sentence."""

    def refused(option, problem):
        return ValueError(f"{doing}: {option}: {problem}. Nothing was changed.")

    try:
        _names.check_node_name(params["node"])
    except ValueError as error:
        raise refused("node", error) from error
    try:
        _slots.check_budget(params["budget"])
    except ValueError as error:
        raise refused("budget", error) from error
    if not params["run"].strip():
        raise refused("run", "it is empty; name this run, such as by the number of its job")
    for name in params["force_vms"]:
        if name.count("/") != 1 or not all(name.split("/")):
            raise refused("force_vms", f"{name!r} names no VM; write NAMESPACE/NAME")
    for option in ("slot_timeout", "timeout", "stale_after"):
        if params[option] < 0:
            raise refused(option, f"{params[option]} is no number of seconds; write 0 or more")
    expect = {}
    for name, count in params["expect"].items():
        if isinstance(count, bool) or not str(count).isascii() or not str(count).isdigit():
            raise refused("expect", f"{count!r} of {name} is no number; write how many the node must have")
        expect[name] = int(count)
    rules = _evacuation.Rules(params["scope"], params["evacuate"], frozenset(params["force_vms"]), params["force_pods"])
    return _maintenance.Wish(
        node=params["node"],
        state=params["state"],
        run=params["run"],
        budget=params["budget"],
        rules=rules,
        reason=params["reason"] or "maintenance",
        resume=params["resume"],
        stale_after=params["stale_after"],
        boot_id=params["boot_id"],
        expect=expect,
        problems=tuple(params["problems"]),
    )


def result(wish, seen):
    slots = seen.slots
    slot = slots.nodes.get(wish.node)
    shown = None if slot is None else {"run": slot.run, "scope": slot.scope, "restore": [dict(entry) for entry in slot.restore]}
    return {"slot": shown, "out": _slots.out_of_service(slots, _evacuation.gpu_nodes_out(seen.nodes)[1])}


def applier(client, wish, params):
    """What carries the plan out."""
    poll = max(0.1, params["poll"])
    if wish.state == "out_of_service":
        return _maintenance_out.OutOfService(client, wish, params["slot_timeout"], params["timeout"], poll).apply
    if wish.state == "in_service":
        return _maintenance_io.InService(client, wish, params["timeout"], poll).apply
    return lambda: _maintenance_io.release(client, wish)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "node": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["out_of_service", "in_service", "released"], "required": True},
            "run": {"type": "str", "required": True},
            "budget": {"type": "str", "default": "1"},
            "scope": {"type": "str", "choices": ["gpu", "node"], "default": "gpu"},
            "evacuate": {"type": "str", "choices": list(_evacuation.POLICIES), "default": "refuse"},
            "force_vms": {"type": "list", "elements": "str", "default": []},
            "force_pods": {"type": "bool", "default": False},
            "reason": {"type": "str"},
            "resume": {"type": "bool", "default": False},
            "stale_after": {"type": "int", "default": 7200},
            "slot_timeout": {"type": "int", "default": 3600},
            "timeout": {"type": "int", "default": 1800},
            "poll": {"type": "float", "default": 5},
            "boot_id": {"type": "str"},
            "expect": {"type": "dict", "default": {}},
            "problems": {"type": "list", "elements": "str", "default": []},
            "planned": {"type": "bool", "default": False},
        },
        required_if=[("state", "released", ("reason",))],
        supports_check_mode=True,
    )
    doing = _DOING[module.params["state"]].format(module.params["node"])
    try:
        wish = wish_of(module.params, doing)
    except ValueError as error:
        module.fail_json(msg=str(error))
    if module.check_mode and module.params["planned"]:
        wish = dataclasses.replace(wish, planned=True)
    client = _client.connect(module)
    apply = applier(client, wish, module.params)

    def verify(seen):
        left = _maintenance.PLANS[wish.state](wish, seen)
        late = [_change.Blocker(c.target, f"not done: {c.action}", "Run again: what is done stays done") for c in left.changes]
        return [*(left.blockers if not wish.problems else ()), *late]

    try:
        _change.run(
            module,
            doing,
            lambda: _maintenance_io.observe(client, wish),
            lambda seen: _maintenance.PLANS[wish.state](wish, seen),
            lambda changes: apply(),
            result=lambda seen, plan: result(wish, seen),
            verify=verify,
            unreadable=(_client.ApiError, ValueError),
            settle=_unanswered.settle,
        )
    except _client.ApiError as error:
        module.fail_json(msg=f"{doing}: {error}. Nothing was changed.")
    except ValueError as error:
        module.fail_json(msg=f"{doing}: {error}. Look at it, or remove that key if no run is at work. Nothing was changed.")


if __name__ == "__main__":
    main()
