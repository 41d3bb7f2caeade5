#!/usr/bin/python
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubevirt_permit
short_description: Permit devices to VMs, beside what others have permitted
version_added: 0.1.0
author:
  - the gpufleet.kubevirt authors (@gpufleet)
description:
  - Merges entries into C(permittedHostDevices) of the KubeVirt object. An entry is known by its selector and resource name together.
    Foreign entries keep their place and spelling, and the list itself is never removed, since without one KubeVirt allows every device.
  - Writes with the resource version that it has read, and computes anew when somebody else was faster.
  - The first list forbids every device that is not in it. The module refuses to make it while VMs, VMIs or instancetypes name others.
  - Lists the feature gate C(GPU) where the version of KubeVirt still needs it (before 1.4) and devices are permitted. Refuses a gate that
    the version does not have, and to turn handling off where it cannot be turned off (before 0.58.2, and 0.59.0).
  - Turns KubeVirt's own creating and deleting of mediated devices on or off, by the field where the installed CRD has one
    (KubeVirt 1.8 and newer) and by the feature gate C(DisableMDEVConfiguration) where not.
  - Where HyperConverged owns the KubeVirt object, changes the HyperConverged object instead, in its own terms (C(pciDeviceSelector), its own
    C(mediatedDevicesConfiguration.enabled) or its gate C(disableMDevConfiguration)); its operator brings that into the KubeVirt object.
    It takes one entry per selector, and has no setting for other feature gates.
  - Refuses to change an object that Argo CD or Flux applies, and returns the patch to commit there.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    support: full
    description: Asks the API server with C(dryRun=All). Where that is forbidden it computes the change without the server and warns.
  diff_mode:
    support: full
    description: Shows each entry, gate and setting that differs.
options:
  pci_devices:
    description:
      - Devices by PCI vendor and device id.
    type: list
    elements: dict
    default: []
    suboptions:
      selector:
        description:
          - PCI vendor and device id such as V(10DE:2236).
          - KubeVirt calls it C(pciVendorSelector), HyperConverged C(pciDeviceSelector). Whichever is given, the object gets its own name.
        type: str
        required: true
        aliases: [pciVendorSelector, pciDeviceSelector]
      resource_name:
        description: The resource that nodes advertise, such as V(nvidia.com/GA102GL_A10). In check mode also V(known after apply).
        type: str
        required: true
        aliases: [resourceName]
      external:
        description: Whether another device plugin than KubeVirt's own advertises it, as the GPU Operator's does.
        type: bool
        default: true
        aliases: [externalResourceProvider]
  mediated_devices:
    description:
      - Mediated devices by the name of their type.
    type: list
    elements: dict
    default: []
    suboptions:
      selector:
        description: Name of a mediated-device type such as V(NVIDIA A10-4Q). Blanks and underscores are the same.
        type: str
        required: true
        aliases: [mdevNameSelector]
      resource_name:
        description: The resource that nodes advertise, such as V(nvidia.com/NVIDIA_A10-4Q). In check mode also V(known after apply).
        type: str
        required: true
        aliases: [resourceName]
      external:
        description: Whether another device plugin than KubeVirt's own advertises it, as the GPU Operator's does.
        type: bool
        default: true
        aliases: [externalResourceProvider]
  state:
    description:
      - V(present) adds, V(absent) removes.
      - V(exact) adds, and removes every other entry whose resource name starts with O(resource_prefix). It decides for the whole fleet, so
        what a node advertises and nobody asked for stops it, unless O(in_use) says otherwise.
    type: str
    choices: [present, absent, exact]
    default: present
  resource_prefix:
    description: What resource names must start with to be touched by O(state=exact).
    type: str
  mdev_handling:
    description: Whether KubeVirt itself creates and deletes mediated devices.
    type: str
    choices: [enabled, disabled, unmanaged]
    default: unmanaged
  feature_gates:
    description: Feature gates of KubeVirt.
    type: dict
    suboptions:
      present:
        description: Gates that must be listed.
        type: list
        elements: str
        default: []
      absent:
        description: Gates that must not be listed.
        type: list
        elements: str
        default: []
      disabled:
        description: Gates that must be listed as disabled (KubeVirt 1.8 and newer), and not as enabled. From 1.9 on beta gates are on otherwise.
        type: list
        elements: str
        default: []
  in_use:
    description: What to do when a device is removed that somebody names, or, with O(state=exact), that a node advertises.
    type: str
    choices: [refuse, warn, ignore]
    default: refuse
  adopt_in_use:
    description:
      - When the first list is made, add the vGPUs that are in use.
      - A PCI device's selector cannot be told from its use, so list those yourself.
    type: bool
    default: false
  name:
    description: Name of the KubeVirt object. Without it, the only one there is.
    type: str
  namespace:
    description: Namespace of the KubeVirt object. Without it, the only one there is.
    type: str
