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
import ssl
import time
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import basic_auth_header, open_url

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker

Json = t.Dict[str, t.Any]

ROOT = "/redfish/v1/"
#: A service that is busy says when to come again; altogether it gets this long.
_BUSY_SECONDS = 90.0
_BUSY = (429, 503)
_REDIRECTS = (301, 302, 307, 308)

# Verification results of OpenSSL (X509_V_ERR_*), in words. Python hands the number on in ``verify_code``.
_CERTIFICATE_PROBLEMS = {
    10: "its certificate has expired",
    18: "its certificate is signed by itself, not by a CA",
    19: "its certificate comes from a CA that is not trusted here",
    20: "its certificate comes from a CA that is not trusted here",
    21: "its certificate comes from a CA that is not trusted here",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
_TRUST = (
    "Give the file of its CA in gpufleet_bmc_ca_path (option ca_path), or give the BMC a certificate of a CA that you trust. "
    "gpufleet_bmc_validate_certs: false (option validate_certs) would send the password to whoever answers there"
)


class RedfishError(Exception):
    """What stopped the conversation with a BMC: on what, what was found, what to do. ``status`` is the HTTP status, if one came."""

    def __init__(self, target: str, problem: str, remedy: str, status: int | None = None, messages: t.Sequence[Json] = ()) -> None:
        super().__init__(f"{target}: {problem}. {remedy}")
        self.target, self.problem, self.remedy, self.status, self.messages = target, problem, remedy, status, tuple(messages)

    def blocker(self) -> Blocker:
        return Blocker(self.target, self.problem, self.remedy)

    def mentions(self, *words: str) -> bool:
        """Does the service's own explanation have one of the words?"""
        text = json.dumps(self.messages)
        return any(word in text for word in words)


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
            if failed.status not in _BUSY or time.monotonic() - began + pause > _BUSY_SECONDS:
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
            raise self._unreachable(error) from None

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
        messages = explanations(body)
        said = "; ".join(text(entry) for entry in messages)
        detail = f": {said}" if said else ""
        if status == 401:
            failed = RedfishError(
                self.target,
                f"it refuses user {self._username} with this password{detail}",
                "Correct gpufleet_bmc_username or gpufleet_bmc_password before you run again: it was tried once, and a BMC locks an account "
                "after a few wrong ones",
                status,
                messages,
            )
        elif status == 403:
            failed = RedfishError(
                self.target,
                f"user {self._username} may not {method} {path}{detail}",
                "Give the account the right to configure the system, and end a forced change of its password",
                status,
                messages,
            )
        else:
            remedy = "Do what it says and run again"
            if status in _BUSY:
                remedy = "Run again later, or reset the BMC (not the host)"
            failed = RedfishError(self.target, f"{method} {path} ended with status {status}{detail}", remedy, status, messages)
        return failed, float(after) if after.isdigit() else None

    def _unreachable(self, error: Exception) -> RedfishError:
        reason: t.Any = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            problem = _CERTIFICATE_PROBLEMS.get(reason.verify_code, f"its certificate is not accepted: {reason.verify_message}")
            return RedfishError(self.target, problem, _TRUST)
        if isinstance(reason, ssl.SSLError):
            return RedfishError(self.target, f"no TLS connection: {reason.reason or reason}", "Check the port in gpufleet_bmc_address")
        if isinstance(reason, TimeoutError):
            problem = f"no answer within {self._timeout} s"
        elif isinstance(reason, OSError) and reason.strerror:
            problem = f"no connection: {reason.strerror}"
        else:
            problem = f"no answer: {reason or type(error).__name__}"
        return RedfishError(
            self.target, problem, "Check gpufleet_bmc_address, and that the controller reaches the management network (no_proxy, routes)"
        )


def link(resource: Json, name: str) -> t.Optional[str]:
    """Where a property of a resource leads to, or None."""
    target = resource.get(name)
    path = target.get("@odata.id") if isinstance(target, dict) else None
    return str(path) if path else None


def explanations(body: t.Any) -> t.List[Json]:
    """The messages of an error answer (DSP0266, "Error responses")."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return []
    messages = [entry for entry in error.get("@Message.ExtendedInfo") or [] if isinstance(entry, dict)]
    if any(entry.get("Message") for entry in messages):
        return messages
    return [*messages, {"MessageId": error.get("code"), "Message": error.get("message")}]


def text(message: Json) -> str:
    """One message as a text: what it says, and its identifier, which the vendor's documentation explains."""
    said = " ".join(str(message.get("Message") or "").split()).rstrip(".")
    identifier = message.get("MessageId")
    return f"{said} ({identifier})" if said and identifier else said or str(identifier or "")
