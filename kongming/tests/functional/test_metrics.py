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

"""The metrics of a working service, scraped over HTTP."""

import contextlib
import json
from pathlib import Path
import re
import socket
import sqlite3
import subprocess
import sys
from urllib.request import urlopen

import libvirt
from prometheus_client.parser import text_string_to_metric_families
import pytest
import yaml

from kongming import exception, version
from kongming.hypervisor.connection import run_event_loop
from kongming.notification import handler
from kongming.notification.service import NotificationHandlerService
from kongming.tests.functional.alert_rules import ETC, STANDALONE_RULES
from kongming.tests.functional.cloud import URI, Cloud, pins, wait_for
from kongming.tests.testbed.nova_api import NovaApi
from kongming.tests.testbed.process import free_port, patience
from kongming.tests.testbed.promtool import fetch

RULES = ETC / "prometheus/kongming.rules.yml"
ALERTS_TESTED = Path(__file__).parents[1] / "data/prometheus"
DASHBOARD = ETC / "grafana/kongming.json"

# Prometheus makes this one itself.
MADE_BY_PROMETHEUS = {"up"}
NAME = re.compile(r"\b(?:kongming|process)_\w+|\bup\b")
MATCHER = re.compile(r'(\w+)\{[^}]*?(\w+)="([^"$|]+)"')
GRID_WIDTH = 24


class Scraped:
    """The samples of one scrape."""

    def __init__(self, port):
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30 * patience()) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        self.samples = [sample for family in families for sample in family.samples]
        self.names = {sample.name for sample in self.samples}

    def value(self, name, **labels):
        """Return the value of the one sample with these labels; None if there is none."""
        values = [s.value for s in self.samples if s.name == name and s.labels == labels]
        assert len(values) <= 1
        return values[0] if values else None


class MeasuredCloud(Cloud):
    """A host whose service answers Prometheus."""

    def __init__(self, tmp_path, connection, more=""):
        super().__init__(tmp_path, connection, more)
        self.port = free_port()
        self.conf.set_override("enabled", True, "metrics")
        self.conf.set_override("listen_port", self.port, "metrics")

    def scrape(self):
        return Scraped(self.port)

    def grows(self, name, by=1, **labels):
        """Return a check of whether a counter has grown since now."""
        before = self.scrape().value(name, **labels) or 0
        return lambda: (self.scrape().value(name, **labels) or 0) == before + by


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    run_event_loop()
    with NovaApi() as nova_api:
        folder = tmp_path_factory.mktemp("cloud")
        cloud = MeasuredCloud(folder, libvirt.open(URI), nova_api.options())
        yield cloud.start()
        cloud.stop()


@pytest.fixture
def cloud(running):
    yield running
    for domain in running.domains:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        running.publish(domain, "instance.delete.end")
    running.domains.clear()
    running.settled()


def test_all_metrics_exist_before_the_first_event(cloud):
    scraped = cloud.scrape()
    assert scraped.value("kongming_build_info", version=version.release()) == 1
    assert scraped.value("process_start_time_seconds") > 0
    assert scraped.value("kongming_libvirt_connected") == 1
    assert scraped.value("kongming_broker_connected") == 1
    assert scraped.value("kongming_store_available") == 1
    assert scraped.value("kongming_queue_depth") == 0
    for status in ("pending", "applied", "drifted", "refused", "failed", "absent"):
        assert scraped.value("kongming_guests", status=status) == 0
    for reason in ("cpu_offline", "overlap", "request_invalid", "nova_owned"):
        assert scraped.value("kongming_refusals_total", reason=reason) is not None
    assert scraped.value("kongming_apply_duration_seconds_bucket", le="+Inf") is not None
    assert not any(sample.name.startswith("python_") for sample in scraped.samples)


def test_a_guest_that_is_placed(cloud):
    applied = cloud.grows("kongming_applies_total", outcome="applied")
    timed = cloud.grows("kongming_apply_duration_seconds_count")
    received = cloud.grows("kongming_events_total", kind="instance.create.end", outcome="own")
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="2")
    cloud.settled()
    assert pins(guest) == [{2}] * 4
    assert applied()
    assert timed()
    assert received()
    scraped = cloud.scrape()
    assert scraped.value("kongming_guests", status="applied") == 1
    assert scraped.value("kongming_apply_duration_seconds_sum") > 0


def test_a_guest_that_is_refused(cloud):
    unreadable = cloud.grows("kongming_refusals_total", reason="request_invalid")
    offline = cloud.grows("kongming_refusals_total", reason="cpu_offline")
    cloud.publish(cloud.guest(), kongming_vcpu_pinning="0,x")
    cloud.publish(cloud.guest(), kongming_vcpu_pinning="1")
    cloud.settled()
    assert unreadable()
    assert offline()
    assert cloud.scrape().value("kongming_guests", status="refused") == 2


def test_a_guest_that_another_program_moves_is_counted_as_drift(cloud):
    guest = cloud.guest()
    cloud.publish(guest, kongming_vcpu_pinning="2")
    cloud.settled()
    repinned = cloud.grows("kongming_drifts_total", reason="repinned")
    guest.pinVcpu(0, (True,) * 8)
    cloud.publish(guest, "instance.update", kongming_vcpu_pinning="2")
    wait_for(repinned)
    assert pins(guest) == [{2}] * 4


def test_events_of_other_hosts_are_counted(cloud):
    guest = cloud.guest()
    malformed = cloud.grows("kongming_events_total", kind="", outcome="malformed")
    foreign = cloud.grows("kongming_events_total", by=2, kind="", outcome="foreign")
    kinds = set(cloud.service._handler.kinds)
    cloud.send("instance.create.end", {})
    cloud.publish(guest, "instance.foreign.end", host="elsewhere")
    cloud.send("compute.other", {})
    cloud.received_all()
    assert malformed()
    assert foreign()
    assert set(cloud.service._handler.kinds) == kinds


