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

"""``kongming-manage allocation ...``: the allocations of this host's instances."""

from __future__ import annotations

import abc
import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
import time
from typing import Any

from cliff.columns import FormattableColumn

from kongming import exception
from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.allocation.stored import Unreadable, readable
from kongming.allocation.target import QUOTA, SHARES, Target, Value
from kongming.allocation.windows import in_force, next_change
from kongming.executor.placing import dry_run
from kongming.executor.store.record import Record
from kongming.executor.store.residence import Hint
from kongming.executor.store.store import Store
from kongming.manage import state
from kongming.terminal import options, preview, times
from kongming.terminal.columns import Memory, Requested, Requests, Values
from kongming.terminal.output import Lister, ShowOne

#: The status of a guest that was placed once and has no record any more.
UNCLAIMED = "unclaimed"

_Table = tuple[Sequence[str], Iterable[Sequence[Any]]]
_Fields = tuple[Sequence[str], Iterable[Any]]


class NovaReports(FormattableColumn[Hint | None]):
    """Nova's last report of where an instance is; None if there is none."""

    def human_readable(self) -> str:
        return str(self._value or "")

    def machine_readable(self) -> Any:
        hint = self._value
        if hint is None:
            return None
        return {
            "place": hint.place.value,
            "host": hint.host,
            "reported_by": hint.reported_by,
            "reported_at": times.written(hint.reported_at),
            "uncertain": hint.uncertain,
        }


class AllocationList(Lister):
    """List the instances of this host that have an allocation.

    "unclaimed": a guest that Kongming placed and has no record of any more. It
    keeps its placement until the instance's next event or 'allocation unset'.
    """

    empty = "no instance of this host has a request"

    def take_action(self, parsed_args: argparse.Namespace) -> _Table:
        with state.opened_store(self) as store:
            records = store.records()
        for record in records:
            state.warn_of_unreadable(self, record)
        rows = [
            (
                record.instance_uuid,
                str(record.status),
                record.reason,
                str(record.source),
                Requested(record.requested),
                times.written(record.changed_at),
            )
            for record in records
        ]
        known = {record.instance_uuid for record in records}
        for instance_uuid in self._touched():
            if instance_uuid not in known:
                rows.append((instance_uuid, UNCLAIMED, "", "", Requested(Allocation()), ""))
        return ("instance_uuid", "status", "reason", "source", "requested", "since"), rows

    def _touched(self) -> list[str]:
        try:
            with state.hypervisor(self) as hypervisor:
                return [guest.instance_uuid for guest in hypervisor.occupants() if guest.touched]
        except exception.KongmingError as error:
            self.app.LOG.warning("%s; unclaimed guests are not listed", error)
            return []


class _OfInstance:
    """The base of commands about one instance."""

    key: Callable[[str], str] = staticmethod(options.instance_uuid)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)  # type: ignore[misc]
        parser.add_argument("instance_uuid", metavar="<instance>", type=self.key)
        return parser


class AllocationShow(_OfInstance, ShowOne):
    """Show the requested allocation of an instance, its status and its current placement."""

    def take_action(self, parsed_args: argparse.Namespace) -> _Fields:
        with state.opened_store(self) as store:
            record = _get(store, parsed_args.instance_uuid)
            requests = store.requests(record.instance_uuid)
            hint = store.hints.get(record.instance_uuid)
        state.warn_of_unreadable(self, record)
        return self.dict2columns(
            _fields(record)
            | {"nova_reports": NovaReports(hint), "requests": Requests(requests)}
            | self._placement(record)
        )

    def _placement(self, record: Record) -> dict[str, Any]:
        """Return what can be read of the guest; for the rest, warn."""
        observed: dict[Target, Value] | None = None
        baseline: dict[Target, Value] | None = None
        grant: dict[Target, Value] | None = None
        memory: dict[int, int] | None = None
        with (
            self._warning("the current placement of the guest is unknown"),
            state.hypervisor(self) as hypervisor,
            hypervisor.guest(record.instance_uuid) as guest,
        ):
            with self._warning("the guest's memory on each node is unknown"):
                memory = guest.memory_kib()
            definition = guest.definition()
            baseline = dict(definition.baseline)
            grant = dict(definition.grant.values()) if definition.grant else {}
            observed = {}
            for targets in (definition.configured, [SHARES], [QUOTA]):
                with self._warning(f"not observed: {', '.join(map(str, targets))}"):
                    found = guest.observe(targets, definition)
                    observed |= {what: each.parts[0].value for what, each in found.items()}
        return {
            "grant": Values(grant),
            "baseline": Values(baseline),
            "observed": Values(observed),
            "memory_kib": Memory(memory),
        }

    @contextmanager
    def _warning(self, what: str) -> Iterator[None]:
        try:
            yield
        except exception.KongmingError as error:
            self.app.LOG.warning("%s: %s", what, error)


