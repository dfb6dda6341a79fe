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

"""How many requests Nova gets: counted by the emulator of its API, over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
import tempfile
from typing import Any

from bench_bed import KEY, Bed, Row, pss

from kongming.cmd.launch import configure
from kongming.notification.metadata_trigger import MetadataTrigger
from kongming.notification.nova_poller import NovaPoller
from kongming.notification.pending_lookups import ALL, PendingLookups
from kongming.nova.client import Nova
from kongming.nova.polling import PollIntervals
from kongming.tests.testbed.nova_api import NovaApi
from kongming.tests.testbed.process import wait_until

GUESTS = (1, 10, 100, 1000)
EACH = 10
HOSTS = (1, 10, 100)
ON_PAPER = 1000
GUESTS_A_HOST = 20


class FakeExecutor(dict[str, object]):
    """An executor that only stores requests."""

    def has_record(self, instance_uuid: str) -> bool:
        return instance_uuid in self

    def request(self, instance_uuid: str, request: object) -> None:
        self[instance_uuid] = request

    def forget(self, instance_uuid: str) -> None:
        self.pop(instance_uuid, None)


def requests(bed: Bed, _number: int) -> list[Row]:
    """Requests to Nova as a function of guests and of hosts; and what asking takes."""
    rows = [_memory(bed)]
    for guests in GUESTS:
        rows += _of_one_host(guests)
    counted = {}
    for hosts in HOSTS:
        counted[hosts] = _of_hosts(hosts)
        rows.append(
            _row(f"a resync of {hosts} hosts with {GUESTS_A_HOST} guests each", counted[hosts])
        )
    if any(count != hosts for hosts, count in counted.items()):
        raise AssertionError("not one request for each host: it can't be told for more of them")
    rows.append(_row(f"the same of {ON_PAPER} hosts, by the same rule (not run)", ON_PAPER))
    return rows


def _memory(bed: Bed) -> Row:
    used = []
    with NovaApi() as api:
        for name, options in (("polling", api.options()), ("not-polling", "")):
            with bed.daemon(name, name, options) as daemon:
                wait_until(lambda: api.requests, 60, "the resync after the start")
                used.append(pss(daemon.process.pid))
    polling, not_polling = used
    return Row(
        "memory (PSS) of a service that polls Nova; floor: one that does not",
        f"{polling:.1f} MB",
        f"{not_polling:.1f} MB",
        f"{polling / not_polling:.2f}",
        "",
    )


def _of_one_host(guests: int) -> list[Row]:
    with NovaApi() as api, _host(api, "compute-1") as (poller, lookups):
        known = [api.add("compute-1", {KEY: "1"}) for _ in range(guests)]
        full = _counted(api, poller, lambda: lookups.add(ALL))

        def events() -> None:
            for _ in range(EACH):
                for instance_uuid in known:
                    poller.request(instance_uuid, here=True)

        burst = _counted(api, poller, events)
    return [
        _row(f"a resync of {guests} guests", full),
        _row(f"{EACH} events of each of {guests} guests at once", burst),
    ]


def _of_hosts(number: int) -> int:
    with ExitStack() as stack:
        api = stack.enter_context(NovaApi())
        names = [f"compute-{index}" for index in range(number)]
        for name in names:
            for _ in range(GUESTS_A_HOST):
                api.add(name, {KEY: "1"})
        for name in names:
            stack.enter_context(_host(api, name))
        # The look after the start, of each.
        return len(api.requests)


def _counted(api: NovaApi, poller: NovaPoller, what: Callable[[], None]) -> int:
    before = len(api.requests)
    what()
    wait_until(lambda: len(api.requests) > before, 60, "Nova is asked")
    wait_until(lambda: not poller.pending, 60, "Nova was asked all")
    return len(api.requests) - before


@contextmanager
def _host(api: NovaApi, name: str) -> Iterator[tuple[NovaPoller, PendingLookups]]:
    with tempfile.TemporaryDirectory(prefix="kongming-bench-") as folder:
        conf_file = Path(folder, "kongming.conf")
        conf_file.write_text(f"[DEFAULT]\nhost = {name}\n{api.options()}")
        conf = configure([f"--config-file={conf_file}"])
        kept: Any = FakeExecutor()
        lookups = PendingLookups(Path(folder))
        poller = NovaPoller(
            name,
            Nova(conf),
            lookups,
            MetadataTrigger(kept),
            held=lambda: frozenset(kept),
            intervals=PollIntervals(600.0, 3600.0),
            start_spread=0.0,
        )
        poller.start()
        wait_until(lambda: poller.requests["answered"], 60, "the resync after the start")
        try:
            yield poller, lookups
        finally:
            poller.stop(10)


def _row(what: str, count: int) -> Row:
    return Row(f"requests to Nova: {what}", str(count), "", "", "")
