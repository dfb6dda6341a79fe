# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""From instance metadata to the allocation that it requests.

Only keys that begin with ``kongming-`` are Kongming's; all others are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
import re
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import IOTHREAD, NODE, SPACE, VCPU, CpuSet, Ids, shown
from kongming.allocation.misspelt_keys import suggest
from kongming.allocation.pinning import Pinning
from kongming.allocation.target import NO_QUOTA, PERIOD_US, Quota

PREFIX = "kongming-"
VCPU_PINNING = PREFIX + "vcpu-pinning"

#: Nova's limit for a metadata value, in characters.
MAX_LENGTH = 255

#: How many keys a map may have: kongming-vcpu-pinning, kongming-vcpu-pinning-2, ...
MAX_KEYS = 16

#: The widest range of any cgroup version; the host's may be narrower.
CPU_SHARES = range(1, 262_145)

#: libvirt's and the kernel's limits, in µs.
MIN_QUOTA_US = 1_000
PERIODS_US = range(1_000, 1_000_001)

# ASCII only: \s and \d would also match other scripts' white space and digits.
_NUMBER = re.compile(r"[0-9]{1,9}")
_PERCENT = re.compile(rf"([0-9]{{1,3}}(?:\.[0-9]{{1,3}})?)[{SPACE}]*%")
_QUOTA_PERIOD = re.compile(rf"([0-9]{{1,9}})[{SPACE}]*/[{SPACE}]*([0-9]{{1,9}})")


@dataclass(frozen=True, slots=True)
class _Key:
    """What a key means.

    :ivar field: of the allocation.
    :ivar read: reads a value.
    :ivar continued: what is pinned, if a map may have several keys.
    """

    field: str
    read: Callable[[str], Any]
    continued: Ids | None = None


def parse(
    metadata: Mapping[str, Any],
    *,
    max_length: int = MAX_LENGTH,
    place: Callable[[str], str] = "metadata {}".format,
) -> Allocation:
    """Read the allocation that an instance's metadata requests.

    :param metadata: all of the instance's metadata.
    :param max_length: of a value, in characters.
    :param place: returns how an error names the place of a key.
    :returns: the allocation; it is false if the metadata requests nothing.
    :raises Refused: naming the key, the item and its position. One invalid key refuses all of
        them: half of a placement is not what was requested.
    """
    _check_spelling(metadata)
    found: dict[str, dict[int, Any]] = {}
    for key in sorted(key for key in metadata if key.startswith(PREFIX)):
        base, number = _split(key)
        found.setdefault(base, {})[number] = metadata[key]
    requested = {
        _KEYS[base].field: _read(base, found[base], max_length, place) for base in sorted(found)
    }
    return Allocation(**requested)


def _split(key: str) -> tuple[str, int]:
    """Return the key that a continuation key continues, and its number; 1 for a key itself.

    :raises RequestKeyUnknown: if it is no key.
    """
    base, _, number = key.rpartition("-")
    if key in _KEYS:
        return key, 1
    if base in _CONTINUED and number in _NUMBERS:
        return base, int(number)
    raise exception.RequestKeyUnknown(
        f"metadata key {shown(key)} is not known; known: {', '.join(sorted(_KEYS))}; "
        f"{' and '.join(sorted(_CONTINUED))} can be continued by -2 to -{MAX_KEYS}"
    )


def _read(
    base: str, values: Mapping[int, Any], max_length: int, place: Callable[[str], str]
) -> Any:
    """Read the request of a key and of those that continue it."""
    this, whole = _KEYS[base], None
    for number in sorted(values):
        key = _numbered(base, number)
        if number > 1 and number - 1 not in values:
            raise exception.RequestInvalid(
                f"{place(key)}: it continues {_numbered(base, number - 1)}, which is missing; "
                "number the keys without a gap"
            )
        try:
            value = this.read(_text(values[number], max_length, this))
            if whole is not None and this.continued is not None:
                value = whole.joined(value, this.continued)
        except exception.RequestInvalid as error:
            raise exception.RequestInvalid(f"{place(key)}: {error}") from error
        whole = value
    return whole