def test_the_number_of_kinds_is_bounded(cloud, monkeypatch):
    kinds = cloud.service._handler.kinds
    monkeypatch.setattr(handler, "_KINDS_MAX", len(kinds) + 1)
    strange = cloud.grows("kongming_events_total", by=3, kind="other", outcome="own")
    guest = cloud.guest()
    for name in ("instance.a", 'instance.new"\n', "instance.b", "instance." + 200 * "x"):
        cloud.publish(guest, name)
    cloud.received_all()
    assert strange()
    assert ("instance.a", "own") in kinds
    assert ("instance.b", "own") not in kinds


def test_an_unavailable_store_is_reported_beside_the_other_metrics(cloud):
    store = cloud.service._executor._store._db
    moved = store.path.with_suffix(".away")
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.path.rename(moved)
    store.path.mkdir()
    try:
        scraped = cloud.scrape()
        assert scraped.value("kongming_store_available") == 0
        assert "kongming_guests" not in scraped.names
        assert scraped.value("kongming_libvirt_connected") == 1
    finally:
        store.path.rmdir()
        moved.rename(store.path)
    assert cloud.scrape().value("kongming_store_available") == 1


def test_events_that_can_not_be_stored_are_counted(cloud):
    store = cloud.service._executor._store._db
    store._db.execute("PRAGMA busy_timeout = 20")
    guest = cloud.guest()
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        cloud.publish(guest, kongming_vcpu_pinning="2")
        wait_for(lambda: cloud.scrape().value("kongming_events_held_up") == 1)
        assert cloud.scrape().value("kongming_store_available") == 1
        other.execute("ROLLBACK")
    cloud.settled()
    store._db.execute("PRAGMA busy_timeout = 5000")
    assert cloud.scrape().value("kongming_events_held_up") == 0


def test_a_client_that_sends_no_request_delays_no_other(cloud):
    with socket.create_connection(("127.0.0.1", cloud.port)):
        assert cloud.scrape().value("kongming_store_available") == 1


def test_a_stopped_service_frees_the_port(running, tmp_path):
    cloud = MeasuredCloud(tmp_path, running.connection).start()
    cloud.scrape()
    cloud.stop()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", cloud.port))


def test_an_occupied_port_is_reported_in_one_line(running, tmp_path):
    cloud = MeasuredCloud(tmp_path, running.connection)
    with (
        socket.create_server(("127.0.0.1", cloud.port)),
        pytest.raises(exception.ConfigInvalid) as raised,
    ):
        NotificationHandlerService(cloud.conf)
    assert f"listen_port {cloud.port}: Address already in use" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_service_without_metrics_does_not_load_them():
    loaded = (
        "import kongming.cmd.notification_handler, oslo_messaging, sys;"
        "print({'prometheus_client', 'http.server'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("set()\n", 0), ended.stderr


def rules(path=RULES):
    return [
        rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
    ]


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions():
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def test_rules_and_dashboard_name_existing_metrics_only(cloud):
    cloud.publish(cloud.guest())
    cloud.received_all()
    scraped = cloud.scrape()
    named = {name for expression in expressions() for name in NAME.findall(expression)}
    assert named - MADE_BY_PROMETHEUS <= scraped.names
    matched = {match for expression in expressions() for match in MATCHER.findall(expression)}
    assert ("kongming_guests", "status", "refused") in matched
    for name, label, value in matched:
        if name not in MADE_BY_PROMETHEUS:
            assert any(s.name == name and s.labels[label] == value for s in scraped.samples)


def test_the_dashboard_shows_all_metrics(cloud):
    shown = {
        re.sub("_(bucket|sum|count|created)$", "", name)
        for panel in panels()
        for target in panel["targets"]
        for name in NAME.findall(target["expr"])
    }
    families = {
        re.sub("_(bucket|sum|count|created)$", "", name)
        for name in cloud.scrape().names
        if name.startswith("kongming_")
    }
    assert families == {name for name in shown if name.startswith("kongming_")}


def test_each_alert_names_its_remedy():
    everything = rules() + rules(STANDALONE_RULES)
    assert len({rule["alert"] for rule in everything}) == len(everything)
    for rule in everything:
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 80
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_the_panels_do_not_overlap():
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        fields = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not fields & taken
        assert place["x"] + place["w"] <= GRID_WIDTH
        taken |= fields
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_dashboard_can_be_imported_anywhere():
    dashboard = json.loads(DASHBOARD.read_text())
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert "instance" in variables
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all("$instance" in target["expr"] for target in panel["targets"])


@pytest.fixture(scope="module")
def promtool():
    program = fetch()

    def run(*arguments):
        checked = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    return run


@pytest.mark.parametrize("rules", [RULES, STANDALONE_RULES], ids=lambda rules: rules.stem)
def test_the_alerts_fire_when_they_should(promtool, rules):
    promtool("test", "rules", ALERTS_TESTED / f"{rules.stem}.test.yml")


def test_prometheus_accepts_the_rules_and_the_dashboards_queries(promtool, tmp_path):
    queries = [
        {"record": f"query:{number}", "expr": re.sub(r"\$__rate_interval", "5m", expression)}
        for number, expression in enumerate(expressions())
    ]
    dashboard = tmp_path / "dashboard.yml"
    dashboard.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": queries}]}))
    promtool("check", "rules", RULES)
    promtool("check", "rules", STANDALONE_RULES)
    promtool("check", "rules", dashboard)
