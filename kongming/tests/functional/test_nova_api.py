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

"""Queries of Nova over real HTTP, whatever it answers; no guest runs here."""

from contextlib import ExitStack, contextmanager
from email.utils import formatdate
import json
import logging
import random
import threading
import time
import uuid

import pytest

from kongming import exception
from kongming.allocation import metadata
from kongming.allocation.request import Request, Source
from kongming.cmd import launch
from kongming.conf.nova import is_configured
from kongming.executor.executor import Executor
from kongming.executor.settings import Settings
from kongming.executor.store.store import Store
from kongming.notification import event, nova_poller
from kongming.notification.handler import Handler
from kongming.notification.legacy_trigger import LegacyTrigger
from kongming.notification.metadata_trigger import MetadataTrigger
from kongming.notification.nova_metrics import NovaCollector
from kongming.notification.nova_poller import NovaPoller
from kongming.notification.pending_lookups import ALL, PendingLookups
from kongming.nova.client import Nova
from kongming.nova.polling import PollIntervals
from kongming.runtime.heartbeats import Heartbeats
from kongming.tests import captures, messages
from kongming.tests.testbed.nova_api import PASSWORD, Fault, NovaApi
from kongming.tests.testbed.process import wait_until

HOST = "compute-1"
OTHER = "compute-2"
KEY = "kongming-vcpu-pinning"
SHORT_S = 0.05
#: As it is without the fixture short_rounds.
ROUND_S = nova_poller._ROUND_S
FAULTS = {
    "rate limited": Fault(429, headers={"Retry-After": "0"}),
    "overloaded": Fault(503),
    "broken": Fault(500, "<html>Traceback"),
    "not nova": Fault(200, "<html>"),
    "something else": Fault(200, '{"servers": 3}'),
    "no servers": Fault(200, '{"servers": [{"id": 1}]}'),
    "not found": Fault(404, "<html>"),
    "forbidden": Fault(403, '{"forbidden": {}}'),
}


@pytest.fixture
def api():
    with NovaApi() as api:
        yield api


@pytest.fixture
def conf(api, tmp_path):
    return configured(api, tmp_path)


def configured(api, folder, more="timeout = 2\n", change=("", "")):
    path = folder / "kongming.conf"
    path.write_text(f"[DEFAULT]\nhost = {HOST}\n{api.options(more).replace(*change)}")
    return launch.configure([f"--config-file={path}"])


@pytest.fixture
def nova(conf):
    return Nova(conf)


def names(found):
    return {server.instance_uuid for server in found}


