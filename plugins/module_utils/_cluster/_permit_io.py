# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the permit modules read of the cluster."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet, _kubevirt, _kubevirt_seen

API = "/apis/kubevirt.io/v1"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/kubevirts.kubevirt.io"
_TYPES = "/apis/instancetype.kubevirt.io/v1beta1"

Object = t.Dict[str, t.Any]


class Client(_fleet.Client, t.Protocol):
    def find(self, path: str, query: t.Optional[t.Dict[str, str]] = None) -> t.Optional[Object]: ...


def path(kubevirt: Object) -> str:
    """Where a KubeVirt object is."""
    metadata = kubevirt["metadata"]
    return f"{API}/namespaces/{metadata['namespace']}/kubevirts/{metadata['name']}"


def kubevirt(client: Client, name: str | None, namespace: str | None) -> Object:
    """The KubeVirt object: the named one, or the only one there is. Raises LookupError with a sentence if it cannot be told."""
    if name and namespace:
        found = client.find(f"{API}/namespaces/{namespace}/kubevirts/{name}")
        if found is None:
            raise LookupError(f"{client.server} has no KubeVirt object {namespace}/{name}")
        return found
    all_of_them = _fleet.list_if_served(client, f"{API}/kubevirts")
    if all_of_them is None:
        raise LookupError(f"KubeVirt is not installed on {client.server}: it does not know kubevirts.kubevirt.io. Install KubeVirt first")
    if len(all_of_them) != 1:
        names = ", ".join(f"{k['metadata']['namespace']}/{k['metadata']['name']}" for k in all_of_them) or "none"
        raise LookupError(f"{client.server} must have one KubeVirt object, and has: {names}. Say which one by name and namespace")
    return all_of_them[0]


def users(client: Client) -> t.Tuple[_kubevirt_seen.User, ...]:
    """Everybody who names a device."""
    types = [
        item
        for plural in ("virtualmachineinstancetypes", "virtualmachineclusterinstancetypes")
        for item in _fleet.list_if_served(client, f"{_TYPES}/{plural}") or []
    ]
    machines = _fleet.list_if_served(client, f"{API}/virtualmachines") or []
    return _kubevirt_seen.users(_fleet.list_if_served(client, _fleet.VMIS) or [], machines, types)


def observe(client: Client, request: _kubevirt.Request, name: str | None, namespace: str | None) -> _kubevirt_seen.Seen:
    """The KubeVirt object and what the request's decision needs besides."""
    found = kubevirt(client, name, namespace)
    managed = request.mdev_handling != "unmanaged"
    configuration = (found.get("spec") or {}).get("configuration") or {}
    return _kubevirt_seen.Seen(
        kubevirt=found,
        has_enabled_field=_kubevirt_seen.has_enabled_field(client.find(CRD)) if managed else False,
        users=users(client) if _kubevirt.needs_users(request, configuration) else None,
        vgpus=_kubevirt_seen.vgpus(client.list("/api/v1/nodes")) if request.mdev_handling == "enabled" else {},
    )
