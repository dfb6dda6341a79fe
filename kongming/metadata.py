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

"""From instance metadata to the allocation that it asks for.

Only keys that begin with ``kongming-`` are ours; all others are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
import re
from typing import Any

from kongming import exception
from kongming.allocation import Allocation, Pinning
from kongming.cpuset import CpuSet, shown
from kongming.target import NO_QUOTA, PERIOD_US, Quota

PREFIX = "kongming-"
VCPU_PINNING = PREFIX + "vcpu-pinning"

#: Nova's limit for a metadata value, in characters.
MAX_LENGTH = 255

#: The widest range of any cgroup version; the host's own may be narrower.
CPU_SHARES = range(1, 262_145)

#: libvirt's and the kernel's limits, in µs.
MIN_QUOTA_US = 1_000
PERIODS_US = range(1_000, 1_000_001)

# ASCII only: \s and \d would also take other scripts' white space and digits.
_SPACE = " \t\n\r\f\v"
_NUMBER = re.compile(r"[0-9]{1,9}")
_PERCENT = re.compile(rf"([0-9]{{1,3}}(?:\.[0-9]{{1,3}})?)[{_SPACE}]*%")
_QUOTA_PERIOD = re.compile(rf"([0-9]{{1,9}})[{_SPACE}]*/[{_SPACE}]*([0-9]{{1,9}})")


def parse(metadata: Mapping[str, Any]) -> Allocation:
    """Read what an instance's metadata asks for.

    :param metadata: all of the instance's metadata.
    :returns: the allocation; it is false if the metadata asks for nothing.
    :raises Refused: naming the key, the item and its position. One bad key
        refuses the whole: half of a placement is not what was asked for.
    """
    asked: dict[str, Any] = {}
    for key in sorted(key for key in metadata if key.startswith(PREFIX)):
        if key not in _PARSERS:
            raise exception.RequestKeyUnknown(
                f"metadata key {shown(key)} is not known; known: {', '.join(sorted(_PARSERS))}"
            )
        field, parser = _PARSERS[key]
        try:
            asked[field] = parser(_text(metadata[key]))
        except exception.RequestInvalid as error:
            raise exception.RequestInvalid(f"metadata {key}: {error}") from error
    return Allocation(**asked)


def write(allocation: Allocation) -> dict[str, str]:
    """Give the metadata that asks for an allocation: what :func:`parse` reads.

    >>> write(parse({"kongming-vcpu-pinning": "0:5;1:5;2:6"}))
    {'kongming-vcpu-pinning': '0-1:5;2:6'}
    """
    values = {key: getattr(allocation, field) for key, (field, _) in _PARSERS.items()}
    return {key: _written(value) for key, value in values.items() if value is not None}


def _written(value: Pinning | CpuSet | int | Quota) -> str:
    if isinstance(value, Quota):
        return "none" if value.quota_us is None else f"{value.quota_us}/{value.period_us}"
    if not isinstance(value, Pinning):
        return str(value)
    if value.every is not None:
        return str(value.every)
    alike: dict[CpuSet, list[int]] = {}
    for number, cpus in value.by_number:
        alike.setdefault(cpus, []).append(number)
    return ";".join(f"{CpuSet(numbers)}:{cpus}" for cpus, numbers in alike.items())


def parse_vcpu_pinning(value: str) -> Pinning:
    """Read a cpuset for all vCPUs, or a map ``vcpus:cpuset;vcpus:cpuset``.

    >>> parse_vcpu_pinning("0:5;1:6;2-3:9-11,^10").to_json()
    {'0': '5', '1': '6', '2': '9,11', '3': '9,11'}

    :raises RequestInvalid: naming the item and its position.
    """
    return _parse_pinning(value, "vCPU")


def parse_iothread_pinning(value: str) -> Pinning:
    """Read a cpuset for all iothreads, or a map ``iothreads:cpuset;…``.

    :raises RequestInvalid: naming the item and its position.
    """
    return _parse_pinning(value, "iothread")


def parse_numa_nodes(value: str) -> CpuSet:
    """Read a set of NUMA nodes, in the grammar of a cpuset.

    :raises RequestInvalid: naming the item and its position.
    """
    return CpuSet.parse(value, noun="node")


def parse_cpu_shares(value: str) -> int:
    """Read a weight: a number of the range :data:`CPU_SHARES`.

    :raises RequestInvalid: if it is none.
    """
    text = value.strip(_SPACE)
    if not _NUMBER.fullmatch(text) or int(text) not in CPU_SHARES:
        raise exception.RequestInvalid(
            f"{shown(value)} is not a whole number from {CPU_SHARES[0]} to {CPU_SHARES[-1]}"
        )
    return int(text)


def parse_vcpu_quota(value: str) -> Quota:
    """Read the share of a CPU that each vCPU may use.

    :param value: ``50%`` (at most three decimals, 1 to 100), ``quota/period``
        in µs, or ``none``.
    :raises RequestInvalid: also for a quota that would limit nothing: one
        vCPU can't use more than one CPU.
    """
    text = value.strip(_SPACE)
    if text == "none":
        return NO_QUOTA
    if percent := _PERCENT.fullmatch(text):
        return _checked(Quota(int(Decimal(percent[1]) * PERIOD_US / 100), PERIOD_US), value)
    if quota := _QUOTA_PERIOD.fullmatch(text):
        return _checked(Quota(int(quota[1]), int(quota[2])), value)
    raise exception.RequestInvalid(
        f"{shown(value)} is none of a percentage like 50%, quota/period in µs like "
        "50000/100000, and none"
    )


def _checked(quota: Quota, value: str) -> Quota:
    if quota.period_us not in PERIODS_US:
        raise exception.RequestInvalid(
            f"{shown(value)} has a period of {quota.period_us} µs: it must be from "
            f"{PERIODS_US[0]} to {PERIODS_US[-1]} µs"
        )
    if quota.quota_us is None or quota.quota_us < MIN_QUOTA_US:
        raise exception.RequestInvalid(
            f"{shown(value)} is a quota of {quota.quota_us} µs: the kernel takes no less than "
            f"{MIN_QUOTA_US} µs"
        )
    if quota.quota_us > quota.period_us:
        raise exception.RequestInvalid(
            f"{shown(value)} is more than one whole CPU, which a vCPU can't use: write none for "
            "no limit"
        )
    return quota


def _parse_pinning(value: str, noun: str) -> Pinning:
    if ":" not in value and ";" not in value:
        return Pinning(every=CpuSet.parse(value))
    pins: dict[int, CpuSet] = {}
    position = 0
    for entry in value.split(";"):
        numbers, colon, cpus = entry.partition(":")
        if not colon:
            raise exception.RequestInvalid(
                f"item {shown(entry)} at position {position + 1} is not of the form "
                f"{noun.lower()}s:cpuset"
            )
        cpuset = CpuSet.parse(cpus, offset=position + len(numbers) + 1)
        for number in CpuSet.parse(numbers, offset=position, noun=noun):
            if number in pins:
                raise exception.RequestInvalid(
                    f"item {shown(entry)} at position {position + 1} names {noun} {number} "
                    f"again: name each {noun} once"
                )
            pins[number] = cpuset
        position += len(entry) + 1
    return Pinning.of_map(pins)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise exception.RequestInvalid(f"the value is not a text but a {type(value).__name__}")
    if len(value) > MAX_LENGTH:
        raise exception.RequestInvalid(
            f"the value has {len(value)} characters, more than Nova's limit of {MAX_LENGTH}"
        )
    if not value.strip():
        raise exception.RequestInvalid(
            "the value is empty: remove the key if nothing is asked for"
        )
    return value


def parse_emulator_pinning(value: str) -> CpuSet:
    """Read the cpuset of QEMU's own threads.

    :raises RequestInvalid: naming the item and its position.
    """
    return CpuSet.parse(value)


_PARSERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    VCPU_PINNING: ("vcpu_pinning", parse_vcpu_pinning),
    f"{PREFIX}emulator-pinning": ("emulator_pinning", parse_emulator_pinning),
    f"{PREFIX}iothread-pinning": ("iothread_pinning", parse_iothread_pinning),
    f"{PREFIX}numa-nodes": ("numa_nodes", parse_numa_nodes),
    f"{PREFIX}cpu-shares": ("cpu_shares", parse_cpu_shares),
    f"{PREFIX}vcpu-quota": ("vcpu_quota", parse_vcpu_quota),
}

#: The keys that mean something.
KEYS = tuple(_PARSERS)
