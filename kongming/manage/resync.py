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

"""``kongming-manage reconcile`` and ``resync``: check guests, or ask Nova, now."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from kongming import exception
from kongming.conf import nova
from kongming.executor.store.store import Store
from kongming.manage import state
from kongming.manage.command import conf_of
from kongming.notification.pending_lookups import ALL, PendingLookups
from kongming.terminal import options
from kongming.terminal.output import Lister

_Table = tuple[Sequence[str], Iterable[Sequence[Any]]]


class _OfInstances(Lister):
    """A command about one instance, or all, that shows their outcomes."""

    seconds: ClassVar[float]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "instance_uuid", metavar="<instance>", nargs="?", type=options.instance_uuid
        )
        state.add_wait_option(parser, self.seconds)
        return parser

    def outcomes(self, store: Store, instance_uuids: Iterable[str], timeout: float) -> _Table:
        """Wait for the outcomes, and return them."""
        records = [state.wait(self, store, each, timeout) for each in instance_uuids]
        return ("instance_uuid", "status", "reason", "message"), [
            (record.instance_uuid, str(record.status), record.reason, record.message)
            for record in records
            if record is not None
        ]


class Reconcile(_OfInstances):
    """Make the service compare an instance, or all, with the desired allocation now."""

    seconds = 60.0

    def take_action(self, parsed_args: argparse.Namespace) -> _Table:
        one = parsed_args.instance_uuid
        with state.opened_store(self) as store:
            instance_uuids = [one] if one else sorted(store.instances())
            for instance_uuid in instance_uuids:
                if not store.request_pass(instance_uuid):
                    raise state.unknown(instance_uuid)
            return self.outcomes(store, instance_uuids, parsed_args.wait)


class Resync(_OfInstances):
    """Make the service ask Nova for an instance, or for all of this host, now."""

    seconds = 120.0

    def take_action(self, parsed_args: argparse.Namespace) -> _Table:
        conf = conf_of(self)
        if not nova.is_configured(conf):
            raise exception.ConfigInvalid(
                "[nova] auth_type is not set, so Nova's API can't be used: set it and its "
                "credentials, and restart the service"
            )
        about = parsed_args.instance_uuid or ALL
        with (
            state.opened_store(self) as store,
            PendingLookups(Path(conf.state_path), create=False) as lookups,
        ):
            lookups.add(about)
            state.wait_until(self, lambda: not lookups.is_stored(about), parsed_args.wait)
            instances = [about] if about != ALL else sorted(store.instances())
            return self.outcomes(store, instances, parsed_args.wait)
