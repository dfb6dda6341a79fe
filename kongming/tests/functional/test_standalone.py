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
"""Conductor and executor in one process: fake:// messaging, SQLite, libvirt's test driver.

The test driver has 8 CPUs, of which 0, 2 and 4 are online.
"""

import contextlib
import logging
from pathlib import Path
import re
import time
import urllib.request
import uuid

from oslo_config import cfg
import oslo_messaging
import pytest
from sqlalchemy import delete, update
import yaml

from kongming.allocation.allocation import Allocation
from kongming.allocation.request import Request, Source
from kongming.cmd import launch
from kongming.conductor import delivery
from kongming.conductor.service import ConductorService
from kongming.db.models import ALLOCATION, HISTORY, OUTCOME
from kongming.executor.store.store import Store
from kongming.nova.polling import PollIntervals
from kongming.rpc.bus import CONDUCTOR, EXECUTOR, open_bus
from kongming.rpc.messages import Desired
from kongming.standalone import conductor_sync
from kongming.standalone.metrics import StandaloneCollector
from kongming.standalone.service import ExecutorService
from kongming.tests.functional.alert_rules import STANDALONE_RULES
from kongming.tests.functional.cloud import wait_for
from kongming.tests.functional.site import Site
from kongming.tests.testbed.nova_api import PROJECT, Fault, NovaApi
from kongming.tests.testbed.process import free_port, patience

NAME = re.compile(r"kongming_[a-z_]+")


@pytest.fixture
def site(tmp_path, connection):
    site = Site(tmp_path, connection)
    yield site
    site.stop()
    for domain in site.domains:
        if domain.isActive():
            domain.destroy()


@pytest.fixture
def nova():
    with NovaApi() as nova:
        yield nova


@pytest.fixture
def clouded(tmp_path, connection, nova):
    """A site whose conductor queries Nova."""
    site = Site(tmp_path, connection, nova.options(), intervals=PollIntervals(0.2, 0.5))
    yield site
    site.stop()
    for domain in site.domains:
        if domain.isActive():
            domain.destroy()


def test_a_desired_allocation_is_pushed_reported_and_released(site):
    site.start()
    guest = site.guest()
    before = site.pins(guest)
    site.put(guest, "2")
    site.wait(guest, "applied")
    assert site.pins(guest) == [{2}, {2}]
    entry = site.allocations.get(guest)
    assert (entry.host, entry.outcome.host, entry.outcome.source) == (
        site.host,
        site.host,
        "api",
    )
    site.delete(guest)
    site.wait(guest, None)
    assert site.pins(guest) == before


def test_a_request_made_while_the_executor_was_down_is_pulled(site):
    site.start(ConductorService)
    guest = site.guest()
    site.put(guest, "2")
    site.wait(guest, "absent")
    site.start(ExecutorService)
    site.wait(guest, "applied")
    assert site.pins(guest) == [{2}, {2}]


def test_a_push_that_got_lost_is_made_up_for_by_the_pull(site):
    site.start()
    guest = site.guest()
    allocation = Allocation.from_json({"vcpu_pinning": "4"})
    site.allocations.put(guest, allocation, generation=None, requested_by="", request_id="")
    site.wait(guest, "applied")
    assert site.pins(guest) == [{4}, {4}]


def test_an_undesired_allocation_is_released_even_if_the_database_forgot_it(site):
    site.start()
    guest = site.guest()
    before = site.pins(guest)
    site.put(guest, "2")
    site.wait(guest, "applied")
    site.allocations.forget([guest], time.time())
    wait_for(lambda: site.pins(guest) == before)


def test_an_instance_that_is_nowhere_is_absent_and_goes_at_once(site):
    site.start(ConductorService)
    nowhere = str(uuid.uuid4())
    site.put(nowhere, "2")
    site.wait(nowhere, "absent")
    site.delete(nowhere)
    site.wait(nowhere, None)


def test_an_older_push_that_comes_late_has_no_effect(site):
    site.start()
    guest = site.guest()
    site.put(guest, "2")
    site.wait(guest, "applied")
    site.put(guest, "4")
    site.wait(guest, "applied")
    executor = site.services[-1]
    executor._desired.accept_push({guest: Desired(1, {"vcpu_pinning": "0"})})
    assert site.pins(guest) == [{4}, {4}]
    assert executor._desired.generations() == {guest: 2}


