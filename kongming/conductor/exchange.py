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

"""Decisions of an exchange: pure functions of a host's state and the database's entries."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kongming.db.values import Entry
from kongming.rpc.messages import Desired, Exchange, ExchangeAnswer, Report

_UNKNOWN = Desired(0, None)


def answer(
    exchange: Exchange, entries: Mapping[str, Entry], contested: Collection[str], digest: str
) -> ExchangeAnswer:
    """Return the instructions to a host.

    Only the holder of an instance gets its desired allocation, and only if it has another
    generation. A guest that the host knows and the database does not is released.

    :param entries: the entries of all instances of the host and of the exchange, by UUID.
    :param contested: the guests that belong to another host.
    :param digest: the digest of the stored snapshot.
    """
    host, known, running = exchange.host, exchange.known, set(exchange.guests)
    elsewhere = {
        uuid
        for uuid in known.keys() - running
        if uuid not in entries or _is_elsewhere(entries[uuid], host)
    }
    desired = dict.fromkeys((known.keys() & running) - entries.keys(), _UNKNOWN)
    for uuid, entry in entries.items():
        may_have = entry.holder == host or (entry.unknown and uuid in running)
        is_there = uuid in known or uuid in running or not _is_elsewhere(entry, host)
        is_changed = _is_changed(entry, known.get(uuid))
        if may_have and is_there and is_changed and uuid not in elsewhere:
            desired[uuid] = desired_of(entry)
    return ExchangeAnswer(
        desired,
        tuple(sorted(elsewhere)),
        tuple(sorted(contested)),
        send_snapshot=bool(exchange.digest) and exchange.digest != digest,
        refused=exchange.left_out,
    )


def released(exchange: Exchange, entries: Mapping[str, Entry], now: float) -> list[Report]:
    """Return reports of the releases that the host has completed.

    Those are the instances that are to be released, and that their holder does not know.
    """
    return [
        Report.released(uuid, entry.generation, now)
        for uuid, entry in entries.items()
        if entry.allocation is None
        and uuid not in exchange.known
        and entry.holder == exchange.host
    ]


def desired_of(entry: Entry) -> Desired:
    """Return the message with the desired allocation of an entry."""
    allocation = None if entry.allocation is None else entry.allocation.to_json()
    return Desired(entry.generation, allocation, entry.requested_by)


def _is_elsewhere(entry: Entry, host: str) -> bool:
    """Return whether an instance that does not run on a host does not belong to it, either."""
    if entry.host is None:
        # With a project, Nova has reported it: it is on no host.
        return entry.project_id is not None
    return entry.host != host


def _is_changed(entry: Entry, known: int | None) -> bool:
    if known is None:
        return entry.allocation is not None
    return entry.generation != known
