# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the permit modules read of the cluster."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _fleet,
    _kubevirt_hco,
    _kubevirt_request,
    _kubevirt_seen,
    _kubevirt_view,
)

API = "/apis/kubevirt.io/v1"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_HCOS = "hyperconvergeds"
_TYPES = "/apis/instancetype.kubevirt.io/v1beta1"

Object = t.Dict[str, t.Any]


class Unclear(Exception):
    """Which KubeVirt object is meant cannot be told; as text it is a sentence. Of its own, so that no mistake in code or data is taken for it."""


class Client(_fleet.Client, t.Protocol):
    def find(self, path: str, query: t.Optional[t.Dict[str, str]] = None) -> t.Optional[Object]: ...


def path(seen: _kubevirt_seen.Seen) -> str:
    """Where the object is that is written."""
    metadata = seen.written["metadata"]
    plural = "kubevirts" if seen.hco is None else _HCOS
    return f"/apis/{seen.api_version}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def kubevirt(client: Client, name: str | None, namespace: str | None) -> Object:
    """The KubeVirt object: the named one, or the only one there is. Raises Unclear if it cannot be told."""
    if name and namespace:
        found = client.find(f"{API}/namespaces/{namespace}/kubevirts/{name}")
        if found is None:
            raise Unclear(f"{client.server} has no KubeVirt object {namespace}/{name}")
        return found
    all_of_them = _fleet.list_if_served(client, f"{API}/kubevirts")
    if all_of_them is None:
        raise Unclear(f"KubeVirt is not installed on {client.server}: it does not know kubevirts.kubevirt.io. Install KubeVirt first")
    if len(all_of_them) != 1:
        names = ", ".join(f"{k['metadata']['namespace']}/{k['metadata']['name']}" for k in all_of_them) or "none"
        raise Unclear(f"{client.server} must have one KubeVirt object, and has: {names}. Say which one by name and namespace")
    return all_of_them[0]


def hyperconverged(client: Client, kubevirt: Object) -> t.Optional[Object]:
    """The HyperConverged object that a KubeVirt object is made of; None if there is none, or it is not to be found."""
    owner = _kubevirt_hco.reference(kubevirt)
    if owner is None:
        return None
    namespace = kubevirt["metadata"]["namespace"]  # an owner with a namespace is in that of what it owns
    for version in _kubevirt_hco.versions(owner):
        found = client.find(f"/apis/{_kubevirt_hco.GROUP}/{version}/namespaces/{namespace}/{_HCOS}/{owner.get('name')}")
        if found is not None:
            return {**found, "apiVersion": f"{_kubevirt_hco.GROUP}/{version}"}
    return None


def users(client: Client) -> t.Tuple[_kubevirt_seen.User, ...]:
    """Everybody who names a device."""
    types = [
        item
        for plural in ("virtualmachineinstancetypes", "virtualmachineclusterinstancetypes")
        for item in _fleet.list_if_served(client, f"{_TYPES}/{plural}") or []
    ]
    machines = _fleet.list_if_served(client, f"{API}/virtualmachines") or []
    return _kubevirt_seen.users(_fleet.list_if_served(client, _fleet.VMIS) or [], machines, types)


def _knows_enabled(client: Client, hco: t.Optional[Object]) -> bool:
    if hco is None:
        return _kubevirt_seen.has_enabled_field(client.find(f"{_CRDS}/kubevirts.kubevirt.io"))
    version = _kubevirt_hco.version_of(hco)
    crd = client.find(f"{_CRDS}/{_HCOS}.{_kubevirt_hco.GROUP}")
    return _kubevirt_seen.has_enabled_field(crd, _kubevirt_hco.VERSIONS[version], version)


def observe(client: Client, request: _kubevirt_request.Request, name: str | None, namespace: str | None) -> _kubevirt_seen.Seen:
    """The KubeVirt object and what the request's decision needs besides."""
    found = kubevirt(client, name, namespace)
    hco = hyperconverged(client, found)
    exact = request.state == "exact"
    nodes = client.list("/api/v1/nodes") if exact or request.mdev_handling == "enabled" else []
    seen = _kubevirt_seen.Seen(
        kubevirt=found,
        has_enabled_field=_knows_enabled(client, hco) if request.mdev_handling != "unmanaged" else False,
        vgpus=_kubevirt_seen.vgpus(nodes),
        hco=hco,
        advertised=_kubevirt_view.advertised(nodes, silent=True) if exact else {},
    )
    if not _kubevirt_request.needs_users(request, seen.configuration):
        return seen
    return dataclasses.replace(seen, users=users(client))