seealso:
  - module: gpufleet.kubevirt.gpu_fleet_info
"""

EXAMPLES = r"""
- name: Permit whole A10 GPUs and one vGPU type
  gpufleet.kubevirt.kubevirt_permit:
    pci_devices:
      - selector: "10DE:2236"
        resource_name: nvidia.com/GA102GL_A10
    mediated_devices:
      - selector: NVIDIA A10-4Q
        resource_name: nvidia.com/NVIDIA_A10-4Q
  delegate_to: localhost
  run_once: true

- name: Keep KubeVirt's hands off mediated devices that the GPU Operator makes
  gpufleet.kubevirt.kubevirt_permit:
    mdev_handling: disabled
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be.
  type: list
  elements: dict
  returned: always
  sample:
    - target: permit pci 10DE:2236
      action: permit
      before: null
      after: {resource_name: nvidia.com/GA102GL_A10, external: true}
      reason: not permitted so far
permitted:
  description: The list as it is now, or V(null) if there is none. That of a HyperConverged object is told in KubeVirt's words.
  type: dict
  returned: always
  sample: {pciHostDevices: [{pciVendorSelector: "10DE:2236", resourceName: nvidia.com/GA102GL_A10, externalResourceProvider: true}]}
feature_gates:
  description: The feature gates for devices that this version of KubeVirt has, and all that are listed, with whether they are in effect.
  type: dict
  returned: always
  sample: {DisableMDEVConfiguration: false, GPU: true, HostDevices: true}
patch:
  description: Where Argo CD or Flux applies the object, what to commit to their source. Lists are whole, since they replace those that are there.
  type: dict
  returned: when it is refused for that
  sample:
    apiVersion: kubevirt.io/v1
    kind: KubeVirt
    metadata: {name: kubevirt, namespace: kubevirt}
    spec: {configuration: {mediatedDevicesConfiguration: {enabled: false}}}
mdev_handling:
  description: Whether KubeVirt itself creates and deletes mediated devices now, V(enabled) or V(disabled).
  type: str
  returned: always
  sample: disabled
blockers:
  description: What stopped the module.
  type: list
  elements: dict
  returned: failure
  sample:
    - target: device vendor.example.com/NIC
      problem: no list exists so far, so every device is allowed; VM net/router uses it and could not start again
      remedy: List it too, or set adopt_in_use for vGPUs
