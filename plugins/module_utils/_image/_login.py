# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Who we are to registries: from a user name and a password, or from an authentication file, and the file that an engine gets of it."""

from __future__ import annotations

import base64
import dataclasses
import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused


@dataclasses.dataclass(frozen=True)
class Login:
    """``auths`` is what the engine's file holds (containers-auth.json(5)): entries by registry."""

    username: t.Optional[str]
    password: t.Optional[str] = dataclasses.field(repr=False)
    auths: t.Mapping[str, t.Any] = dataclasses.field(repr=False)


def of_password(host: str, username: str | None, password: str | None) -> Login:
    """Neither a user name nor a password: as anybody. Raises Refused where one is missing."""
    if not username and not password:
        return Login(None, None, {})
    if not username or not password:
        missing = "user name" if not username else "password"
        remedy = "Give both gpufleet_registry_username and gpufleet_registry_password, or neither"
        raise Refused(f"registry {host}", f"the {missing} is missing", remedy)
    if ":" in username:
        raise Refused(f"registry {host}", "a user name cannot have a colon in it (RFC 7617)", "Correct gpufleet_registry_username")
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    return Login(username, password, {host: {"auth": token}})


def of_file(host: str, path: str, repository_path: str = "") -> Login:
    """The entry of a file for one registry; the longest one that leads to the repository counts. Raises Refused."""
    target, remedy = f"auth_file {path}", "Log in with podman login --authfile FILE, or give username and password"
    try:
        with open(path, encoding="utf-8") as file:
            auths = json.load(file)["auths"]
        items = {str(key): dict(value) for key, value in auths.items()}
    except OSError as error:
        raise Refused(target, f"it cannot be read: {error.strerror or error}", remedy) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(target, 'it is no authentication file: a JSON object with "auths" in it', remedy) from None
    parts = [host, *repository_path.split("/")]
    keys = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    keys += [f"https://{host}", f"https://{host}/", f"https://{host}/v2/"]
    entry = next((items[key] for key in keys if key in items), None)
    if entry is None:
        raise Refused(target, f"it has no entry for {host}", remedy)
    try:
        username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (KeyError, TypeError, ValueError):
        username, colon, password = "", "", ""
    if not colon or not username:
        raise Refused(target, f"its entry for {host} has no user name and password in it; a credential helper is not asked", remedy)
    return Login(username, password, items)
