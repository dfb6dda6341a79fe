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

"""The JSON form of an allocation: its schema, and how it is read from files and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
import json
from typing import Any, cast

import jsonschema

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.allocation import Allocation
from kongming.allocation.cpuset import CPU, IOTHREAD, NODE, VCPU, CpuSet, Ids, shown
from kongming.allocation.pinning import Pinning
from kongming.allocation.target import PERIOD_US
from kongming.allocation.timezones import MAX_NAME
from kongming.allocation.windows import MAX_DURATION_S, MAX_START, MIN_DURATION_S

#: The longest cpuset, in characters: one with every third CPU is shorter.
CPUSET_LENGTH = 32_768

#: The longest allocation, in characters, in the shortest of its JSON forms.
MAX_LENGTH = 131_072

#: The most problems that are named of one request.
PROBLEMS_MAX = 20

_MESSAGE = 200

# There are no patterns: the parsers' errors name item and position.


def _cpuset(description: str, of: Ids) -> dict[str, Any]:
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": CPUSET_LENGTH,
        "description": f"{description} Ids from 0 to {of.largest}: items separated by commas, "
        "N, N-M, ^N, ^N-M; not empty.",
        "examples": ["5-6,9-11,^10"],
    }


def _pinning(of: Ids) -> dict[str, Any]:
    noun = of.noun
    return {
        "description": f"Host CPUs of the {noun}s. A string: a cpuset for all of them, or entries "
        f"separated by semicolons, {noun}s:cpuset and {noun}s=CPUs, which gives each one a CPU. "
        f"An object: from {noun}s to the cpuset that they share.",
        "examples": ["5-6,9-11,^10", "0-1:5-6;2-63=8-69", {"0": "5", "1-2": "6"}],
        "type": ["string", "object"],
        "minLength": 1,
        "maxLength": MAX_LENGTH,
        "minProperties": 1,
        "maxProperties": of.largest + 1,
        "propertyNames": {"minLength": 1, "maxLength": CPUSET_LENGTH},
        "additionalProperties": _cpuset("The host CPUs that they share.", CPU),
    }


PARTS: dict[str, Any] = {
    "vcpu_pinning": _pinning(VCPU),
    "emulator_pinning": _cpuset("Host CPUs of QEMU's own threads.", CPU),
    "iothread_pinning": _pinning(IOTHREAD),
    "numa_nodes": _cpuset("Host NUMA nodes of the memory.", NODE),
    "cpu_shares": {
        "type": "integer",
        "minimum": metadata.CPU_SHARES[0],
        "maximum": metadata.CPU_SHARES[-1],
        "description": "Weight relative to other guests.",
    },
    "vcpu_quota": {
        "description": "CPU time that each vCPU may use, or none: no limit.",
        "examples": ["none", {"quota_us": 20_000, "period_us": 100_000}],
        "oneOf": [
            {"const": "none"},
            {
                "type": "object",
                "properties": {
                    "quota_us": {
                        "type": "integer",
                        "minimum": metadata.MIN_QUOTA_US,
                        "maximum": metadata.PERIODS_US[-1],
                    },
                    "period_us": {
                        "type": "integer",
                        "minimum": metadata.PERIODS_US[0],
                        "maximum": metadata.PERIODS_US[-1],
                        "default": PERIOD_US,
                    },
                },
                "required": ["quota_us", "period_us"],
                "additionalProperties": False,
            },
        ],
    },
}

_WINDOW: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 63},
        "start": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_START,
            "description": "A cron expression of five fields.",
            "examples": ["0 22 * * mon-fri"],
        },
        "duration_s": {
            "type": "integer",
            "minimum": MIN_DURATION_S,
            "maximum": MAX_DURATION_S,
            "description": "Seconds that the window lasts.",
        },
        "timezone": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME,
            "default": "UTC",
            "description": "The IANA time zone of start.",
            "examples": ["Europe/Berlin"],
        },
        **PARTS,
    },
    "required": ["name", "start", "duration_s"],
    "additionalProperties": False,
}

ALLOCATION: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Allocation",
    "description": "The placement requested for one instance; absent fields request nothing.",
    "type": "object",
    "properties": {
        **PARTS,
        "windows": {
            "type": "array",
            "maxItems": 32,
            "items": _WINDOW,
            "description": "Time windows with another placement; the last one in force counts.",
        },
    },
    "additionalProperties": False,
}


class AllocationInvalid(exception.RequestInvalid):
    """An allocation does not match its schema.

    :ivar steps: the names and positions that lead to the invalid value.
    :ivar others: the other problems of the same allocation.
    """

    def __init__(self, message: str, steps: Iterable[str | int] = ()) -> None:
        super().__init__(message)
        self.steps = tuple(steps)
        self.others: tuple[AllocationInvalid, ...] = ()


_VALIDATOR = jsonschema.Draft202012Validator(ALLOCATION)


def read(value: object) -> Allocation:
    """Read an allocation from a request or file.

    :param value: as the JSON or YAML was loaded.
    :raises AllocationInvalid: naming the place, and what is wrong with it; with the other
        problems, :data:`PROBLEMS_MAX` in all.
    """
    wrong = list(_of_form(value))
    _raise_first([*wrong, *_of_values(value, {each.steps for each in wrong})])
    written = cast(dict[str, Any], value)
    allocation = Allocation.from_json(written)
    _raise_first([*_of_windows(allocation)])
    if (length := len(json.dumps(allocation.to_json()))) > MAX_LENGTH:
        raise AllocationInvalid(
            f"the allocation has {length} characters in its shortest form, more than {MAX_LENGTH}"
        )
    return allocation


def _raise_first(problems: list[AllocationInvalid]) -> None:
    if problems:
        first, *others = problems[:PROBLEMS_MAX]
        first.others = tuple(others)
        raise first


def _of_form(value: object) -> Iterator[AllocationInvalid]:
    found = islice(_VALIDATOR.iter_errors(value), PROBLEMS_MAX)
    plain: set[tuple[str | int, ...]] = set()
    for error in sorted(found, key=jsonschema.exceptions.relevance, reverse=True):
        # Of alternatives, the problem of the one that is meant.
        cause = jsonschema.exceptions.best_match([error])
        steps = tuple(cause.absolute_path)
        # A number that is none is not within its limits either.
        if steps not in plain:
            yield AllocationInvalid(f"{_place(steps)}: {_describe(cause)}", steps)
        if not isinstance(cause.instance, dict | list):
            plain.add(steps)


def _of_values(value: object, wrong: set[tuple[str | int, ...]]) -> Iterator[AllocationInvalid]:
    """Yield the problems of the parts whose form is right.

    :param wrong: the places of the problems of their form.
    """
    if not isinstance(value, dict):
        return
    windows = value.get("windows")
    for where, each in [
        ((), value),
        *((("windows", number), window) for number, window in enumerate(_list(windows))),
    ]:
        for name in each if isinstance(each, dict) else ():
            steps = (*where, name)
            if not any(place[: len(steps)] == steps for place in wrong):
                yield from _of_part(steps, name, each[name])


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _of_windows(allocation: Allocation) -> Iterator[AllocationInvalid]:
    names = [each.window.name for each in allocation.windows]
    if len(set(names)) < len(names):
        yield AllocationInvalid("windows: two have the same name", ["windows"])
    for windowed in allocation.windows:
        try:
            windowed.window.check()
        except exception.RequestInvalid as error:
            yield AllocationInvalid(str(error))


# Stricter than reading stored allocations.
_READERS: dict[str, Callable[[Any], object]] = {
    "vcpu_pinning": lambda value: Pinning.from_json(value, VCPU),
    "emulator_pinning": CpuSet.parse,
    "iothread_pinning": lambda value: Pinning.from_json(value, IOTHREAD),
    "numa_nodes": metadata.parse_numa_nodes,
}


def _of_part(steps: tuple[str | int, ...], name: str, value: Any) -> Iterator[AllocationInvalid]:
    """Read a part by itself, so that the error names it."""
    if name == "vcpu_quota" and isinstance(value, dict) and value["quota_us"] > value["period_us"]:
        yield AllocationInvalid(
            f"{_place(steps)}: more than one whole CPU, which a vCPU can't use", steps
        )
    try:
        _READERS.get(name, lambda _value: None)(value)
    except exception.RequestInvalid as error:
        yield AllocationInvalid(f"{_place(steps)}: {error}", steps)


def _place(path: Iterable[str | int]) -> str:
    place = ""
    for part in path:
        known = part in ALLOCATION["properties"] or part in _WINDOW["properties"]
        place += f"[{part}]" if isinstance(part, int) else f".{part if known else shown(part)}"
    return place.lstrip(".") or "the allocation"


def _describe(error: jsonschema.ValidationError) -> str:
    text = " ".join(error.message.split())
    # The beginning quotes the value, the end has the reason.
    if len(text) > _MESSAGE:
        text = f"{text[: _MESSAGE // 2]}...{text[-_MESSAGE // 2 :]}"
    examples = [json.dumps(each) for each in error.schema.get("examples", ())]
    return f"{text}; examples: {' or '.join(examples)}" if examples else text


if __name__ == "__main__":
    # Written to doc/source/reference/allocation.schema.json.
    print(json.dumps(ALLOCATION, indent=2))  # noqa: T201
