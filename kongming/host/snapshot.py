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
"""The view: what a host looks like, as JSON. It is what the API shows of the host."""

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
    """Return the view: ``cells``, ``unassigned_cpus``, ``guests``, ``rules``, ``violations``.

    The guests come in an order that stays.
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


def digest(view: dict[str, Any]) -> str:
    """Tell two views apart, but for what changes all the time: free memory."""
    lasting = {
        **view,
        "cells": [{**cell, "free_kib": None} for cell in view["cells"]],
    }
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
