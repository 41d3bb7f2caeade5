# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Can the GPUs of a host have the profile that was asked for?"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents import _vgpu_config
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue

#: How many types a message names.
_SHOWN = 6


def misfits(gpus: t.Iterable[t.Any], profile: t.Any) -> list[str]:
    """The GPUs that cannot have a profile, each with what it has instead: ``0000:41:00.0 (has A10-4Q, …)``.

    ``profile``: a name of NVIDIA's stock configuration, or an intent's ``device_config``, for which it says what is wrong. A name that the stock
    configuration does not have is nobody's here: the request itself is refused for it.
    """
    if not isinstance(profile, str):
        known = [gpu for gpu in gpus if isinstance(gpu, t.Mapping) and gpu.get("address")]
        return [found.problem for found in _vgpu_config.types(profile, known)[1]]
    if profile not in _catalogue.known_profiles():
        return []
    found = []
    for gpu in gpus:
        if not isinstance(gpu, t.Mapping):
            continue
        pci, subsystem = str(gpu.get("vendor_device") or ""), str(gpu.get("subsystem") or "")
        if profile == _catalogue.DEFAULT:
            kinds = [kind for kind, _count in _catalogue.default_types(pci)]
            if len(kinds) != 1:
                found.append(f"{gpu.get('address')} ({' and '.join(kinds) if kinds else 'no entry'} in the stock configuration's default)")
        elif _catalogue.most(pci, subsystem, _catalogue.type_of(profile)) is None:
            found.append(f"{gpu.get('address')} ({pci} has {_instead(pci, subsystem, profile)})")
    return found


def _instead(pci: str, subsystem: str, profile: str) -> str:
    """The stock types of a GPU that are nearest to a profile: of its series if there are any, by size."""
    stock = [kind for gpu in _catalogue.at(pci, subsystem) for kind in gpu.types if kind.name in _catalogue.known_profiles()]
    name = _catalogue.type_of(profile)
    wanted = next((kind for gpu in _catalogue.gpus() for kind in gpu.types if kind.name == name), None)
    if wanted is not None:
        stock = [kind for kind in stock if kind.series == wanted.series] or stock
        stock.sort(key=lambda kind: (bool(kind.slices) != bool(wanted.slices), abs(kind.size_gb - wanted.size_gb)))
    names = list(dict.fromkeys(kind.name for kind in stock))
    return ", ".join(names[:_SHOWN]) or "no vGPU types that are known"