def test_an_allocation_that_an_executor_does_not_understand_is_refused_and_kept(site):
    site.start()
    guest = site.guest()
    executor = site.services[-1]
    newer = {"vcpu_pinning": "2", "cache_ways": "3"}
    executor._desired.accept_push({guest: Desired(1, newer)})
    report = executor._desired.reports()[guest]
    assert (report.status, report.reason) == ("refused", "request_invalid")


def call(site, method, **arguments):
    """Send to the executor what no conductor of ours would."""
    bus = open_bus(site.conf)
    client = oslo_messaging.get_rpc_client(bus.transport, EXECUTOR)
    return client.prepare(server=site.host, timeout=20 * patience()).call({}, method, **arguments)


def test_an_invalid_answer_of_a_conductor_stops_no_allocation_and_is_requested_again(site):
    site.conf.set_override("pull_interval", 1000, group="executor")
    site.start()
    executor, guest = site.services[-1], site.guest()
    wait_for(lambda: site.hosts.get(site.host))
    former = site.hosts.get(site.host).heartbeat_at
    for odd in (
        {},
        {"instances": None},
        {"instances": [guest]},
        {"instances": {guest: {"generation": "2", "allocation": {}}}},
        {"instances": {guest: {"generation": 2, "allocation": [1]}, "x": None}},
    ):
        call(site, "desired", **odd)
    assert "error" in call(site, "plan", instance_uuid=5, allocation=None)
    assert "error" in call(site, "stop")
    odd = call(site, "plan", instance_uuid=guest, allocation={"vcpu_pinning": {"a": [1]}})
    assert (odd["outcome"], odd["reason"]) == ("refused", "request_invalid")
    assert executor._bus.refusals.counts == {
        ("desired", "message_invalid"): 6,
        ("plan", "message_invalid"): 1,
        ("other", "message_invalid"): 1,
    }
    # Long before the interval is over.
    wait_for(lambda: site.hosts.get(site.host).heartbeat_at > former)
    site.put(guest, "2")
    site.wait(guest, "applied")


class OddConductor:
    """Answers each exchange with the next of some odd answers, and the last one for ever."""

    target = oslo_messaging.Target(version=CONDUCTOR.version)

    def __init__(self, guest):
        self.exchanges = 0
        item = {"generation": 1, "allocation": {"vcpu_pinning": "2"}, "requested_by": "\x1b[2J"}
        self._answers = [
            None,
            {"desired": [], "elsewhere": []},
            {"error": ["no", "object"]},
            {
                "desired": {guest: item, "x": item},
                "elsewhere": [5],
                "send_snapshot": False,
                "later": 1,
            },
        ]

    def exchange(self, _context, **_named):
        self.exchanges += 1
        return self._answers[min(self.exchanges, len(self._answers)) - 1]

    def report(self, _context, **_named):
        return {"refused": [{"what": 5}]}


def test_an_executor_requests_again_until_an_answer_can_be_read(site, monkeypatch):
    monkeypatch.setattr(conductor_sync, "_RETRY_MAX_S", 0.1)
    guest = site.guest()
    odd = OddConductor(guest)
    target = oslo_messaging.Target(topic=CONDUCTOR.topic, server="odd")
    server = oslo_messaging.get_rpc_server(open_bus(site.conf).transport, target, [odd])
    server.start()
    site.start(ExecutorService)
    wait_for(lambda: site.pins(guest) == [{2}, {2}])
    executor = site.services[-1]
    assert odd.exchanges >= 4
    assert executor._sync.is_available
    counts = executor._bus.refusals.counts
    # Three that are no answers; two items of the fourth.
    assert counts["exchange", "message_invalid"] >= 4
    record = executor._executor.requested_by(Source.API)[guest]
    assert record[0] == 1
    site.stop()
    server.stop()
    server.wait()


