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
"""Options and files for an allocation on the command line.

They need no service on the same machine.
"""

from __future__ import annotations

import argparse
import re
import uuid

from kongming import exception
from kongming.allocation import json_schema, metadata
from kongming.allocation.allocation import Allocation
from kongming.terminal import files

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?", re.ASCII)


def instance_uuid(text: str) -> str:
    """Read an instance's UUID, for argparse."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an instance UUID") from None


def instance_key(text: str) -> str:
    """Read an instance's UUID, or the key of a row that is not one, for argparse."""
    try:
        return instance_uuid(text)
    except argparse.ArgumentTypeError:
        return text


def seconds(text: str) -> float:
    """Read a number of seconds, for argparse."""
    if not _SECONDS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from 0 to 999999999, such as 60 or 0.5"
        )
    return float(text)


def add_allocation_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each key of the instance metadata, with the same values."""
    group = parser.add_argument_group("requested placement, written as in the instance metadata")
    for key, (metavar, meaning) in _OPTIONS.items():
        group.add_argument(f"--{key}", metavar=metavar, help=meaning)
    group.add_argument(
        "--file",
        metavar="<path>",
        help="A file with the whole request, an allocation as JSON or YAML; it may have time "
        "windows. - is the standard input.",
    )


def read_allocation(parsed: argparse.Namespace) -> Allocation:
    """Return the allocation of the options of :func:`add_allocation_options`.

    :raises Refused: naming the option, the item and its position.
    """
    options = {key: getattr(parsed, key.replace("-", "_")) for key in _OPTIONS}
    keys = {
        f"{metadata.PREFIX}{key}": value for key, value in options.items() if value is not None
    }
    if parsed.file is None:
        # Only Nova has a limit of 255 characters.
        return metadata.parse(keys, max_length=json_schema.MAX_LENGTH, place=_option)
    if keys:
        raise exception.RequestInvalid("--file has the whole request: leave out the other options")
    document = files.load(parsed.file)
    try:
        return json_schema.read(document.value)
    except json_schema.AllocationInvalid as error:
        raise document.refusal(error.steps, str(error)) from error


def _option(key: str) -> str:
    return f"--{key.removeprefix(metadata.PREFIX)}"


_OPTIONS = {
    "vcpu-pinning": ("<cpuset|map>", "Host CPUs of the vCPUs: 5-6,9 or 0:5;1:6 or 0-63=4-67."),
    "emulator-pinning": ("<cpuset>", "Host CPUs of QEMU's own threads."),
    "iothread-pinning": ("<cpuset|map>", "Host CPUs of the iothreads."),
    "numa-nodes": ("<nodes>", "Host NUMA nodes of the memory."),
    "cpu-shares": ("<weight>", "Weight relative to other guests."),
    "vcpu-quota": ("<share>", "CPU time of each vCPU: 50%%, 50000/100000 in µs, or none."),
}
