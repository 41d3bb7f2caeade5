# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot arguments: what a line says, whether it satisfies a wish, and what undoes it.

Arguments are compared as parsed tokens, never by searching the text: ``intel_iommu=on,sm_on`` satisfies ``intel_iommu=on``, and
``xintel_iommu=on`` does not. Sources: the kernel's lib/cmdline.c, drivers/iommu/intel/iommu.c, drivers/iommu/amd/init.c.
"""

from __future__ import annotations

import re
import typing as t

#: Keys that may stand more than once, each time with a meaning of its own.
REPEATABLE = frozenset(
    (
        "blacklist",
        "console",
        "earlyprintk",
        "initcall_blacklist",
        "modprobe.blacklist",
        "module_blacklist",
        "pci",
        "rd.driver.blacklist",
        "rd.luks.uuid",
        "vfio_pci.ids",
    )
)
#: What an earlier word of the same key means for one that follows it. ``override``: the last word wins. ``sticky``: its ``off`` only
#: ever sets a flag, and nothing that is appended takes it back. A key that is not named here is taken for ``override``.
CONFLICTS = {"intel_iommu": "override", "iommu": "sticky", "amd_iommu": "sticky"}
#: The keys whose arguments a sticky ``off`` makes useless.
_SPOILT = {"iommu": ("iommu", "intel_iommu", "amd_iommu"), "amd_iommu": ("iommu", "amd_iommu")}

#: Boot arguments whose value may be shown: everything about devices and memory. Of any other only the key is shown,
#: because facts end up in caches and logs and a boot line may carry a password or a token.
SHOWN_ARGUMENTS = frozenset(
    """
    amd_iommu default_hugepagesz efi hugepages hugepagesz initcall_blacklist intel_iommu iommu iommu.passthrough iommu.strict isolcpus
    kvm.ignore_msrs kvm_amd.nested kvm_intel.nested kvm-intel.nested lockdown mitigations module_blacklist modprobe.blacklist nohz_full
    nomodeset nvidia-drm.modeset nvidia.modeset pci pcie_acs_override pcie_aspm rcu_nocbs rd.driver.blacklist rd.driver.pre
    rdblacklist selinux vfio_iommu_type1.allow_unsafe_interrupts vfio-pci.disable_vga vfio-pci.ids vfio_pci.ids video
    """.split()  # noqa: SIM905
)

#: Boot arguments that keep modules from being loaded: by modprobe, by the initramfs, and by the kernel itself.
_BLOCKING = ("modprobe.blacklist", "rd.driver.blacklist", "module_blacklist")

_TOKEN = re.compile(r'(?:[^\s"]|"[^"]*")+')


def split(line: str) -> t.List[str]:
    """The arguments of a line, as they stand. Double quotes keep blanks together, as the kernel reads them."""
    return _TOKEN.findall(line)


def key_of(token: str) -> str:
    """The key of an argument; the kernel takes ``-`` and ``_`` in it for the same, and GRUB may put quotes around the whole of it."""
    return token.strip('"').partition("=")[0].replace("-", "_")


def values_of(token: str) -> t.List[str]:
    """The values of an argument: the parts of its comma list, without quotes."""
    _key, equals, value = token.strip('"').partition("=")
    return value.strip('"').split(",") if equals else []


def blocking(line: t.Iterable[str]) -> t.List[t.Tuple[str, str]]:
    """``(module, key)`` for each module that the arguments of a line keep from being loaded."""
    return [(module, key_of(token)) for token in line if key_of(token) in _BLOCKING for module in values_of(token) if module]


def holds(line: t.Iterable[str], unwanted: t.Iterable[str]) -> bool:
    """Does a line have one of these arguments, however it is quoted?"""
    plain = {token.replace('"', "") for token in unwanted}
    return any(token.replace('"', "") in plain for token in line)


def shown(argument: str) -> str:
    """A boot argument as it may be shown: without its value unless the key is known to be harmless."""
    key, equals, _value = argument.partition("=")
    return argument if not equals or key in SHOWN_ARGUMENTS else f"{key}=(not shown)"


def problem(token: str) -> str | None:
    """Why this cannot be a boot argument, or None."""
    if split(token) != [token]:
        return f"{token!r} is not one boot argument: write each as an entry of its own, with double quotes around blanks"
    # The value goes through two languages, the shell of GRUB's files and GRUB's own: what means something to either is not carried.
    if not re.fullmatch(r"[\w.-]+(=[!-~ ]*)?", token, re.ASCII) or re.search(r"[`$\\';&|<>{}]", token):
        return f"{token!r} is no boot argument that a boot loader's files can carry: a key, and a value without any of ` $ \\ ' ; & | < > {{ }}"
    return None


def covers(token: str, wanted: str) -> bool:
    """Does this argument say at least what is wanted?"""
    if key_of(token) != key_of(wanted):
        return False
    if "=" not in wanted:
        return "=" not in token
    return set(values_of(wanted)) <= set(values_of(token)) and ("off" in values_of(wanted) or "off" not in values_of(token))


def satisfied(line: t.Sequence[str], wanted: str) -> bool:
    """Does a line do what is wanted? Of a key that may stand once, the last one counts; one that may repeat only has to be there."""
    same = [token for token in line if key_of(token) == key_of(wanted)]
    if key_of(wanted) in REPEATABLE:
        return any(covers(token, wanted) for token in same)
    return bool(same) and covers(same[-1], wanted)


def undoing(line: t.Sequence[str], wanted: t.Iterable[str]) -> t.List[str]:
    """The words on a line that nothing appended could take back, and that make what is wanted useless."""
    keys = {key_of(token) for token in wanted if "off" not in values_of(token)}
    sticky = [token for token in dict.fromkeys(line) if "off" in values_of(token) and CONFLICTS.get(key_of(token)) == "sticky"]
    return [token for token in sticky if keys & set(_SPOILT[key_of(token)])]


def wanting(line: t.Sequence[str], present: t.Sequence[str], absent: t.Sequence[str]) -> bool:
    """Does a line that a kernel is or will be booted with fall short of what is wanted?"""
    lacks = any(not satisfied(line, token) for token in present)
    return lacks or bool(undoing(line, present)) or holds(line, absent)


def others(line: t.Iterable[str], present: t.Sequence[str], absent: t.Sequence[str]) -> t.List[str]:
    """The arguments on a line that nobody asked about: those that must keep value and order."""
    single = {key_of(token) for token in present} - REPEATABLE
    asked = [*present, *absent]
    return [token for token in line if key_of(token) not in single and not holds([token], asked)]


def touched(before: t.Sequence[str], after: t.Sequence[str], present: t.Sequence[str], absent: t.Sequence[str]) -> t.List[str]:
    """The arguments that nobody asked about and that a change took away, changed or moved.

    Those whose key is asked for and may repeat may stand elsewhere on the line, in their order: ``grubby`` adds them anew.
    """
    asked = {key_of(token) for token in present}
    old, new = others(before, present, absent), others(after, present, absent)
    return [
        token
        for same in (True, False)
        for left, right in [([o for o in old if (key_of(o) in asked) is same], [n for n in new if (key_of(n) in asked) is same])]
        if left != right
        for token in (sorted({*left} ^ {*right}) or left)
    ]


def contradictions(wanted: t.Sequence[str]) -> t.List[str]:
    """Those of these arguments that cannot be had together with another one: of a key that may stand once, the last one counts."""
    return [token for token in dict.fromkeys(wanted) if not satisfied(extended([], wanted, ()), token)]


def without(line: str, unwanted: t.Collection[str]) -> str:
    """A line without these arguments, each with the blanks behind it, or at the end those before it. The rest stays as it is spelt."""
    gone = [match.span() for match in _TOKEN.finditer(line) if match.group() in unwanted]
    for start, end in reversed(gone):
        left, right = line[:start], line[end:]
        line = left + right.lstrip() if right.strip() else left.rstrip() + right
    return line


def extended(own: t.Sequence[str], wanted: t.Iterable[str], line: t.Sequence[str]) -> t.List[str]:
    """Our own arguments, so that ``line`` (what others say, which stands before ours) followed by them does what is wanted."""
    result = list(own)
    for token in wanted:
        if satisfied([*line, *result], token):
            continue
        if key_of(token) not in REPEATABLE:
            result = [mine for mine in result if key_of(mine) != key_of(token)]
        result.append(token)
    return result


def amended(text: str, present: t.Sequence[str], absent: t.Sequence[str]) -> str:
    """A text that is one boot line, changed so that it does what is wanted: words of ``absent`` taken out, the missing ones appended."""
    left = without(text, [token for token in split(text) if holds([token], absent)])
    more = extended([], present, split(left))
    if not more:
        return left
    body = left.rstrip()
    return " ".join([body, *more] if body else more) + left[len(body) :]