def test_a_former_request_of_the_metadata_is_withdrawn(site):
    site.start(ConductorService)
    both, left = site.guest(), site.guest()
    before = site.pins(left)
    state_path = Path(site.conf.state_path)
    state_path.mkdir()
    with contextlib.closing(Store(state_path)) as store:
        requested = Allocation.from_json({"vcpu_pinning": "0"})
        for guest in (both, left):
            store.request(guest, Request(Source.METADATA, requested, "an event", 1.0))
    site.put(both, "4")
    site.start(ExecutorService)
    site.wait(both, "applied")
    wait_for(lambda: site.pins(left) == before)
    assert site.pins(both) == [{4}, {4}]


def test_a_dry_run_goes_to_the_host_and_back(site):
    site.start()
    guest = site.guest()
    site.put(guest, "2")
    site.wait(guest, "applied")
    plan = site.client.plan(guest, Allocation.from_json({"vcpu_pinning": "4"}))
    assert (plan["outcome"], plan["host"]) == ("planned", site.host)
    assert [(step["target"], step["from"], step["to"]) for step in plan["steps"]] == [
        ("vCPU 0", "2", "4"),
        ("vCPU 1", "2", "4"),
    ]
    refused = site.client.plan(guest, Allocation.from_json({"vcpu_pinning": "1"}))
    assert (refused["outcome"], refused["reason"]) == ("refused", "cpu_offline")
    nowhere = site.client.plan(str(uuid.uuid4()), Allocation.from_json({"vcpu_pinning": "2"}))
    assert nowhere["outcome"] == "absent"


def test_a_dry_run_of_a_map_goes_to_the_host_once_and_back(site):
    site.start()
    one, other, left = (site.guest() for _ in range(3))
    for guest, cpu in ((one, "2"), (other, "4"), (left, "0")):
        site.put(guest, cpu)
        site.wait(guest, "applied")
    nowhere = str(uuid.uuid4())
    pins = {one: "4", other: "2", nowhere: "2"}
    requested = {guest: Allocation.from_json({"vcpu_pinning": cpu}) for guest, cpu in pins.items()}
    before = [site.pins(guest) for guest in (one, other, left)]
    found = site.client.plan_all({**requested, left: None})
    assert [(plan["outcome"], plan["host"]) for plan in found.values()] == [
        ("planned", site.host),
        ("planned", site.host),
        ("absent", None),
        ("planned", site.host),
    ]
    assert [step["to"] for step in found[one]["steps"]] == ["4", "4"]
    assert found[one]["warnings"] == []
    # Its release: back to what it had.
    assert [step["from"] for step in found[left]["steps"]] == ["0", "0"]
    assert [site.pins(guest) for guest in (one, other, left)] == before
    wrong = {one: Allocation.from_json({"vcpu_pinning": "1"}), other: requested[one]}
    found = site.client.plan_all(wrong)
    assert (found[one]["outcome"], found[one]["reason"]) == ("refused", "cpu_offline")
    assert found[other]["outcome"] == "planned"


def test_a_guest_that_starts_is_placed_before_the_next_pull(site):
    site.conf.set_override("pull_interval", 1000, group="executor")
    site.start()
    wait_for(lambda: site.hosts.get(site.host))
    instance_uuid = str(uuid.uuid4())
    site.put(instance_uuid, "2")
    site.wait(instance_uuid, "absent")
    site.guest(instance_uuid)
    site.wait(instance_uuid, "applied")


def test_the_snapshot_of_a_host_is_stored(site):
    site.start()
    guest = site.guest()
    site.put(guest, "2")

    def stored():
        host = site.hosts.get(site.host)
        return (
            [each["instance_uuid"] for each in host.snapshot["guests"]]
            if host and host.snapshot
            else []
        )

    wait_for(lambda: guest in stored())
    host = site.hosts.get(site.host)
    assert {"cells", "rules", "violations"} < set(host.snapshot)
    assert not host.unresponsive(time.time())