"""

import random
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _client,
    _kubevirt,
    _kubevirt_gates,
    _kubevirt_request,
    _kubevirt_seen,
    _permit_io,
    _unanswered,
)

DOING = "Permitting devices in KubeVirt"
TRIES = 5


def request_of(params):
    def entries(kind, option):
        return tuple(_kubevirt_seen.Entry(kind, e["selector"], e["resource_name"], e["external"]) for e in params[option])

    gates = params["feature_gates"] or {}
    return _kubevirt_request.Request(
        entries=entries("pci", "pci_devices") + entries("mdev", "mediated_devices"),
        state=params["state"],
        prefix=params["resource_prefix"],
        mdev_handling=params["mdev_handling"],
        gates_present=tuple(gates.get("present") or ()),
        gates_absent=tuple(gates.get("absent") or ()),
        gates_disabled=tuple(gates.get("disabled") or ()),
        in_use=params["in_use"],
        adopt_in_use=params["adopt_in_use"],
    )


class Permit:
    """One run: reads, plans, writes, and plans anew on a conflict. The API server's answer to the write is what was stored, and read back."""

    def __init__(self, module, client):
        self.module = module
        self.client = client
        self.request = request_of(module.params)
        self.seen = None
        self.stored = False

    def observe(self):
        if not self.stored:
            self.seen = _permit_io.observe(self.client, self.request, self.module.params["name"], self.module.params["namespace"])
        return self.seen

    def plan(self, seen):
        plan = _kubevirt.make_plan(self.request, seen)[0]
        if seen.hco is None and any("pciDeviceSelector" in entry for entry in self.module.params["pci_devices"]):
            plan.warnings.append(f"pciDeviceSelector is HyperConverged's word. {seen.target} gets pciVendorSelector.")
        return plan

    def apply(self, _changes):
        for attempt in range(1, TRIES + 1):
            plan, configuration = _kubevirt.make_plan(self.request, self.seen)
            if plan.blockers or not configuration:
                return plan.blockers  # an earlier writer did it, or made it impossible
            try:
                body = _kubevirt.patch(self.seen, configuration)
                before = len(self.client.warnings)  # of reading
                answer = self.client.patch(_permit_io.path(self.seen), body, dry_run=self.module.check_mode)
                for text in self.client.warnings[before:]:
                    self.module.warn(f"The API server says of {self.seen.target}: {text}")
            except _client.ApiError as error:
                if error.status == 403 and self.module.check_mode:
                    self.module.warn(f"The API server does not allow a dry run, so this is computed without it: {error}")
                    return []
                if error.status != 409 or attempt == TRIES:
                    return [_unanswered.blocker(self.seen.target, error, "Mend that and run again", note=f" (attempt {attempt})")]
            else:
                if self.module.check_mode:
                    return self.pruned(self.seen.with_answer(answer), "it would be written, but the object would not have it")
                self.seen, self.stored = self.seen.with_answer(answer), True
                return []
            time.sleep(random.uniform(0.05, 0.2) * attempt)
            self.observe()
        return []

    apply.dry_runs = True

    def verify(self, seen):
        if self.stored:
            return self.pruned(seen, "it was written, but the object does not have it")
        return [
            _change.Blocker(change.target, "not written", "It goes into the object together with the rest")
            for change in self.plan(seen).changes
        ]

    def pruned(self, seen, problem):
        """What the API server has not kept of what was sent to it."""
        remedy = "See whether the definition fits KubeVirt's version, and which webhooks change it"
        return [
            _change.Blocker(change.target, f"{problem}: pruned by its definition, or changed by a webhook", remedy)
            for change in self.plan(seen).changes
            if _kubevirt.known(change)
        ]

    def result(self, seen, _plan):
        developer = seen.configuration.get("developerConfiguration") or {}
        listed, disabled = developer.get("featureGates") or [], developer.get("disabledFeatureGates") or []
        found = {
            "permitted": seen.configuration.get(_kubevirt_seen.PERMITTED),
            "mdev_handling": _kubevirt_seen.handling(seen),
            "feature_gates": _kubevirt_gates.effective(seen.version, listed, disabled),
        }
        patch = _kubevirt.to_commit(self.request, seen)
        return {**found, "patch": patch} if patch else found


def main() -> None:
    def devices(*selector):
        return {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "selector": {"type": "str", "required": True, "aliases": list(selector)},
                "resource_name": {"type": "str", "required": True, "aliases": ["resourceName"]},
                "external": {"type": "bool", "default": True, "aliases": ["externalResourceProvider"]},
            },
        }

    gates = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            **_client.auth_argument_spec(),
            "pci_devices": devices("pciVendorSelector", "pciDeviceSelector"),
            "mediated_devices": devices("mdevNameSelector"),
            "state": {"type": "str", "choices": ["present", "absent", "exact"], "default": "present"},
            "resource_prefix": {"type": "str"},
            "mdev_handling": {"type": "str", "choices": ["enabled", "disabled", "unmanaged"], "default": "unmanaged"},
            "feature_gates": {"type": "dict", "options": {"present": gates, "absent": gates, "disabled": gates}},
            "in_use": {"type": "str", "choices": ["refuse", "warn", "ignore"], "default": "refuse"},
            "adopt_in_use": {"type": "bool", "default": False},
            "name": {"type": "str"},
            "namespace": {"type": "str"},
        },
        required_together=[("name", "namespace")],
        supports_check_mode=True,
    )
    problems = _kubevirt_request.request_problems(request_of(module.params), module.check_mode)
    if problems:
        module.fail_json(msg=_change.message(DOING, problems), blockers=[problem.as_dict() for problem in problems])
    permit = Permit(module, _client.connect(module))
    try:
        _change.run(
            module,
            DOING,
            permit.observe,
            permit.plan,
            permit.apply,
            permit.result,
            permit.verify,
            settle=_unanswered.settle,
            unreadable=(_client.ApiError,),
        )
    except (_client.ApiError, _permit_io.Unclear) as error:
        module.fail_json(msg=f"{DOING}: {error}. Nothing was changed.")


if __name__ == "__main__":
    main()
