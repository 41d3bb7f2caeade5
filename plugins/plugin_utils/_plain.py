# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Plain containers of what Ansible hands to a filter: libraries ask for exact types, and Ansible's own carry tags and lazy values."""

from __future__ import annotations

import typing as t


def plain(value: t.Any) -> t.Any:
    """The same data in dict, list, str, bool, int, float and None; anything else stays as it is."""
    if isinstance(value, t.Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value
