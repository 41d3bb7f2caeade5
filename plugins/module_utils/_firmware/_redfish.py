# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A thin client of one BMC's Redfish service (DMTF DSP0266), on Ansible's own URL layer: HTTPS only, and every failure as what and remedy.

A wrong password is tried once, because BMCs lock an account after a few. A redirect is followed on the same server only (HPE's service
sends one where a slash is missing), so that credentials never go to another.
"""

from __future__ import annotations

import dataclasses
import email.message
import http.client
import json
import time
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import basic_auth_header, open_url

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware import _failures
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware._failures import RedfishError

Json = t.Dict[str, t.Any]

ROOT = "/redfish/v1/"
#: A service that is busy says when to come again; altogether it gets this long.
_BUSY_SECONDS = 90.0
_REDIRECTS = (301, 302, 307, 308)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the service sent: the body (empty if there was none) and the headers."""

    status: int
    body: Json
    headers: t.Mapping[str, str]

    @property
    def etag(self) -> t.Optional[str]:
        tag = self.headers.get("ETag") or self.body.get("@odata.etag")
        return str(tag) if tag else None


def server_of(address: str) -> str:
    """``https://HOST[:PORT]`` of a BMC's address: a name, an IPv4 or IPv6 address, with or without a port. Raises ValueError."""
    text = address.strip()
    if text[:8].lower() == "https://":
        text = text[8:].rstrip("/")
    if not text or "://" in text or set(text) & set("/@?#\\ \t\r\n"):
        raise ValueError(
            f"{address!r} is no address of a BMC: write a name or an IP address, with a port if it is not 443. Only HTTPS is spoken"
        )
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    try:
        split = urllib.parse.urlsplit(f"https://{text}")
        if not split.hostname or split.port == 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"{address!r} is no address of a BMC: write NAME, NAME:PORT or [IPV6]:PORT") from None
    return f"https://{text}"


