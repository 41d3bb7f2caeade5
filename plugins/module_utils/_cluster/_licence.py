# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The Secret with a vGPU licence's client token: made from a file, or there already. Its content is compared in memory and never shown."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import os
import stat
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._vm import MAKER, OURS, Licence, Object

#: Kubernetes takes no Secret above 1 MiB; a token has a few KiB.
_MOST_BYTES = 512 * 1024


@dataclasses.dataclass(frozen=True)
class Token:
    """The content of a token's file. ``open_to_others``: others than its owner may read the file."""

    content: bytes = dataclasses.field(repr=False)
    open_to_others: bool

    def encoded(self) -> str:
        return base64.b64encode(self.content).decode()


def read(path: str) -> Token:
    """The token in a file. Raises ValueError, without a word of the content, if there is none in it."""
    where = f"licence.token_file {path}"
    try:
        with open(os.path.expanduser(path), "rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror or type(error).__name__}") from error
    if not content.strip():
        raise ValueError(f"{where} is empty")
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{where} has more than {_MOST_BYTES // 1024} KiB, which no token has")
    if content.startswith(b"$ANSIBLE_VAULT"):
        raise ValueError(f"{where} is encrypted with Ansible Vault, and guests would get it so; give the decrypted file")
    return Token(content, bool(stat.S_IMODE(status.st_mode) & (stat.S_IRGRP | stat.S_IROTH)))


def target(namespace: str, name: str) -> str:
    return f"secret {namespace}/{name}"


def ours(item: t.Optional[Object]) -> bool:
    """Was this object made by this collection for a VM?"""
    return (((item or {}).get("metadata") or {}).get("annotations") or {}).get(OURS) == MAKER


def body(licence: Licence, token: Token) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": licence.secret, "annotations": {OURS: MAKER}},
        "data": {licence.key: token.encoded()},
    }


def plan(namespace: str, licence: Licence, token: t.Optional[Token], secret: t.Optional[Object]) -> Plan:
    """What to do to the Secret. ``token`` None: it must be there already. No content is ever part of a Change."""
    made = Plan()
    where = target(namespace, licence.secret)
    data = (secret or {}).get("data") or {}
    if token is None:
        if secret is None:
            remedy = f"Make it, with the client token under the key {licence.key}, or set licence.token_file (gpufleet_licence_token_file)"
            made.blockers.append(Blocker(where, "there is none", remedy))
        elif not data.get(licence.key):
            held = ", ".join(sorted(data)) or "none"
            problem = f"it has nothing under the key {licence.key}; its keys are: {held}"
            made.blockers.append(Blocker(where, problem, "Set licence.key to one of its keys, or put the token there"))
        return made
    if secret is None:
        made.changes.append(Change(where, "create", None, {"keys": [licence.key]}, "there is none"))
    elif _decoded(data.get(licence.key)) == token.content:
        pass
    elif ours(secret):
        made.changes.append(Change(where, "update", {licence.key: "other content"}, {licence.key: "as given"}, "content differs"))
    else:
        remedy = "Leave token_file out to use it as it is, or choose another name in licence.secret (gpufleet_licence_secret)"
        made.blockers.append(Blocker(where, "it holds something else under that key, and was not made by this collection", remedy))
    return made


def _decoded(value: t.Any) -> t.Optional[bytes]:
    try:
        return base64.b64decode(str(value or ""), validate=True)
    except (binascii.Error, ValueError):
        return None
