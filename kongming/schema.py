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

"""The JSON form of an allocation: its schema, and how what others wrote is read."""

from __future__ import annotations

from collections.abc import Iterable
import json
from typing import Any, cast

import jsonschema

from kongming import exception, metadata
from kongming.allocation import Allocation
from kongming.cpuset import MAX_ID
from kongming.target import PERIOD_US
from kongming.window import MAX_DURATION_S, MIN_DURATION_S

_NUMBER = r"^(0|[1-9][0-9]{0,5})$"

_CPUSET = {
    "type": "string",
    "minLength": 1,
    "description": "Ids from 0 to "
    f"{MAX_ID}: items separated by commas, N, N-M, ^N, ^N-M; at least one is left.",
    "examples": ["5-6,9-11,^10"],
}
_PINNING = {
    "examples": ["5-6,9-11,^10", {"0": "5", "1": "6"}],
    "oneOf": [
        _CPUSET,
        {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {_NUMBER: _CPUSET},
            "additionalProperties": False,
        },
    ],
}

PARTS: dict[str, Any] = {
    "vcpu_pinning": {
        **_PINNING,
        "description": "Host CPUs of the vCPUs: of all, or of each that is named.",
    },
    "emulator_pinning": {**_CPUSET, "description": "Host CPUs of QEMU's own threads."},
    "iothread_pinning": {
        **_PINNING,
        "description": "Host CPUs of the iothreads: of all, or of each that is named.",
    },
    "numa_nodes": {**_CPUSET, "description": "Host NUMA nodes of the memory."},
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
                    "quota_us": {"type": "integer", "minimum": metadata.MIN_QUOTA_US},
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
            "description": "A cron expression of five fields.",
            "examples": ["0 22 * * mon-fri"],
        },
        "duration_s": {
            "type": "integer",
            "minimum": MIN_DURATION_S,
            "maximum": MAX_DURATION_S,
            "description": "Seconds for which it is in force.",
        },
        "timezone": {
            "type": "string",
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
    "description": "What is wanted for one instance; what is not there is not asked.",
    "type": "object",
    "properties": {
        **PARTS,
        "windows": {
            "type": "array",
            "maxItems": 32,
            "items": _WINDOW,
            "description": "What holds instead at certain times; the last that matches counts.",
        },
    },
    "additionalProperties": False,
}

_VALIDATOR = jsonschema.Draft202012Validator(ALLOCATION)


def read(value: object) -> Allocation:
    """Read an allocation that somebody wrote.

    :param value: as the JSON or YAML was loaded.
    :raises RequestInvalid: naming the place and what is wrong with it.
    """
    error = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(value))
    if error is not None:
        raise exception.RequestInvalid(f"{_place(error.absolute_path)}: {_said(error)}")
    written = cast(dict[str, Any], value)
    windows = written.get("windows", [])
    _check_values("", written)
    for number, window in enumerate(windows):
        _check_values(f"windows[{number}].", window)
    names = [window["name"] for window in windows]
    if len(set(names)) < len(names):
        raise exception.RequestInvalid("windows: two have the same name")
    return Allocation.from_json(written)


def _check_values(where: str, value: dict[str, Any]) -> None:
    """Read each part by itself, so that the error says which one it is."""
    for name in value.keys() & PARTS.keys():
        try:
            Allocation.from_json({name: value[name]})
        except exception.RequestInvalid as error:
            raise exception.RequestInvalid(f"{where}{name}: {error}") from error
    quota = value.get("vcpu_quota")
    if isinstance(quota, dict) and quota["quota_us"] > quota["period_us"]:
        raise exception.RequestInvalid(
            f"{where}vcpu_quota: more than one whole CPU, which a vCPU can't use"
        )


def _place(path: Iterable[str | int]) -> str:
    place = ""
    for part in path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.lstrip(".") or "the allocation"


def _said(error: jsonschema.ValidationError) -> str:
    text = " ".join(error.message.split())
    said = text if len(text) <= 200 else f"{text[:200]}..."
    examples = [json.dumps(each) for each in error.schema.get("examples", ())]
    return f"{said}; as it should be: {' or '.join(examples)}" if examples else said


if __name__ == "__main__":
    # Written to doc/source/reference/allocation.schema.json.
    print(json.dumps(ALLOCATION, indent=2))  # noqa: T201