def _numbered(base: str, number: int) -> str:
    return base if number == 1 else f"{base}-{number}"


def _check_spelling(metadata: Mapping[str, Any]) -> None:
    """Refuse misspelt keys: ignoring them would hide the mistake."""
    for key in sorted(metadata):
        if not key.startswith(PREFIX) and (known := suggest(key, KEYS)):
            raise exception.RequestKeyUnknown(
                f"metadata key {shown(key)} is not known; did you mean {known}? Keys must match "
                "exactly"
            )


def write(allocation: Allocation) -> dict[str, str]:
    """Return the metadata that requests an allocation: what :func:`parse` reads.

    >>> write(parse({"kongming-vcpu-pinning": "0:5;1:5;2:6"}))
    {'kongming-vcpu-pinning': '0-1:5;2:6'}

    The text may exceed the limits of metadata; then it is for display only.
    """
    return {
        _numbered(key, number): text
        for key, this in _KEYS.items()
        if (value := getattr(allocation, this.field)) is not None
        for number, text in enumerate(_written(value), 1)
    }


def _written(value: Pinning | CpuSet | int | Quota) -> list[str]:
    if isinstance(value, Quota):
        return ["none" if value.quota_us is None else f"{value.quota_us}/{value.period_us}"]
    if isinstance(value, CpuSet):
        return [_short(value)]
    if isinstance(value, int):
        return [str(value)]
    return [_short(value.every)] if value.every is not None else _packed(_entries(value), ";")


def _entries(pinning: Pinning) -> Iterable[str]:
    for numbers, cpus in pinning.groups:
        right = f":{_short(cpus, MAX_LENGTH // 2)}"
        for left in _packed(str(numbers).split(","), ",", MAX_LENGTH - len(right)):
            yield left + right
    yield from map(str, pinning.runs)


def _packed(pieces: Iterable[str], separator: str, room: int = MAX_LENGTH) -> list[str]:
    """Join pieces, in their order, to texts that are not longer than ``room``."""
    packed: list[str] = []
    for piece in pieces:
        if packed and len(packed[-1]) + len(separator) + len(piece) <= room:
            packed[-1] += separator + piece
        else:
            packed.append(piece)
    return packed


def _short(cpus: CpuSet, room: int = MAX_LENGTH) -> str:
    """Return the written form of a cpuset, with exclusions if only that fits."""
    text = str(cpus)
    if len(text) <= room:
        return text
    runs = cpus.runs()
    whole = CpuSet(range(runs[0].start, runs[-1].stop))
    gaps = str(whole - cpus).split(",")
    return min(text, ",".join([str(whole), *(f"^{gap}" for gap in gaps)]), key=len)


def parse_vcpu_pinning(value: str) -> Pinning:
    """Read a cpuset for all vCPUs, or a map ``vcpus:cpuset;vcpus=CPUs``.

    >>> parse_vcpu_pinning("0:5;1:6;2-3:9-11,^10").to_json()
    {'0': '5', '1': '6', '2-3': '9,11'}

    :raises RequestInvalid: naming the item and its position.
    """
    return Pinning.parse(value, VCPU)


def parse_iothread_pinning(value: str) -> Pinning:
    """Read a cpuset for all iothreads, or a map ``iothreads:cpuset;iothreads=CPUs``.

    :raises RequestInvalid: naming the item and its position.
    """
    return Pinning.parse(value, IOTHREAD)


def parse_numa_nodes(value: str) -> CpuSet:
    """Read a set of NUMA nodes, in the grammar of a cpuset.

    :raises RequestInvalid: naming the item and its position.
    """
    return CpuSet.parse(value, of=NODE)


