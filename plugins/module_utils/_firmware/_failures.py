# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What goes wrong with a BMC, in words: what was found and what to do."""

from __future__ import annotations

import json
import ssl
import typing as t
import urllib.error

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker

Json = t.Dict[str, t.Any]

#: A service that answers so may be asked again.
BUSY = (429, 503)

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


def of_status(target: str, username: str, in_session: bool, request: str, status: int, body: t.Any) -> RedfishError:
    """The error of an answer with this status to ``request`` (method and path)."""
    messages = explanations(body)
    said = "; ".join(text(entry) for entry in messages)
    detail = f": {said}" if said else ""
    if status == 401 and in_session:
        problem, remedy = f"it no longer knows the session that it opened{detail}", "Run again; if that repeats, set auth: basic"
    elif status == 401:
        problem = f"it refuses user {username} with this password{detail}"
        remedy = (
            "Correct gpufleet_bmc_username or gpufleet_bmc_password before you run again: it was tried once, and a BMC locks an account "
            "after a few wrong ones"
        )
    elif status == 403:
        problem = f"user {username} may not {request}{detail}"
        remedy = "Give the account the right to configure the system, and end a forced change of its password"
    else:
        problem = f"{request} ended with status {status}{detail}"
        remedy = "Run again later, or reset the BMC (not the host)" if status in BUSY else "Do what it says and run again"
    return RedfishError(target, problem, remedy, status, messages)


def unreachable(target: str, timeout: int, error: Exception) -> RedfishError:
    """The error of a request that no answer came to."""
    reason: t.Any = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        problem = _CERTIFICATE_PROBLEMS.get(reason.verify_code, f"its certificate is not accepted: {reason.verify_message}")
        return RedfishError(target, problem, _TRUST)
    if isinstance(reason, ssl.SSLError):
        return RedfishError(target, f"no TLS connection: {reason.reason or reason}", "Check the port in gpufleet_bmc_address")
    if isinstance(reason, TimeoutError):
        problem = f"no answer within {timeout} s"
    elif isinstance(reason, OSError) and reason.strerror:
        problem = f"no connection: {reason.strerror}"
    else:
        problem = f"no answer: {reason or type(error).__name__}"
    return RedfishError(
        target, problem, "Check gpufleet_bmc_address, and that the controller reaches the management network (no_proxy, routes)"
    )


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
