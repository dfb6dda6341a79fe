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
"""What the API shows of what the database holds. Times are ISO 8601, UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.stored import Unreadable, readable
from kongming.allocation.windows import in_force, next_change
from kongming.db.values import Change, Entry, Host, Map, Outcome

# Messages name hosts' CPUs and other guests; the reason code says enough.
_HIDDEN: Mapping[str, Any] = {
    "host": None,
    "reported_by": None,
    "message": "",
    "last_drift": "",
    "unobserved": None,
    "requested_by": "",
}

UP, UNRESPONSIVE, UNKNOWN = "up", "unresponsive", "unknown"


def written(moment: float | None) -> str | None:
    """Write a moment that is given in seconds since the epoch."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def allocation(entry: Entry, hosts: Mapping[str, Host], now: float) -> dict[str, Any]:
    """Show what is wanted for an instance, and what came of it: a row of a list.

    :param hosts: what is known of the hosts that answer for instances, by name.
    """
    outcome = entry.outcome
    current = outcome if outcome is not None and outcome.generation == entry.generation else None
    return {
        "instance_uuid": entry.instance_uuid,
        "generation": entry.generation,
        "project_id": entry.project_id,
        "host": entry.host,
        "map": entry.map_name,
        "allocation": _asked(entry.allocation),
        "status": str(entry.status),
        **_words(entry.allocation, current),
        "source": (current.source or None) if current else None,
        "last_drift": outcome.drift if outcome else "",
        "last_drift_at": written(outcome.drift_at) if outcome else None,
        "unobserved": outcome.unobserved if outcome else None,
        **_report(entry, hosts, now),
        "created_at": written(entry.created_at),
        "updated_at": written(entry.updated_at),
    }


def with_window(shown: Mapping[str, Any], entry: Entry, now: float) -> dict[str, Any]:
    """Show which time window is in force, besides.

    Not in lists, whose rows may have 32 windows each. Nothing is shown of
    windows in a time zone that this machine does not know.
    """
    asked = readable(entry.allocation)
    windows = [each.window for each in asked.windows] if asked else []
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
    """Leave out what is no tenant's business: which host it is, and who else is there.

    :param shown: an allocation, or an entry of its history.
    """
    return {name: _HIDDEN.get(name, value) for name, value in shown.items()}


def change(entry: Change) -> dict[str, Any]:
    """Show an entry of the history of an instance."""
    return {
        "id": entry.id,
        "generation": entry.generation,
        "allocation": _asked(entry.allocation),
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
    """Show an allocation map, without its allocations."""
    return {
        "name": found.name,
        "generation": found.generation,
        "deleting": found.deleting,
        "instances": found.instances,
        "created_at": written(found.created_at),
        "updated_at": written(found.updated_at),
    }


def host(found: Host, now: float) -> dict[str, Any]:
    """Show a host, without what it looks like."""
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


def _asked(found: Allocation | Unreadable | None) -> dict[str, Any] | None:
    known = readable(found)
    return None if known is None else known.to_json()


def _words(asked: Allocation | Unreadable | None, current: Outcome | None) -> dict[str, str]:
    """Return reason and message: what the host says, and what can't be read here."""
    reason, message = (current.reason, current.message) if current else ("", "")
    if isinstance(asked, Unreadable):
        unread = (
            f"the stored allocation can't be read ({asked.why}): PUT replaces it, DELETE "
            "releases the instance"
        )
        reason = reason or exception.StoredInvalid.reason
        message = f"{message}; {unread}" if message else unread
    return {"reason": reason, "message": message}


def _report(entry: Entry, hosts: Mapping[str, Host], now: float) -> dict[str, Any]:
    """Say who answers for an instance, and how old the answer is.

    Who is heard of confirms what was said before.
    """
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
