# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a BIOS attribute may be: read from the AttributeRegistry of the service (DMTF DSP8010, AttributeRegistry.v1), or guessed from its value."""

from __future__ import annotations

import dataclasses
import typing as t

Json = t.Dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Attribute:
    """One entry of a registry. ``values`` are pairs of a value's name and of how it is displayed."""

    kind: str
    read_only: bool = False
    values: t.Tuple[t.Tuple[str, str], ...] = ()
    lower: t.Optional[int] = None
    upper: t.Optional[int] = None
    step: int = 0
    min_length: int = 0
    max_length: t.Optional[int] = None

    def choices(self, current: t.Any) -> t.List[str]:
        """The values of an enumeration, as this service speaks of them.

        The schema says that an attribute holds a value's name. Supermicro's registries name the values ``0`` and ``1`` while its attributes
        hold what is displayed (``Enable``), so the current value decides.
        """
        names = [name for name, _display in self.values]
        displayed = [display for _name, display in self.values]
        return displayed if current in displayed and current not in names else names


def parse(document: Json) -> t.Dict[str, Attribute]:
    """The attributes of a registry by name."""
    entries = (document.get("RegistryEntries") or {}).get("Attributes") or []
    return {entry["AttributeName"]: _attribute(entry) for entry in entries if entry.get("AttributeName")}


def _attribute(entry: Json) -> Attribute:
    values = tuple(
        (str(value.get("ValueName")), str(value.get("ValueDisplayName") or value.get("ValueName"))) for value in entry.get("Value") or []
    )
    return Attribute(
        kind=str(entry.get("Type") or ""),
        read_only=bool(entry.get("ReadOnly") or entry.get("Immutable")),
        values=values,
        lower=_number(entry.get("LowerBound")),
        upper=_number(entry.get("UpperBound")),
        step=_number(entry.get("ScalarIncrement")) or 0,
        min_length=_number(entry.get("MinLength")) or 0,
        max_length=_number(entry.get("MaxLength")),
    )


def _number(value: t.Any) -> t.Optional[int]:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def guessed(current: t.Any) -> Attribute:
    """What an attribute without an entry seems to be."""
    if isinstance(current, bool):
        return Attribute("Boolean")
    if isinstance(current, int):
        return Attribute("Integer")
    return Attribute("String")


def checked(attribute: Attribute, current: t.Any, value: t.Any) -> t.Any:
    """``value`` as it must be written. Raises ValueError, whose text says what it would have to be."""
    if attribute.kind == "Enumeration" and attribute.values:
        return _one_of(attribute.choices(current), value)
    if attribute.kind == "Boolean":
        return _boolean(value)
    if attribute.kind == "Integer":
        return _integer(attribute, current, value)
    if isinstance(value, bool):
        raise ValueError("true and false are no texts: put On, Off, Yes or No in quotes")
    if not isinstance(value, (str, int, float)):
        raise ValueError("it must be one value")
    text = str(value)
    if len(text) < attribute.min_length:
        raise ValueError(f"it must have at least {attribute.min_length} characters")
    if attribute.max_length is not None and len(text) > attribute.max_length:
        raise ValueError(f"it must have at most {attribute.max_length} characters")
    return text


def _one_of(choices: t.Sequence[str], value: t.Any) -> str:
    if not isinstance(value, bool) and str(value) in choices:
        return str(value)
    hint = "; YAML takes On, Off, Yes and No without quotes for true and false" if isinstance(value, bool) else ""
    raise ValueError(f"it must be one of {', '.join(choices)}{hint}")


def _boolean(value: t.Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).casefold() in ("true", "false"):
        return str(value).casefold() == "true"
    raise ValueError("it must be true or false")


def _integer(attribute: Attribute, current: t.Any, value: t.Any) -> t.Any:
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError):
        raise ValueError("it must be a whole number") from None
    if attribute.lower is not None and number < attribute.lower:
        raise ValueError(f"it must be at least {attribute.lower}")
    if attribute.upper is not None and number > attribute.upper:
        raise ValueError(f"it must be at most {attribute.upper}")
    if attribute.step > 1 and (number - (attribute.lower or 0)) % attribute.step:
        raise ValueError(f"it must be {attribute.lower or 0} plus a multiple of {attribute.step}")
    return str(number) if isinstance(current, str) else number  # some services hold numbers as text
