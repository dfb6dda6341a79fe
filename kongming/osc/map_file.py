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
"""Files with the allocations of a map."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import Any
import uuid

from osc_lib import exceptions
import yaml

from kongming.allocation import json_schema
from kongming.allocation.cpuset import shown
from kongming.client.progress import Json, allocations_of
from kongming.runtime.core_schema import Steps
from kongming.terminal import files
from kongming.terminal.files import Document

FIELD = "allocations"
YAML, JSON = "yaml", "json"


def read(path: str) -> dict[str, Any]:
    """Read the allocations of a map, in their JSON form.

    :param path: ``-`` is the standard input.
    :raises RequestInvalid: naming the place.
    """
    document = files.load(path)
    written: object = document.value
    within: Steps = ()
    if isinstance(written, Mapping) and FIELD in written:
        if unknown := sorted(written.keys() - {FIELD}):
            raise document.refusal(
                (unknown[0],),
                f"unknown field {shown(unknown[0])} beside {FIELD}; set a generation with "
                "--generation",
            )
        written, within = written[FIELD], (FIELD,)
    if not isinstance(written, Mapping):
        what = ".".join(map(str, within)) or "the map"
        raise document.refusal(within, f"{what} is not an object of instance UUIDs")
    return dict(_entry(document, (*within, name), each) for name, each in written.items())


def write(found: Json, form: str) -> str:
    """Return the allocations of a map in the form that :func:`read` accepts.

    :param found: the map, as returned by the API.
    :raises CommandError: if an allocation can't be read, so the map would be incomplete.
    """
    allocations = allocations_of(found)
    unreadable = sorted(uuid for uuid, each in allocations.items() if each is None)
    if unreadable:
        raise exceptions.CommandError(
            f"the stored allocation of instance {unreadable[0]} can't be read, so the map can't "
            f"be exported: see 'openstack kongming allocation show {unreadable[0]}'"
        )
    if form == JSON:
        return json.dumps({FIELD: allocations}, indent=2) + "\n"
    head = f"# The allocation map {found['name']}, generation {found['generation']}.\n"
    return head + str(yaml.safe_dump({FIELD: allocations}, sort_keys=False))


def _entry(document: Document, steps: Steps, value: object) -> tuple[str, dict[str, Any]]:
    name = str(steps[-1])
    where = ".".join([*map(str, steps[:-1]), ""])
    try:
        wellformed = str(uuid.UUID(name)) == name
    except ValueError:
        wellformed = False
    if not wellformed:
        raise document.refusal(
            steps, f"{where}{shown(name)} is not an instance UUID as Nova writes it"
        )
    try:
        requested = json_schema.read(value)
    except json_schema.AllocationInvalid as error:
        raise document.refusal((*steps, *error.steps), f"{where}{name}: {error}") from error
    if not requested:
        raise document.refusal(
            steps,
            f"{where}{name}: the allocation is empty; remove the instance to release it",
        )
    return name, requested.to_json()
