# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A mapping that a filter is given. Every error names the item, the reason and the nearest valid choice."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _offers


class Item:
    """A mapping that was given, with words for its errors, and no keys but those that are read."""

    def __init__(self, where: str, value: t.Any, keys: t.Iterable[str]) -> None:
        if not isinstance(value, t.Mapping):
            raise ValueError(f"{where}: a mapping is needed, not {value!r}")
        for key in value:
            if key not in keys:
                raise ValueError(f"{where}: unknown key {key!r}; nearest: {_offers.nearest(str(key), keys)}")
        self.where = where
        self.value = value

    def wrong(self, words: str) -> t.NoReturn:
        raise ValueError(f"{self.where}: {words}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.value.get(key, default)
        if not isinstance(value, str) or not value:
            self.wrong(f"{key} is needed, a word" if value is None else f"{key} must be a word, not {value!r}")
        return value

    def optional(self, key: str) -> str | None:
        return None if self.value.get(key) is None else self.text(key)

    def whole(self, key: str, least: int, default: int | None = None) -> int:
        value = self.value.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.wrong(f"{key} must be a whole number of at least {least}, not {value!r}")
        return value

    def choice(self, key: str, choices: t.Sequence[str], default: str) -> str:
        value = self.text(key, default)
        if value not in choices:
            self.wrong(f"{key} {value!r} is none of {', '.join(choices)}; nearest: {_offers.nearest(value, choices, 1)}")
        return value

    def entries(self, key: str) -> list[t.Any]:
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(f"{key} must be a list, not {value!r}")
        return value

    def words(self, key: str) -> list[str]:
        for entry in self.entries(key):
            if not isinstance(entry, str):
                self.wrong(f"{key} must be a list of words, not {entry!r}")
        return self.entries(key)

    def mapping(self, key: str) -> dict[str, t.Any] | None:
        value = self.value.get(key)
        if value is not None and not isinstance(value, t.Mapping):
            self.wrong(f"{key} must be a mapping, not {value!r}")
        return None if value is None else dict(value)
