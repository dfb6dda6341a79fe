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
"""The snapshot of a host as JSON, as the API returns it."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib
import json
from typing import Any

from kongming.host import violations
from kongming.host.occupant import Occupant
from kongming.host.rules import Rules
from kongming.host.topology import Topology


def to_json(topology: Topology, occupants: Iterable[Occupant], rules: Rules) -> dict[str, Any]:
    """Return the snapshot: ``cells``, ``unassigned_cpus``, ``guests``, ``rules``, ``violations``.

    The guests have a stable order.
    """
    occupants = sorted(occupants, key=lambda guest: (guest.name, guest.instance_uuid))
    return {
        **topology.to_json(),
        "guests": [guest.to_json() for guest in occupants],
        "rules": rules.to_json(),
        "violations": [
            violation.to_json() for violation in violations.find(topology, occupants, rules)
        ],
    }


def digest(snapshot: dict[str, Any]) -> str:
    """Return a digest that differs between snapshots, except for free memory."""
    lasting = {
        **snapshot,
        "cells": [{**cell, "free_kib": None} for cell in snapshot["cells"]],
    }
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