def test_a_conductor_exports_allocations_by_status_to_prometheus(site):
    port = free_port()
    for option, value in (("enabled", True), ("listen_port", port)):
        site.conf.set_override(option, value, group="metrics")
    site.start(ConductorService)
    site.conf.set_override("enabled", False, group="metrics")
    site.start(ExecutorService)
    guest = site.guest()
    site.put(guest, "2")
    site.put(str(uuid.uuid4()), "2")
    site.wait(guest, "applied")

    def scraped():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            return set(answer.read().decode().splitlines())

    expected = {
        "kongming_broker_connected 1.0",
        "kongming_nova_available 1.0",
        "kongming_database_available 1.0",
        'kongming_allocations{status="applied"} 1.0',
        'kongming_allocations{status="absent"} 1.0',
        'kongming_hosts{state="up"} 1.0',
        'kongming_hosts{state="unresponsive"} 0.0',
        "kongming_pushes_dropped_total 0.0",
        'kongming_messages_refused_total{kind="exchange",reason="message_invalid"} 0.0',
        'kongming_messages_refused_total{kind="other",reason="signature_invalid"} 0.0',
    }
    wait_for(lambda: expected <= scraped())
    executor = site.services[-1]
    link = StandaloneCollector(executor._sync, executor._calls, executor._bus.refusals)
    names = {sample.name for family in link.collect() for sample in family.samples}
    names |= {NAME.search(line)[0] for line in expected}
    alerts = yaml.safe_load(STANDALONE_RULES.read_text())["groups"][0]["rules"]
    assert {NAME.search(alert["expr"])[0] for alert in alerts} <= names