def parse_cpu_shares(value: str) -> int:
    """Read a weight: a number of the range :data:`CPU_SHARES`.

    :raises RequestInvalid: if it is not.
    """
    text = value.strip(SPACE)
    if not _NUMBER.fullmatch(text) or int(text) not in CPU_SHARES:
        raise exception.RequestInvalid(
            f"{shown(value)} is not a whole number from {CPU_SHARES[0]} to {CPU_SHARES[-1]}"
        )
    return int(text)


def parse_vcpu_quota(value: str) -> Quota:
    """Read the share of a CPU that each vCPU may use.

    :param value: ``50%`` (at most three decimals, 1 to 100), ``quota/period`` in µs, or
        ``none``.
    :raises RequestInvalid: also for a quota without effect: one vCPU can't use more than one
        CPU.
    """
    text = value.strip(SPACE)
    if text == "none":
        return NO_QUOTA
    if percent := _PERCENT.fullmatch(text):
        return _checked(Quota(int(Decimal(percent[1]) * PERIOD_US / 100), PERIOD_US), value)
    if quota := _QUOTA_PERIOD.fullmatch(text):
        return _checked(Quota(int(quota[1]), int(quota[2])), value)
    raise exception.RequestInvalid(
        f"{shown(value)} is not a percentage like 50%, quota/period in µs like 50000/100000, "
        "or none"
    )


def _checked(quota: Quota, value: str) -> Quota:
    if quota.period_us not in PERIODS_US:
        raise exception.RequestInvalid(
            f"{shown(value)} has a period of {quota.period_us} µs: it must be from "
            f"{PERIODS_US[0]} to {PERIODS_US[-1]} µs"
        )
    if quota.quota_us is None or quota.quota_us < MIN_QUOTA_US:
        raise exception.RequestInvalid(
            f"{shown(value)} is a quota of {quota.quota_us} µs: the kernel accepts no less than "
            f"{MIN_QUOTA_US} µs"
        )
    if quota.quota_us > quota.period_us:
        raise exception.RequestInvalid(
            f"{shown(value)} is more than one whole CPU, which a vCPU can't use: write none for "
            "no limit"
        )
    return quota


def _text(value: object, max_length: int, key: _Key) -> str:
    if not isinstance(value, str):
        raise exception.RequestInvalid(f"the value is not a string but a {type(value).__name__}")
    if len(value) > max_length:
        way_out = f"use a run such as 0-63=4-67, or continuation keys (-2 to -{MAX_KEYS})"
        raise exception.RequestInvalid(
            f"the value has {len(value)} characters, more than the limit of {max_length}"
            + (f": {way_out}" if key.continued else "")
        )
    if not value.strip():
        raise exception.RequestInvalid(
            "the value is empty: remove the key if nothing is requested"
        )
    return value


def parse_emulator_pinning(value: str) -> CpuSet:
    """Read the cpuset of QEMU's own threads.

    :raises RequestInvalid: naming the item and its position.
    """
    return CpuSet.parse(value)


_KEYS = {
    VCPU_PINNING: _Key("vcpu_pinning", parse_vcpu_pinning, VCPU),
    f"{PREFIX}emulator-pinning": _Key("emulator_pinning", parse_emulator_pinning),
    f"{PREFIX}iothread-pinning": _Key("iothread_pinning", parse_iothread_pinning, IOTHREAD),
    f"{PREFIX}numa-nodes": _Key("numa_nodes", parse_numa_nodes),
    f"{PREFIX}cpu-shares": _Key("cpu_shares", parse_cpu_shares),
    f"{PREFIX}vcpu-quota": _Key("vcpu_quota", parse_vcpu_quota),
}
_CONTINUED = [key for key, this in _KEYS.items() if this.continued]
_NUMBERS = [str(number) for number in range(2, MAX_KEYS + 1)]

#: All keys, without continuations.
KEYS = tuple(_KEYS)
