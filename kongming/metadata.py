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
from typing import Any

from kongming import exception
from kongming.allocation import Allocation, VcpuPinning
from kongming.cpuset import CpuSet, shown

PREFIX = "kongming-"
VCPU_PINNING = PREFIX + "vcpu-pinning"

#: Nova's limit for a metadata value, in characters.
MAX_LENGTH = 255


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


def parse_vcpu_pinning(value: str) -> VcpuPinning:
    """Read a cpuset for all vCPUs, or a map ``vcpus:cpuset;vcpus:cpuset``.

    >>> parse_vcpu_pinning("0:5;1:6;2-3:9-11,^10").to_json()
    {'0': '5', '1': '6', '2': '9,11', '3': '9,11'}

    :raises RequestInvalid: naming the item and its position.
    """
    if ":" not in value and ";" not in value:
        return VcpuPinning(every=CpuSet.parse(value))
    pins: dict[int, CpuSet] = {}
    position = 0
    for entry in value.split(";"):
        vcpus, colon, cpus = entry.partition(":")
        if not colon:
            raise exception.RequestInvalid(
                f"item {shown(entry)} at position {position + 1} is not of the form vcpus:cpuset"
            )
        cpuset = CpuSet.parse(cpus, offset=position + len(vcpus) + 1)
        for vcpu in CpuSet.parse(vcpus, offset=position):
            if vcpu in pins:
                raise exception.RequestInvalid(
                    f"item {shown(entry)} at position {position + 1} names vCPU {vcpu} again: "
                    "name each vCPU once"
                )
            pins[vcpu] = cpuset
        position += len(entry) + 1
    return VcpuPinning.of_map(pins)


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


_PARSERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    VCPU_PINNING: ("vcpu_pinning", parse_vcpu_pinning),
}