def test_each_service_puts_changed_options_in_force(site, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    site.start()
    path = tmp_path / "kongming.conf"
    options = "check_interval = 7\n[conductor]\npoll_interval = 8\nhost_timeout = 9\n"
    path.write_text(path.read_text().replace("pull_interval = 1", "pull_interval = 2") + options)
    for service in site.services:
        service.reload()
    assert caplog.text.count("Configuration reloaded") == len(site.services) == 2
    assert "reload failed" not in caplog.text
    conductor, executor = site.services
    assert conductor._delivery.intervals.changes_s == 8
    assert conductor._executors._caller.timeout_s == 9
    assert executor._executor.settings.check_interval_s == 7
    assert executor._sync.info.interval_s == 2
    assert executor._conductor._caller.timeout_s > 9


def test_without_tables_a_conductor_names_the_remedy(tmp_path):
    config = tmp_path / "kongming.conf"
    config.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = fake://\n")
    conf = launch.configure(["--config-file", str(config)])
    assert isinstance(conf, cfg.ConfigOpts)
    with pytest.raises(Exception, match="kongming-manage db sync"):
        ConductorService(conf)


def test_project_and_host_come_from_nova(clouded, nova):
    clouded.start()
    guest = clouded.guest()
    nova.add(clouded.host, {}, instance_uuid=guest)
    clouded.put(guest, "2")
    clouded.wait(guest, "applied")
    entry = clouded.allocations.get(guest)
    assert (entry.project_id, entry.host) == (PROJECT, clouded.host)


def test_the_host_in_nova_counts_and_not_the_one_of_an_executor(clouded, nova):
    clouded.start()
    guest = clouded.guest()
    before = clouded.pins(guest)
    nova.add("elsewhere", {}, instance_uuid=guest)
    clouded.put(guest, "2")
    wait_for(lambda: clouded.allocations.get(guest).host == "elsewhere")
    # It runs here, as on the target of a live migration; Nova has been queried since then.
    requests = len(nova.requests)
    wait_for(lambda: len(nova.requests) >= requests + 3)
    assert (clouded.status(guest), clouded.pins(guest)) == ("pending", before)
    assert clouded.services[-1]._desired.generations() == {}
    # Nova decides; at its notification, and sooner than at the next resync.
    nova.servers[guest].host = clouded.host
    clouded.wait(guest, "applied")
    assert clouded.pins(guest) == [{2}, {2}]


def test_a_server_that_is_deleted_in_nova_is_released_with_its_allocation(clouded, nova):
    clouded.start()
    guest = clouded.guest()
    before = clouded.pins(guest)
    nova.add(clouded.host, {}, instance_uuid=guest)
    clouded.put(guest, "2")
    clouded.wait(guest, "applied")
    nova.servers[guest].status = "DELETED"
    nova.servers[guest].touch()
    clouded.wait(guest, None)
    wait_for(lambda: clouded.pins(guest) == before)
    assert clouded.allocations.history(guest)[-1].status == "gone"


def test_a_server_that_nova_has_purged_is_released_by_the_full_resync(clouded, nova):
    clouded.start(ConductorService)
    known, to_come = nova.add("compute-1", {}), str(uuid.uuid4())
    for instance_uuid in (known, to_come):
        clouded.put(instance_uuid, "2")
    wait_for(lambda: clouded.allocations.get(known).project_id == PROJECT)
    restorable = nova.add("compute-1", {})
    clouded.put(restorable, "2")
    wait_for(lambda: clouded.allocations.get(restorable).project_id == PROJECT)
    nova.servers[restorable].status = "SOFT_DELETED"
    del nova.servers[known]
    clouded.wait(known, None)
    wait_for(lambda: clouded.allocations.get(restorable).host is None)
    # An instance that was never there can't be known to be gone.
    assert clouded.status(to_come) == "absent"


def test_another_conductor_takes_over_when_the_one_that_queries_nova_ends(
    clouded, nova, monkeypatch
):
    monkeypatch.setattr(delivery, "_LEASE_S", 2.0)
    monkeypatch.setattr(delivery, "_RENEW_S", 0.5)
    clouded.start(ConductorService, ConductorService)
    first, second = clouded.services
    wait_for(lambda: first._delivery._has_lease or second._delivery._has_lease)
    assert not (first._delivery._has_lease and second._delivery._has_lease)
    holder, other = (first, second) if first._delivery._has_lease else (second, first)
    known = nova.add("compute-1", {})
    clouded.put(known, "2")
    wait_for(lambda: clouded.allocations.get(known).project_id == PROJECT)
    # Its lease is not given back: it ends.
    holder.stop()
    clouded.services.remove(holder)
    del nova.servers[known]
    clouded.wait(known, None)
    assert other._delivery._has_lease


def test_a_restored_older_database_counts(site):
    site.start()
    guest, forgotten = site.guest(), site.guest()
    before = site.pins(guest)
    older = site.put(guest, "2")
    site.wait(guest, "applied")
    for cpus in ("0", "4"):
        site.put(guest, cpus)
    site.put(forgotten, "0")
    for each in (guest, forgotten):
        site.wait(each, "applied")
    with site.allocations._database.writer() as session:
        row = {"requested": '{"vcpu_pinning": "2"}', "generation": older.generation}
        session.execute(update(ALLOCATION).where(ALLOCATION.c.instance_uuid == guest).values(row))
        for table in (ALLOCATION, HISTORY, OUTCOME):
            session.execute(delete(table).where(table.c.instance_uuid == forgotten))
    wait_for(lambda: site.pins(guest) == [{2}] * 2)
    wait_for(lambda: site.pins(forgotten) == before)
    site.wait(guest, "applied")


def test_a_server_that_moves_is_released_on_its_former_host(clouded, nova):
    clouded.start()
    instance_uuid = nova.add(clouded.host, {})
    clouded.put(instance_uuid, "2")
    clouded.wait(instance_uuid, "absent")
    executor = clouded.services[-1]
    wait_for(lambda: executor._desired.generations() == {instance_uuid: 1})
    nova.servers[instance_uuid].host = "elsewhere"
    nova.servers[instance_uuid].touch()
    wait_for(lambda: executor._desired.generations() == {})
    assert clouded.allocations.get(instance_uuid).host == "elsewhere"


@pytest.mark.parametrize("status", [500, 401, 429, 0])
def test_without_nova_all_allocations_stay_unchanged(clouded, nova, status):
    clouded.start()
    guest = clouded.guest()
    nova.add(clouded.host, {}, instance_uuid=guest)
    clouded.put(guest, "2")
    clouded.wait(guest, "applied")
    nova.fault = Fault(status=status, delay=0.2 if status == 0 else 0.0)
    requests = len(nova.requests)
    wait_for(lambda: len(nova.requests) > requests)
    clouded.put(guest, "4")
    clouded.wait(guest, "applied")
    wait_for(lambda: clouded.pins(guest) == [{4}, {4}])
    nova.fault = None
    other = nova.add("compute-9", {})
    clouded.put(other, "2")
    wait_for(lambda: clouded.allocations.get(other).project_id == PROJECT)
