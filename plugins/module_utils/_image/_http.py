# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HTTPS requests to a registry, and every failure of them as what was found and what to do.

TLS always, with the system's CAs and those that are given besides. Redirects are left to the caller: a registry sends its blobs' readers to
other servers, which must not get the credentials.
"""

from __future__ import annotations

import http.client
import ssl
import typing as t
import urllib.error
import urllib.request

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

#: The largest answer that is read: manifests and configurations of images are a few KiB, and registries refuse manifests above 4 MiB.
LARGEST = 8 << 20

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


class Answer(t.NamedTuple):
    """``headers`` is found in whatever case."""

    status: int
    headers: t.Any
    body: bytes


class Https:
    """Requests over TLS. Raises Refused where no answer comes; an answer of any status is returned."""

    def __init__(self, ca_cert: str | None, timeout: float) -> None:
        self._timeout = timeout
        context = ssl.create_default_context()
        if ca_cert:
            try:
                context.load_verify_locations(cafile=ca_cert)
            except OSError as error:
                problem = f"{ca_cert} cannot be read as CA certificates: {error.strerror or error}"
                raise Refused("ca_cert", problem, "Correct gpufleet_registry_ca_cert (option ca_cert)") from None
        # Put together by hand: no redirects, and nothing that speaks another scheme.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def request(self, target: str, method: str, url: str, headers: t.Mapping[str, str], body: bytes | None = None) -> Answer:
        if url.partition("://")[0].lower() != "https":
            raise Refused(target, f"it leads to {url.partition('?')[0]}, where no TLS is spoken", "Have the registry name an https address")
        try:
            request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)  # noqa: S310  https, as was just checked
            with self._opener.open(request, timeout=self._timeout) as answer:
                return Answer(answer.status, answer.headers, self._read(target, answer))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, self._read(target, error))
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(target, error) from None
        except ValueError:  # its text may have the token in it
            problem = "it has named an address or a token that nothing can be sent with"
            raise Refused(target, problem, "Ask who runs the registry") from None

    def _read(self, target: str, answer: t.Any) -> bytes:
        try:
            data: bytes = answer.read(LARGEST + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(target, error) from None
        if len(data) > LARGEST:
            raise Refused(target, f"what it answers is larger than {LARGEST >> 20} MiB", "Check that this is a registry")
        return data

    def _unreachable(self, target: str, error: Exception) -> Refused:
        reason: t.Any = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            problem = _CERTIFICATE_PROBLEMS.get(reason.verify_code, f"its certificate is not accepted: {reason.verify_message}")
            remedy = (
                "Give the file of its CA in gpufleet_registry_ca_cert (option ca_cert), or give the registry a certificate of a CA that is "
                "trusted here. Nothing turns this check off"
            )
            return Refused(target, problem, remedy)
        if isinstance(reason, ssl.SSLError):
            return Refused(
                target,
                f"it speaks no TLS there ({reason.reason or reason})",
                "Give the registry TLS, or correct the port in gpufleet_registry",
            )
        if isinstance(reason, TimeoutError):
            problem = f"no answer within {self._timeout:g} s"
        elif isinstance(reason, OSError) and reason.strerror:
            problem = f"no connection: {reason.strerror}"
        else:
            problem = f"no answer: {reason or type(error).__name__}"
        return Refused(target, problem, "Check gpufleet_registry, and that this machine reaches the registry (no_proxy, routes)")