class TestClient:
    def test_all_pages_are_read(self, api, nova):
        here = {api.add(HOST, {}) for _ in range(10)}
        for _ in range(5):
            api.add(OTHER, {})
        api.page = 3
        assert names(nova.servers(host=HOST)) == here
        assert len(api.requests) == 4

    def test_one_server_is_read(self, api, nova):
        known = api.add(HOST, {"a": "b"})
        found = nova.server(known)
        assert (found.instance_uuid, found.host, found.metadata) == (known, HOST, {"a": "b"})
        assert nova.server(str(uuid.uuid4())) is None

    def test_a_server_that_is_nowhere(self, api, nova):
        known = api.add(HOST, {})
        api.servers[known].status = "SHELVED_OFFLOADED"
        assert nova.server(known).host is None

    @pytest.mark.parametrize("status", ["DELETED", "SOFT_DELETED"])
    def test_a_deleted_server_is_returned_on_request_only(self, api, nova, status):
        known = api.add(HOST, {})
        api.servers[known].status = status
        assert nova.server(known) is None
        found = nova.server(known, deleted=True)
        assert (found.host, found.deleted) == (None, status == "DELETED")

    def test_a_server_that_is_missing_in_a_list_is_requested_alone(self, api, nova, monkeypatch):
        known = api.add(HOST, {})
        monkeypatch.setattr(api, "list", lambda _query: (200, {"servers": []}, {}))
        assert nova.server(known).host == HOST

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    def test_an_invalid_answer_is_an_error(self, api, nova, fault):
        api.add(HOST, {})
        api.fault = fault
        fault.times = float("inf")
        with pytest.raises(exception.NovaUnavailable) as raised:
            list(nova.servers(host=HOST))
        assert "\n" not in str(raised.value)
        with pytest.raises(exception.NovaUnavailable):
            nova.server(str(uuid.uuid4()))
        assert nova.requests["answered"] < 3

    @pytest.mark.parametrize(
        ("value", "seconds"), [("7", 7), ("99999", 600), ("x", 0), ("-1", 0), ("", 0)]
    )
    def test_the_retry_delay_of_nova_is_respected(self, api, nova, value, seconds):
        api.fault = Fault(429, headers={"Retry-After": value})
        with pytest.raises(exception.NovaUnavailable) as raised:
            list(nova.servers(host=HOST))
        assert raised.value.retry_after == seconds

    def test_the_retry_delay_may_be_a_date(self, api, nova):
        api.fault = Fault(503, headers={"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})
        with pytest.raises(exception.NovaUnavailable) as raised:
            list(nova.servers(host=HOST))
        assert raised.value.retry_after == 600

    def test_a_retry_date_is_compared_with_the_clock_of_nova(self, api, nova):
        api.clock_s = 7200
        until = formatdate(time.time() + 7200 + 60, usegmt=True)
        api.fault = Fault(503, headers={"Retry-After": until})
        with pytest.raises(exception.NovaUnavailable) as raised:
            list(nova.servers(host=HOST))
        assert 0 < raised.value.retry_after <= 61

    @pytest.mark.parametrize("clock_s", [-7200, 0, 7200])
    def test_the_time_of_a_list_is_that_of_novas_clock(self, api, nova, clock_s):
        api.clock_s = clock_s
        api.add(HOST, {})
        list(nova.servers(host=HOST))
        assert nova.listed_at == pytest.approx(time.time() + clock_s, abs=30)

    @pytest.mark.parametrize(
        ("status", "body", "message"),
        [
            (400, {"badRequest": {"code": 400, "message": "Bad\nmarker"}}, "Bad marker"),
            (300, {"choices": [{"id": "v2.0"}, {"id": "v2.1"}]}, "the versions v2.0, v2.1"),
            (403, {"forbidden": {"message": "Policy doesn't allow x"}}, "Policy doesn't allow x"),
            (409, {"conflict": {"message": "a\u001b[31mb"}}, "a?[31mb"),
            (400, {"strange": 1}, "Nova says: strange"),
            (500, {"computeFault": {"message": "Unexpected API Error"}}, "Unexpected API Error"),
            (400, {"x": {"message": "y" * 5000}}, "y" * 200),
        ],
    )
    def test_the_message_of_nova_is_reported(self, api, nova, status, body, message):
        api.fault = Fault(status, json.dumps(body))
        with pytest.raises(exception.NovaUnavailable) as raised:
            list(nova.servers(host=HOST))
        assert f"HTTP {status}" in str(raised.value)
        assert str(raised.value).endswith(message)

    def test_several_regions_without_a_configured_one_are_refused_with_their_names(
        self, api, tmp_path
    ):
        api.regions = {"RegionOne": "", "RegionTwo": "/two"}
        conf = configured(api, tmp_path, change=("region_name = RegionOne\n", ""))
        nova = Nova(conf)
        for _ in range(2):
            with pytest.raises(exception.NovaAmbiguous) as raised:
                list(nova.servers(host=HOST))
            assert "RegionOne (" in str(raised.value)
            assert "RegionTwo (" in str(raised.value)
            assert "set [nova] region_name" in str(raised.value)
        assert not api.requests

    @pytest.mark.parametrize(
        ("regions", "named"),
        [
            ({"RegionOne": ""}, ""),
            ({"RegionOne": "", "RegionTwo": "/two"}, "region_name = RegionOne\n"),
            ({"RegionOne": "", "Alias": ""}, ""),
        ],
        ids=["one", "one of them is named", "two names of one"],
    )
    def test_a_single_or_configured_region_is_used(self, api, tmp_path, regions, named):
        api.regions = regions
        known = api.add(HOST, {})
        conf = configured(api, tmp_path, change=("region_name = RegionOne\n", named))
        assert names(Nova(conf).servers(host=HOST)) == {known}

    def test_a_configured_endpoint_is_used(self, api, tmp_path):
        api.regions = {"RegionOne": "", "RegionTwo": "/two"}
        known = api.add(HOST, {})
        override = f"endpoint_override = {api.url}/compute/v2.1\n"
        conf = configured(api, tmp_path, change=("region_name = RegionOne\n", override))
        assert names(Nova(conf).servers(host=HOST)) == {known}

    def test_a_host_name_that_differs_by_case_is_reported_as_the_cause(
        self, api, nova, monkeypatch
    ):
        # MySQL compares without case.
        known = api.add("Compute-1", {})
        row = api.show(known)[1]["server"]
        monkeypatch.setattr(api, "list", lambda _query: (200, {"servers": [row]}, {}))
        with pytest.raises(exception.NovaAmbiguous) as raised:
            list(nova.servers(host=HOST))
        assert "Compute-1" in str(raised.value)
        assert f"[DEFAULT] host is {HOST}" in str(raised.value)
        assert "allow_all_filters" not in str(raised.value)

    def test_a_token_that_expired_is_renewed(self, api, nova):
        known = api.add(HOST, {})
        assert nova.server(known)
        api.tokens.clear()
        assert nova.server(known)

    def test_a_nova_that_hangs_is_not_waited_for(self, api, tmp_path):
        nova = Nova(configured(api, tmp_path, "timeout = 1\n"))
        api.fault = Fault(0, delay=60)
        with pytest.raises(exception.NovaUnavailable, match=r"(?i)time"):
            list(nova.servers(host=HOST))

    def test_a_nova_that_is_down(self, api, nova):
        api.down()
        with pytest.raises(exception.NovaUnavailable):
            list(nova.servers(host=HOST))
        api.up()
        assert names(nova.servers(host=HOST)) == set()

    def test_a_wrong_password(self, api, tmp_path):
        conf = configured(api, tmp_path, change=(PASSWORD, "guess"))
        with pytest.raises(exception.NovaDenied, match="username, password"):
            list(Nova(conf).servers(host=HOST))

    def test_filters_that_nova_ignores_are_detected(self, api, nova):
        known = api.add(HOST, {})
        api.add(OTHER, {})
        api.privileged = False
        for query in (lambda: list(nova.servers(host=HOST)), lambda: nova.server(known)):
            with pytest.raises(exception.NovaDenied, match="allow_all_filters"):
                query()

    def test_hosts_that_nova_does_not_show_are_detected(self, api, nova):
        api.add(HOST, {})
        api.tells_hosts = False
        with pytest.raises(exception.NovaDenied, match="os-extended-server-attributes"):
            list(nova.servers(host=HOST))

    def test_a_list_without_an_end(self, api, nova, monkeypatch):
        known = api.add(HOST, {})
        row = api.show(known)[1]["server"]
        page = {"servers": [row], "servers_links": [{"rel": "next"}]}
        monkeypatch.setattr(api, "list", lambda _query: (200, page, {}))
        with pytest.raises(exception.NovaUnavailable, match="no end"):
            list(nova.servers(host=HOST))

    def test_options_that_can_not_be_used(self, api, tmp_path):
        with pytest.raises(exception.ConfigInvalid, match=r"\[nova\] auth_type"):
            configured(api, tmp_path, change=("= password", "= no-such-plugin"))


class Host:
    """All of the service but its listener and libvirt."""

    def __init__(self, conf, state_path, legacy=True, intervals=None):
        self.executor = Executor(
            host=HOST,
            state_path=state_path,
            connection_uri="test:///default",
            keepalive=(5, 3),
            workers=1,
            settings=Settings(retry_max_s=1.0, check_interval_s=0.0),
            heartbeats=Heartbeats(),
            on_connect=lambda: None,
        )
        self.store = Store(state_path)
        self.trigger = MetadataTrigger(self.executor, look_up=self.look_up)
        self.poller = NovaPoller(
            HOST,
            Nova(conf),
            PendingLookups(state_path),
            self.trigger,
            held=lambda: self.executor.instances,
            intervals=intervals
            or PollIntervals(conf.nova.resync_interval, conf.nova.resync_full_interval),
            start_spread=0.0,
        )
        trigger = LegacyTrigger(self.trigger, self.poller) if legacy else self.trigger
        self.handler = Handler(HOST, event.read_legacy if legacy else event.read, trigger)
        self.executor.start()
        self.poller.start()

    def look_up(self, instance_uuid):
        self.poller.request(instance_uuid)
        return True

    def stop(self):
        self.poller.stop(10)
        self.executor.stop(1)
        self.store.close()

    def requested(self, instance_uuid):
        record = self.store.get(instance_uuid)
        return record and record.requested and str(record.requested.vcpu_pinning.every)

    def wait_requested(self, instance_uuid, cpus):
        wait_until(lambda: self.requested(instance_uuid) == cpus, 30, f"{cpus} is requested")

    def wait_answered(self):
        wait_until(lambda: not self.poller.pending, 60, "all lookups in Nova are done")

    def wait_settled(self):
        """Wait until libvirt was queried about all instances that an event or Nova named."""
        wait_until(lambda: self.executor.connected, 30, "libvirt answers")
        queue = self.executor._queue
        wait_until(lambda: not queue and not queue._worked_on, 30, "all was looked at")


@pytest.fixture
def short_rounds(monkeypatch):
    """Have the poller's rounds, and its retries after an error, follow each other at once."""
    for name in ("_ROUND_S", "_INTERVAL_S", "_RETRY_MAX_S"):
        monkeypatch.setattr(nova_poller, name, SHORT_S)


@pytest.fixture
def run(api, tmp_path, short_rounds):
    """Return what runs a host; it keeps its state from one run to the next."""

    @contextmanager
    def run(legacy=True, intervals=None):
        host = Host(configured(api, tmp_path), tmp_path / "state", legacy, intervals)
        try:
            # The look after the start.
            wait_until(lambda: api.requests or not api.serves, 30, "Nova was queried")
            yield host
        finally:
            host.stop()

    return run


@pytest.fixture
def one_retry(monkeypatch):
    """Have an unexpected answer of Nova count when it has come twice, which it does at once."""
    monkeypatch.setattr(nova_poller, "_ATTEMPTS", 1)
    monkeypatch.setattr(nova_poller, "_POSTPONE_S", SHORT_S)


def legacy_update(instance_uuid, host=HOST, name="compute.instance.update", publisher=HOST):
    return {
        "event_type": name,
        "publisher_id": f"compute.{publisher}",
        "timestamp": "2026-01-01 00:00:00.000000",
        "payload": {"instance_id": instance_uuid, "host": host, "metadata": {KEY: "77"}},
    }


class TestNovaPoller:
    def test_an_event_leads_to_a_lookup(self, api, run):
        known = api.add(HOST, {})
        with run() as host:
            api.servers[known].metadata[KEY] = "1"
            host.handler.handle(legacy_update(known))
            host.wait_requested(known, "1")
            del api.servers[known].metadata[KEY]
            host.handler.handle(legacy_update(known))
            wait_until(
                lambda: host.requested(known) is not True and not host.poller.pending, 30, ""
            )
            assert not host.store.get(known).requested
            del api.servers[known]
            host.handler.handle(legacy_update(known, name="compute.instance.delete.end"))
            wait_until(lambda: host.store.get(known) is None, 30, "let go")

    def test_events_of_other_hosts_cost_no_request(self, api, run):
        with run() as host:
            before = len(api.requests)
            for _ in range(100):
                host.handler.handle(legacy_update(str(uuid.uuid4()), OTHER, publisher=OTHER))
            assert not host.poller.pending
            assert len(api.requests) == before
            assert host.handler.counts["foreign"] == 100

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    def test_a_missing_answer_has_no_effect_and_is_waited_for(self, api, run, fault, caplog):
        caplog.set_level(logging.INFO)
        known = api.add(HOST, {KEY: "1"})
        with run() as host:
            host.wait_requested(known, "1")
            fault.times = float("inf")
            api.fault = fault
            api.servers[known].metadata[KEY] = "2"
            host.handler.handle(legacy_update(known))
            wait_until(lambda: not host.poller.is_available, 30, "the outage was noticed")
            assert host.requested(known) == "1"
            assert host.poller.pending == 1
            api.fault = None
            host.wait_requested(known, "2")
            wait_until(lambda: host.poller.is_available, 30, "the recovery was noticed")
        assert caplog.text.count("Nova's API can't be used") == 1
        assert caplog.text.count("Nova is available again") == 1

    def test_a_pending_lookup_survives_the_service(self, api, run):
        known = api.add(HOST, {KEY: "1"})
        with run() as host:
            host.wait_requested(known, "1")
            api.down()
            api.servers[known].metadata[KEY] = "2"
            host.handler.handle(legacy_update(known))
        with run() as host:
            assert host.poller.is_pending(known)
            wait_until(lambda: not host.poller.is_available, 30, "the outage was noticed")
            assert host.requested(known) == "1"
            api.up()
            host.wait_requested(known, "2")
            host.wait_answered()

    def test_a_thousand_events_make_few_requests(self, api, run, monkeypatch):
        monkeypatch.setattr(nova_poller, "_ROUND_S", ROUND_S)
        servers = [api.add(HOST, {}) for _ in range(100)]
        with run() as host:
            wait_until(lambda: host.poller.requests["answered"], 30, "resynced")
            before = len(api.requests)
            for number in range(1000):
                known = servers[number % 100]
                api.servers[known].metadata[KEY] = str(number // 100)
                host.handler.handle(legacy_update(known))
            host.wait_answered()
            assert {host.requested(known) for known in servers} == {"9"}
            # How many depends on how long the events take: there is a round each half a second.
            assert len(api.requests) - before < 100

    def test_nova_may_be_behind_its_event(self, api, run):
        known = api.add(OTHER, {KEY: "1"})
        with run() as host:
            name = "compute.instance.rebuild.end"
            host.handler.handle(legacy_update(known, OTHER, name, publisher=HOST))
            wait_until(lambda: any(known in path for path in api.requests), 30, "queried once")
            api.servers[known].host = HOST
            host.wait_requested(known, "1")
            host.wait_answered()

    @pytest.mark.usefixtures("one_retry")
    def test_the_final_answer_of_nova_counts_all_the_same(self, api, run):
        known = api.add(HOST, {KEY: "1"})
        with run() as host:
            host.wait_requested(known, "1")
            # In Nova's database it is still here.
            host.handler.handle(legacy_update(known, OTHER, publisher=OTHER))
            host.wait_answered()
            assert host.requested(known) == "1"

    @pytest.mark.usefixtures("one_retry")
    def test_a_request_for_a_server_that_is_being_built_is_kept(self, api, run):
        known = api.add(None, {})
        api.servers[known].status = "BUILD"
        with run(legacy=False) as host:
            requested = Request(Source.OPERATOR, metadata.parse({KEY: "1"}), "operator", 1.0)
            host.executor.request(known, requested)
            host.handler.handle(messages.message(known, time.time(), host=None, state="building"))
            host.poller.request(known)
            host.wait_answered()
            host.wait_settled()
            assert host.requested(known) == "1"
            assert host.store.hints.get(known) is None
            # The build fails.
            api.servers[known].status = "ERROR"
            host.poller.request(known)
            wait_until(lambda: host.store.get(known) is None, 30, "let go")

    def test_a_request_that_can_not_be_read_is_refused(self, api, run):
        known = api.add(HOST, {KEY: "1-"})
        with run() as host:
            wait_until(lambda: host.store.get(known), 30, "it is kept")
            assert host.store.get(known).reason == "request_invalid"


class TestResync:
    @pytest.mark.usefixtures("one_retry")
    def test_missed_changes_are_found_at_the_start(self, api, run):
        edited, gone, moved, kept = (api.add(HOST, {KEY: "1"}) for _ in range(4))
        with run() as host:
            for known in (edited, gone, moved, kept):
                host.wait_requested(known, "1")
        api.servers[edited].metadata[KEY] = "2"
        del api.servers[gone]
        api.servers[moved].host = OTHER
        new = api.add(HOST, {KEY: "3"})
        with run(legacy=False) as host:
            host.wait_requested(edited, "2")
            host.wait_requested(new, "3")
            wait_until(lambda: host.store.get(gone) is None, 30, "let go")
            wait_until(lambda: host.store.get(moved) is None, 30, "let go")
            assert host.requested(kept) == "1"

    def test_changes_are_found_at_the_interval_and_all_servers_at_the_longer_one(self, api, run):
        known = api.add(HOST, {KEY: "1"})
        with run(legacy=False, intervals=PollIntervals(0.1, 2.0)) as host:
            host.wait_requested(known, "1")
            api.servers[known].metadata[KEY] = "2"
            api.servers[known].touch()
            host.wait_requested(known, "2")
            assert any("changes-since" in path for path in api.requests)
            # As of Nova: the removal of a key is no change.
            api.servers[known].updated = "2000-01-01T00:00:00Z"
            del api.servers[known].metadata[KEY]
            wait_until(lambda: not host.store.get(known).requested, 30, "nothing is requested")

    @pytest.mark.parametrize("clock_s", [-7200, 7200])
    def test_changes_are_counted_by_novas_clock(self, api, run, clock_s):
        api.clock_s = clock_s
        known = api.add(HOST, {KEY: "1"})
        with run(legacy=False, intervals=PollIntervals(0.1, 0.0)) as host:
            host.wait_requested(known, "1")
            wait_until(lambda: "changes-since" in api.requests[-1], 30, "changes are looked at")
            api.servers[known].metadata[KEY] = "2"
            api.touch(known)
            host.wait_requested(known, "2")

    def test_an_old_event_does_not_undo_novas_newer_answer(self, api, run):
        known = api.add(HOST, {KEY: "1"})
        with run(legacy=False) as host:
            host.wait_requested(known, "1")
            before = len(api.requests)
            host.handler.handle(messages.message(known, time.time() - 3600, vcpu_pinning="0"))
            assert host.requested(known) == "1"
            # It may be that its sender's clock is behind: Nova is queried.
            wait_until(lambda: len(api.requests) > before, 30, "Nova is queried")
            host.wait_answered()
            assert host.requested(known) == "1"

    def test_an_answer_is_not_skipped_for_an_older_event(self, api, run):
        known = api.add(HOST, {})
        with run(legacy=False) as host:
            wait_until(lambda: host.poller.requests["answered"], 30, "the first is made")
            host.wait_answered()
            api.fault = Fault(0, released=threading.Event(), times=1)
            before = len(api.requests)
            api.servers[known].metadata[KEY] = "1"
            host.poller.request(known)
            wait_until(lambda: len(api.requests) > before, 30, "Nova is being queried")
            host.handler.handle(messages.message(known, time.time() - 3600, vcpu_pinning="0"))
            api.fault.released.set()
            host.wait_requested(known, "1")
            host.wait_answered()
            assert host.requested(known) == "1"

    def test_a_lagging_database_makes_no_instance_depart(self, api, run):
        known = api.add(HOST, {KEY: "1"})
        with run(legacy=False) as host:
            host.wait_requested(known, "1")
            server = api.servers.pop(known)
            host.poller.request(known)
            wait_until(lambda: known in api.requests[-1], 30, "it was looked up")
            api.servers[known] = server
            host.wait_answered()
            assert host.requested(known) == "1"
            assert host.store.hints.get(known) is None

    def test_an_event_that_contradicts_another_publisher_is_looked_up(self, api, run):
        known = api.add(HOST, {KEY: "1"})
        with run(legacy=False) as host:
            host.wait_requested(known, "1")
            host.wait_answered()
            begin = time.time()
            host.handler.handle(messages.message(known, begin, host=OTHER))
            host.handler.handle(
                messages.message(known, begin - 2, publisher="nova-api:a", vcpu_pinning="0")
            )
            # Whichever of them is right, Nova knows.
            host.wait_requested(known, "1")
            host.wait_answered()
            host.wait_settled()
            assert host.store.hints.get(known) is None

    def test_a_newer_event_overrides_an_answer(self, api, run):
        known = api.add(HOST, {KEY: "1"})
        with run(legacy=False) as host:
            host.wait_requested(known, "1")
            api.fault = Fault(0, released=threading.Event(), times=1)
            before = len(api.requests)
            host.poller.request(known, here=True)
            wait_until(lambda: len(api.requests) > before, 30, "Nova is being queried")
            api.servers[known].metadata[KEY] = "2"
            host.handler.handle(messages.message(known, time.time(), vcpu_pinning="2"))
            assert host.requested(known) == "2"
            api.fault.released.set()
            host.wait_answered()
            assert host.requested(known) == "2"
            # The answer was older; Nova was queried again.
            assert len(api.requests) > before + 1

    def test_by_hand(self, api, run):
        known = api.add(HOST, {})
        with run(legacy=False) as host, PendingLookups(host.store._db.path.parent) as by_hand:
            wait_until(lambda: api.requests, 30, "the first is made")
            api.servers[known].metadata[KEY] = "1"
            by_hand.add(ALL)
            host.wait_requested(known, "1")
            wait_until(lambda: not by_hand.is_stored(ALL), 30, "it is done")

    def test_metrics(self, api, run):
        api.add(HOST, {})
        with run() as host:
            wait_until(lambda: host.poller.requests["answered"], 30, "Nova has answered")
            found = {
                (sample.name, *sample.labels.values()): sample.value
                for family in NovaCollector(host.poller).collect()
                for sample in family.samples
            }
            assert found[("kongming_nova_requests_total", "answered")] >= 1
            assert found[("kongming_nova_available",)] == 1
            assert found[("kongming_nova_lookups",)] == 0


def wishes(step):
    """The instances of a step, as Nova's API shows them afterwards."""
    servers = {}
    for message in captures.messages(step):
        if not message["event_type"].startswith("instance."):
            continue
        data = message["payload"]["nova_object.data"]
        gone = message["event_type"] == "instance.delete.end"
        left = message["event_type"] == "instance.live_migration_post.end"
        if gone:
            servers[data["uuid"]] = None
        elif not left:
            servers[data["uuid"]] = (data["host"], data["metadata"])
    return servers


@pytest.mark.parametrize("host_name", [HOST, "fake1", "fake2"])
@pytest.mark.usefixtures("one_retry", "short_rounds")
def test_both_triggers_end_in_the_same_state(api, tmp_path, host_name, monkeypatch):
    """The same story, step by step: what is kept after each, for one host."""
    monkeypatch.setattr("kongming.tests.functional.test_nova_api.HOST", host_name)
    random.seed(0)
    with ExitStack() as stack:
        hosts = {}
        for legacy in (False, True):
            folder = tmp_path / str(legacy)
            folder.mkdir()
            host = Host(configured(api, folder), folder / "state", legacy)
            stack.callback(host.stop)
            hosts[legacy] = host
        observed = set()
        for step in captures.STEPS:
            for known, server in wishes(step).items():
                api.servers.pop(known, None)
                if server is not None:
                    api.add(*server, instance_uuid=known)
            for message in captures.messages(step):
                hosts[False].handler.handle(message)
            for message in captures.messages(step, "notifications"):
                hosts[True].handler.handle(message)
            for host in hosts.values():
                host.wait_answered()
                host.wait_settled()
            states = [
                {
                    record.instance_uuid: record.requested
                    for record in host.store.records()
                    if record.requested
                }
                for host in hosts.values()
            ]
            assert states[0] == states[1], step
            observed |= set(states[0])
        assert observed


def test_an_identity_of_another_group_is_used(api, tmp_path):
    known = api.add(HOST, {KEY: "0"})
    elsewhere = api.options().replace("[nova]", "[keystone]")
    path = tmp_path / "kongming.conf"
    path.write_text(
        f"[DEFAULT]\nhost = {HOST}\n{elsewhere}\n[nova]\nauth_section = keystone\n"
        "region_name = RegionOne\nvalid_interfaces = internal\n"
    )
    conf = launch.configure([f"--config-file={path}"])
    assert is_configured(conf)
    assert [server.instance_uuid for server in Nova(conf).servers(host=HOST)] == [known]


def test_without_an_identity_nova_is_not_queried(tmp_path):
    path = tmp_path / "kongming.conf"
    path.write_text("[nova]\nregion_name = RegionOne\n")
    assert not is_configured(launch.configure([f"--config-file={path}"]))
