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
"""JSON of the API for the values of the database. Times are ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.stored import Unreadable, readable
from kongming.allocation.windows import in_force, next_change
from kongming.db.values import Change, Entry, Host, Map, Outcome
from kongming.runtime.times import written

# Tenants get the reason code only, because messages name CPUs of hosts and other guests.
_HIDDEN: Mapping[str, Any] = {
    "host": None,
    "reported_by": None,
    "message": "",
    "last_drift": "",
    "unobserved": None,
    "requested_by": "",
}

UP, UNRESPONSIVE, UNKNOWN = "up", "unresponsive", "unknown"


def allocation(entry: Entry, hosts: Mapping[str, Host], now: float) -> dict[str, Any]:
    """Return the desired allocation of an instance and its outcome, as a row of a list.

    :param hosts: the hosts that report the instances, by name.
    """
    outcome = entry.outcome
    current = outcome if outcome is not None and outcome.generation == entry.generation else None
    return {
        "instance_uuid": entry.instance_uuid,
        "generation": entry.generation,
        "project_id": entry.project_id,
        "host": entry.host,
        "map": entry.map_name,
        "allocation": _allocation_json(entry.allocation),
        "status": str(entry.status),
        **_reason(entry.allocation, current),
        "source": (current.source or None) if current else None,
        "last_drift": outcome.drift if outcome else "",
        "last_drift_at": written(outcome.drift_at) if outcome else None,
        "unobserved": outcome.unobserved if outcome else None,
        **_report(entry, hosts, now),
        "created_at": written(entry.created_at),
        "updated_at": written(entry.updated_at),
    }


def with_window(shown: Mapping[str, Any], entry: Entry, now: float) -> dict[str, Any]:
    """Return an allocation with the time window in force.

    Lists do not have it: each row may have 32 windows. Both fields are null if this machine lacks
    the time zone of a window.
    """
    desired = readable(entry.allocation)
    windows = [each.window for each in desired.windows] if desired else []
    moment = datetime.fromtimestamp(now, UTC)
    try:
        current, following = in_force(windows, moment), next_change(windows, moment)
    except exception.RequestInvalid:
        current = following = None
    return {
        **shown,
        "window": current.name if current else None,
        "next_change": written(following.timestamp()) if following else None,
    }


def without_hosts(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return an allocation without details of hosts, for tenants.

    :param shown: an allocation, or an entry of its history.
    """
    return {name: _HIDDEN.get(name, value) for name, value in shown.items()}


def change(entry: Change) -> dict[str, Any]:
    """Return an entry of the history of an instance."""
    return {
        "id": entry.id,
        "generation": entry.generation,
        "allocation": _allocation_json(entry.allocation),
        "map": entry.map_name,
        "requested_by": entry.requested_by,
        "request_id": entry.request_id,
        "requested_at": written(entry.requested_at),
        "status": entry.status,
        "reason": entry.reason,
        "message": entry.message,
        "host": entry.host or None,
        "changed_at": written(entry.changed_at),
    }


def allocation_map(found: Map) -> dict[str, Any]:
    """Return an allocation map without its allocations."""
    return {
        "name": found.name,
        "generation": found.generation,
        "deleting": found.deleting,
        "instances": found.instances,
        "created_at": written(found.created_at),
        "updated_at": written(found.updated_at),
    }


def host(found: Host, now: float) -> dict[str, Any]:
    """Return a host without its snapshot."""
    return {
        "name": found.name,
        "state": _state(found, now),
        "heartbeat_at": written(found.heartbeat_at),
        "heartbeat_age_s": _age(found.heartbeat_at, now),
        "started_at": written(found.started_at),
        "version": found.version,
        "guests": found.guests,
        "violations": found.violations,
    }


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    """Count the instances by status."""
    found: dict[str, int] = {}
    for entry in entries:
        found[str(entry.status)] = found.get(str(entry.status), 0) + 1
    return found


def _allocation_json(found: Allocation | Unreadable | None) -> dict[str, Any] | None:
    known = readable(found)
    return None if known is None else known.to_json()


def _reason(stored: Allocation | Unreadable | None, current: Outcome | None) -> dict[str, str]:
    """Return reason and message of the report, and of an allocation that can't be read."""
    reason, message = (current.reason, current.message) if current else ("", "")
    if isinstance(stored, Unreadable):
        unread = (
            f"the stored allocation can't be read ({stored.why}): PUT replaces it, DELETE "
            "releases the instance"
        )
        reason = reason or exception.StoredInvalid.reason
        message = f"{message}; {unread}" if message else unread
    return {"reason": reason, "message": message}


def _report(entry: Entry, hosts: Mapping[str, Host], now: float) -> dict[str, Any]:
    """Return the reporting host, and the age of its report; each heartbeat confirms it."""
    reporter = hosts.get(entry.reporter) if entry.reporter else None
    reported = None if entry.outcome is None else entry.outcome.reported_at
    if reported is not None and reporter is not None:
        reported = max(reported, reporter.heartbeat_at)
    return {
        "reported_by": (entry.outcome.host or None) if entry.outcome else None,
        "reported_at": written(reported),
        "report_age_s": None if reported is None else _age(reported, now),
        "host_state": UNKNOWN if reporter is None else _state(reporter, now),
    }


def _state(found: Host, now: float) -> str:
    return UNRESPONSIVE if found.unresponsive(now) else UP


def _age(moment: float, now: float) -> float:
    return round(max(0.0, min(now, now - moment)), 3)
