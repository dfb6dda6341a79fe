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

"""The service's store and the running guests, for commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
import os
from pathlib import Path
import time

from cliff.command import Command

from kongming import exception
from kongming.allocation.cpuset import shown
from kongming.allocation.statuses import Status
from kongming.allocation.stored import Unreadable, is_instance
from kongming.configuration.rules import read_rules
from kongming.executor import lock
from kongming.executor.placing.claims import Claims
from kongming.executor.placing.moves import Moves
from kongming.executor.placing.placer import Placer
from kongming.executor.store.record import Record
from kongming.executor.store.store import Store
from kongming.hypervisor import session
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.manage.command import conf_of
from kongming.runtime.escaping import escape
from kongming.runtime.users import user
from kongming.terminal import options

_POLL_S = 0.05


@contextmanager
def opened_store(command: Command) -> Iterator[Store]:
    """Yield the store of the service on this host.

    :raises StoreUnavailable: if it does not exist, or can't be used.
    """
    store = Store(Path(conf_of(command).state_path), create=False)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def store_if_any(command: Command) -> Iterator[Store | None]:
    """Yield the store of the service on this host; None if it can't be used."""
    with ExitStack() as stack:
        try:
            store = stack.enter_context(opened_store(command))
        except exception.StoreUnavailable:
            store = None
        yield store


def hypervisor(command: Command) -> AbstractContextManager[Hypervisor]:
    """Return a read-only connection to the host's guests.

    :raises HypervisorUnavailable: if libvirt is unavailable.
    """
    return session.inspect(conf_of(command).libvirt.connection_uri)


def placer(command: Command, hypervisor: Hypervisor, store: Store | None) -> Placer:
    """Return a placer with the operator's rules.

    :param store: the requests for the other instances; None if unknown.
    :raises ConfigInvalid: if the rules can't be read.
    """
    rules = read_rules(conf_of(command))
    claims = Claims(hypervisor.occupants, lambda other: None if moves is None else moves.of(other))
    found = Placer(lambda: rules, claims, hypervisor.topology)
    moves = None if store is None else Moves(store, hypervisor, found)
    return found


def wait(command: Command, store: Store, instance_uuid: str, timeout: float) -> Record | None:
    """Wait for an outcome, and return the record.

    :returns: None if the instance has no record any more.
    :raises ServiceUnavailable: if no service runs.
    :raises KongmingError: if it takes longer than ``timeout`` seconds.
    """

    def settled() -> bool:
        record = store.get(instance_uuid)
        return record is None or _is_settled(record)

    wait_until(command, settled, timeout)
    return store.get(instance_uuid)


def wait_until(command: Command, condition: Callable[[], bool], timeout: float) -> None:
    """Wait until the service has fulfilled a condition.

    :raises ServiceUnavailable: if no service runs.
    :raises KongmingError: if it takes longer than ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if not lock.is_held(Path(conf_of(command).state_path)):
            raise ServiceUnavailable(
                "stored, but kongming-notification-handler does not run with this state_path: it "
                "will be carried out when the service starts"
            )
        if time.monotonic() > deadline:
            raise exception.KongmingError(
                f"stored, but not carried out within {timeout:g} s: see 'allocation show' and the "
                "service's log"
            )
        time.sleep(_POLL_S)


def unknown(instance_uuid: str) -> exception.KongmingError:
    """Return the error for an unknown instance."""
    return exception.KongmingError(
        f"instance {instance_uuid} is unknown on this host: see 'allocation list'"
    )


def unreadable(instance_uuid: str, kept: Unreadable) -> str:
    """Return the message about a stored request that can't be read."""
    return (
        f"instance {instance_uuid}: its stored request can't be read ({kept.why}): "
        "'allocation set' replaces it, 'allocation unset' deletes it"
    )


def warn_of_unreadable(command: Command, record: Record) -> None:
    """Log a warning if the record of an instance can't be read."""
    if isinstance(record.requested, Unreadable):
        command.app.LOG.warning("%s", unreadable(record.instance_uuid, record.requested))
    elif not is_instance(record.instance_uuid):
        command.app.LOG.warning(
            "%s is not an instance UUID: 'allocation unset' deletes its record",
            shown(record.instance_uuid),
        )


class ServiceUnavailable(exception.KongmingError):
    """No service runs that could carry out the request."""

    reason = "service_unavailable"


def _is_settled(record: Record) -> bool:
    # An empty request ends when the record is deleted.
    return record.status.is_settled and (
        record.requested is None or bool(record.requested) or record.status is not Status.APPLIED
    )


def operator() -> str:
    """Return the name of the operator, also behind sudo."""
    return escape(f"operator {os.environ.get('SUDO_USER') or user()}")


def add_wait_option(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Add ``--wait``."""
    parser.add_argument(
        "--wait",
        metavar="<seconds>",
        type=options.seconds,
        default=seconds,
        help=f"How long to wait for the service to carry it out (default: {seconds:g}).",
    )