class AllocationPlan(_OfInstance, Lister):
    """Show the changes that an allocation would make to a running guest (dry run).

    Without options: the allocation that is requested now. Exits with 1 and the
    reason if the allocation would be refused.
    """

    empty = "nothing would be changed"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        options.add_allocation_options(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> _Table:
        instance_uuid = parsed_args.instance_uuid
        requested = options.read_allocation(parsed_args)
        accepted = False
        if not requested:
            with state.opened_store(self) as store:
                record = _get(store, instance_uuid)
            requested = _requested(record)
            accepted = requested == record.accepted
        with state.store_if_any(self) as others, state.hypervisor(self) as hypervisor:
            placer = state.placer(self, hypervisor, others)
            with hypervisor.guest(instance_uuid) as guest:
                found = dry_run.run(placer, guest, instance_uuid, requested, accepted=accepted)
        for warning in found.warnings:
            self.app.LOG.warning("%s", warning)
        return ("step", "target", "from", "to", "grant"), [
            (number, step.target, step.former, step.desired, step.granted)
            for number, step in enumerate(found.steps, 1)
        ]


class _Change(_OfInstance, ShowOne):
    """A command that changes a request, and waits for its outcome."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        state.add_wait_option(parser, 30.0)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> _Fields:
        instance_uuid = parsed_args.instance_uuid
        with state.opened_store(self) as store:
            self.change(store, instance_uuid, parsed_args)
            record = store.get(instance_uuid)
            if parsed_args.wait:
                try:
                    record = state.wait(self, store, instance_uuid, parsed_args.wait)
                except state.ServiceUnavailable as error:
                    self.app.LOG.warning("%s", error)
        if record is None:
            return self.dict2columns({"instance_uuid": instance_uuid, "status": "released"})
        if record.status.is_failure:
            raise exception.KongmingError(f"{record.status} ({record.reason}): {record.message}")
        return self.dict2columns(_fields(record))

    @abc.abstractmethod
    def change(self, store: Store, instance_uuid: str, parsed: argparse.Namespace) -> None:
        """Change the request."""


class AllocationSet(_Change):
    """Request an allocation for an instance as the operator.

    It overrides the instance's metadata until 'allocation unset', or until the
    instance leaves this host.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        options.add_allocation_options(parser)
        return parser

    def change(self, store: Store, instance_uuid: str, parsed: argparse.Namespace) -> None:
        requested = options.read_allocation(parsed)
        if not requested:
            raise exception.RequestInvalid("the allocation is empty: use at least one option")
        request = Request(Source.OPERATOR, requested, state.operator(), time.time())
        if not store.request(instance_uuid, request):
            # An unchanged request: check the guest again.
            store.request_pass(instance_uuid)


class AllocationUnset(_Change):
    """Withdraw the operator's request: the instance's metadata applies again.

    An unclaimed guest returns to its baseline. A stored request that can't be read is deleted; the
    request of the instance's metadata is stored again at its next event.
    """

    key = staticmethod(options.instance_key)

    def change(self, store: Store, instance_uuid: str, parsed: argparse.Namespace) -> None:
        if store.withdraw(instance_uuid, Source.OPERATOR, state.operator()):
            return
        if store.withdraw_unreadable(instance_uuid, state.operator()):
            return
        if store.has_record(instance_uuid):
            raise exception.KongmingError(
                f"instance {instance_uuid} has no operator's request: its allocation comes from "
                "its metadata, remove the keys there"
            )
        with state.hypervisor(self) as hypervisor:
            touched = {guest.instance_uuid for guest in hypervisor.occupants() if guest.touched}
        if instance_uuid not in touched:
            raise state.unknown(instance_uuid)
        store.release(instance_uuid, state.operator())


class AllocationPreview(_OfInstance, Lister):
    """Show which time window will be in force at which time."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        preview.add_days_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> _Table:
        with state.opened_store(self) as store:
            record = _get(store, parsed_args.instance_uuid)
        rows = preview.rows(parsed_args.days, _requested(record), Requested, self.app.LOG)
        return ("from", "to", "window", "requested"), rows


class AllocationHistory(_OfInstance, Lister):
    """Show the requests for an instance: when, by whom, and their outcomes."""

    empty = "the instance has no history"

    def take_action(self, parsed_args: argparse.Namespace) -> _Table:
        with state.opened_store(self) as store:
            history = store.history(parsed_args.instance_uuid)
        if not history:
            raise state.unknown(parsed_args.instance_uuid)
        return ("when", "requested_by", "source", "requested", "status", "reason", "message"), [
            (
                times.written(change.changed_at),
                change.requested_by,
                str(change.source),
                Requested(change.requested),
                str(change.status),
                change.reason,
                change.message,
            )
            for change in history
        ]


def _get(store: Store, instance_uuid: str) -> Record:
    record = store.get(instance_uuid)
    if record is None:
        raise state.unknown(instance_uuid)
    return record


def _requested(record: Record) -> Allocation:
    if isinstance(record.requested, Unreadable):
        raise exception.StoredInvalid(state.unreadable(record.instance_uuid, record.requested))
    if record.requested is None:
        raise exception.RequestInvalid(record.message)
    return record.requested


def _fields(record: Record) -> dict[str, Any]:
    return {
        "instance_uuid": record.instance_uuid,
        "status": str(record.status),
        "reason": record.reason,
        "message": record.message,
        "since": times.written(record.changed_at),
        "source": str(record.source),
        "requested": Requested(record.requested),
        "in_force": Requested(record.accepted),
        **_window(record),
        "last_drift": record.drift,
        "last_drift_at": times.written(record.drift_at),
        "unobserved": record.unobserved,
    }


def _window(record: Record) -> dict[str, str]:
    """Return the time window in force, if its time zone is known here."""
    accepted = readable(record.accepted)
    windows = [each.window for each in accepted.windows] if accepted else []
    now = datetime.now(UTC)
    try:
        current, change = in_force(windows, now), next_change(windows, now)
    except exception.RequestInvalid:
        current = change = None
    return {
        "window": current.name if current else "",
        "next_change": times.written(change.timestamp() if change else None),
    }