class Client:
    """Requests to one BMC. ``auth`` is ``session``, ``basic``, or ``auto``: a session where the service offers one."""

    def __init__(
        self,
        server: str,
        username: str,
        password: str,
        validate_certs: bool = True,
        ca_path: t.Optional[str] = None,
        timeout: int = 30,
        auth: str = "auto",
    ) -> None:
        self.server = server
        self.target = f"BMC {server[len('https://') :]}"
        self._username, self._password = username, password
        self._validate_certs, self._ca_path, self._timeout, self._auth = validate_certs, ca_path, timeout, auth
        self._credentials: t.Dict[str, str] = {}
        self._session: t.Optional[str] = None
        self.root: Json = {}

    def open(self) -> None:
        """Read the service's root, which needs no password, and log in."""
        try:
            self.root = self.get(ROOT).body
        except RedfishError as error:
            if error.status not in (400, 403, 404, 405, 501, 502):
                raise
            raise self._no_service(f"{ROOT} answers with status {error.status}") from None
        if "RedfishVersion" not in self.root or not link(self.root, "Systems"):
            raise self._no_service(f"what {ROOT} answers is no service root with systems")
        sessions = link(self.root.get("Links") or {}, "Sessions")
        if self._auth == "basic" or (self._auth == "auto" and not sessions):
            self._credentials = {"Authorization": basic_auth_header(self._username, self._password)}
            return
        if not sessions:
            raise RedfishError(self.target, "its service offers no sessions", "Set auth: basic")
        try:
            answer = self._request("POST", sessions, {"UserName": self._username, "Password": self._password})
        except RedfishError as error:
            if error.status in (401, 403):
                raise
            raise RedfishError(
                self.target,
                f"it opens no session: {error.problem}",
                "If too many are open, close some or wait until they expire; or set auth: basic",
                error.status,
            ) from None
        token = answer.headers.get("X-Auth-Token")
        if not token:
            raise RedfishError(self.target, "it opened a session without a token for it", "Set auth: basic")
        self._credentials = {"X-Auth-Token": token}
        location = urllib.parse.urlsplit(answer.headers.get("Location") or "").path
        self._session = location or str(answer.body.get("@odata.id") or "") or None

    def close(self) -> None:
        """Give the session back: a BMC has room for a few only. A failure of that changes no result."""
        session, self._session = self._session, None
        if session:
            try:
                self._request("DELETE", session)
            except RedfishError:
                return

    def get(self, path: str) -> Answer:
        return self._request("GET", path)

    def patch(self, path: str, body: Json, etag: t.Optional[str]) -> Answer:
        """Change a resource, on condition that its ETag is still the one that is given."""
        return self._request("PATCH", path, body, {"If-Match": etag} if etag else {})

    def _no_service(self, found: str) -> RedfishError:
        return RedfishError(
            self.target, f"there is no Redfish service: {found}", "Check gpufleet_bmc_address, and that Redfish is enabled on this BMC"
        )

    def _request(self, method: str, path: str, body: t.Optional[Json] = None, headers: t.Optional[t.Mapping[str, str]] = None) -> Answer:
        if not path.startswith("/"):
            # A link of the service; put behind the server's name it could name another server.
            raise RedfishError(self.target, f"its service links to {path!r}, which is no path", "Update the BMC's firmware")
        began = time.monotonic()
        attempt = redirects = 0
        while True:
            attempt += 1
            try:
                return self._send(method, path, body, headers or {})
            except urllib.error.HTTPError as error:
                if error.code in _REDIRECTS and redirects < 3:
                    redirects += 1
                    path = self._redirected(path, error)
                    continue
                failed, wait = self._failure(method, path, error)
            pause = wait if wait is not None else min(8.0, 2.0**attempt)
            if failed.status not in _failures.BUSY or time.monotonic() - began + pause > _BUSY_SECONDS:
                raise failed
            time.sleep(pause)

    def _redirected(self, path: str, error: urllib.error.HTTPError) -> str:
        """Where a redirect leads to, on this server."""
        headers: t.Any = error.headers or email.message.Message()
        location = str(headers.get("Location") or "")
        split = urllib.parse.urlsplit(location)
        if not location or (split.netloc and f"{split.scheme}://{split.netloc}".lower() != self.server.lower()):
            problem = f"{path} leads to {location or 'nowhere'}, another server"
            raise RedfishError(self.target, problem, "Put that server into gpufleet_bmc_address if it is the BMC")
        return urllib.parse.urlunsplit(("", "", urllib.parse.urljoin(path, split.path), split.query, ""))

    def _send(self, method: str, path: str, body: t.Optional[Json], headers: t.Mapping[str, str]) -> Answer:
        sent = {"Accept": "application/json", "OData-Version": "4.0", **self._credentials, **headers}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            with open_url(
                self.server + path,
                data=None if body is None else json.dumps(body),
                headers=sent,
                method=method,
                timeout=self._timeout,
                validate_certs=self._validate_certs,
                ca_path=self._ca_path,
                follow_redirects="none",
                use_netrc=False,
                http_agent="gpufleet.kubevirt",
            ) as answer:
                data = answer.read()
                return Answer(answer.status, self._decoded(path, data), answer.headers)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException, UrlsConnectionError) as error:
            raise _failures.unreachable(self.target, self._timeout, error) from None

    def _decoded(self, path: str, data: bytes) -> Json:
        if not data.strip():
            return {}
        try:
            document = json.loads(data)
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
        if path == ROOT:
            raise self._no_service(f"what {ROOT} answers is no JSON object")
        raise RedfishError(
            self.target, f"what {path} answers is no JSON object", "Update the BMC's firmware, or reset the BMC (not the host)"
        )

    def _failure(self, method: str, path: str, error: urllib.error.HTTPError) -> t.Tuple[RedfishError, t.Optional[float]]:
        """The error of a status, and how long the service asks to wait."""
        status = error.code
        headers: t.Any = error.headers or email.message.Message()
        after = str(headers.get("Retry-After") or "")
        try:
            body = json.loads(error.read() or b"{}")
        except (ValueError, OSError):
            body = {}
        failed = _failures.of_status(self.target, self._username, "X-Auth-Token" in self._credentials, f"{method} {path}", status, body)
        return failed, float(after) if after.isdigit() else None


def link(resource: Json, name: str) -> t.Optional[str]:
    """Where a property of a resource leads to, or None."""
    target = resource.get(name)
    path = target.get("@odata.id") if isinstance(target, dict) else None
    return str(path) if path else None
