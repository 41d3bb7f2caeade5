# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What an image is made of, as one digest that the image carries: equal digests, nothing to build."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._installer import Installer
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

#: Labels of an image: the digest over all inputs, and those of which a change can be told.
INPUT_LABEL = "gpufleet.kubevirt.input"
SOURCE_LABEL = "gpufleet.kubevirt.source"
INSTALLER_LABEL = "gpufleet.kubevirt.installer"

#: Arguments that we give ourselves. The sources' Dockerfiles name the installer after the first two.
OWN_ARGUMENTS = ("DRIVER_VERSION", "DRIVER_ARCH", "GIT_COMMIT")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Of one image. ``source`` is ``git:COMMIT``, or ``files:SHA256`` of files as they lie; ``arguments`` are the build's, all of them."""

    directory: str
    source: str
    installer: Installer
    arguments: tuple[tuple[str, str], ...]

    def digest(self) -> str:
        """``sha256:…`` over all of it. The path of the installer is no input."""
        whole = {
            "arguments": dict(self.arguments),
            "directory": self.directory,
            "installer": self.installer.sha256,
            "name": self.installer.name_in_context,
            "source": self.source,
        }
        return f"sha256:{hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()}"

    def labels(self) -> dict[str, str]:
        return {INPUT_LABEL: self.digest(), SOURCE_LABEL: self.source, INSTALLER_LABEL: f"sha256:{self.installer.sha256}"}

    def differs_from(self, labels: t.Mapping[str, str]) -> str:
        """Why an image with these labels is another one, in words; it has our input label."""
        mine = self.labels()
        parts = {SOURCE_LABEL: "source", INSTALLER_LABEL: "installer"}
        other = [word for label, word in parts.items() if labels.get(label) != mine[label]]
        return f"it was made with another {' and another '.join(other)}" if other else "it was made with other build arguments"


def check_arguments(arguments: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The user's build arguments as text. Raises Refused for one that is none, or that is ours to give."""
    checked = {}
    for key, value in arguments.items():
        target, remedy = f"build argument {key}", "Correct gpufleet_vgpu_build_args (option build_args)"
        if not isinstance(key, str) or not _ARGUMENT.fullmatch(key):
            raise Refused(target, "that is no name: letters, digits and '_', with no digit first", remedy)
        if key in OWN_ARGUMENTS:
            raise Refused(target, "it comes from the installer and the source", f"Leave it out. {remedy}")
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise Refused(target, f"its value is no text: {type(value).__name__}", f"{remedy}, with the value in quotes")
        checked[key] = str(value)
    return checked


def arguments_of(installer: Installer, commit: str | None, own: t.Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """All arguments of a build, sorted."""
    ours = {"DRIVER_VERSION": installer.version, "DRIVER_ARCH": installer.arch, **({"GIT_COMMIT": commit} if commit else {})}
    return tuple(sorted({**own, **ours}.items()))
