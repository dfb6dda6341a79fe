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

"""kongming-manage beside the running service, on a real guest."""

import json
import subprocess

import pytest

from kongming.tests.integration.conftest import applied, everywhere, status
from kongming.tests.testbed.process import wait_until
from kongming.tests.testbed.program import installed


@pytest.fixture
def manage(cloud):
    """Run a command with the configuration of a daemon; return its output, JSON parsed."""

    def run(daemon, *words, fails=False):
        command = [*installed("kongming-manage"), "--config-file", daemon.conf, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert (done.returncode != 0) == fails, done.stderr
        run.stderr = done.stderr
        if fails:
            assert done.stdout == ""
            return done.stderr
        return json.loads(done.stdout) if "json" in words else done.stdout

    return run


@pytest.mark.needs_mounts
def test_an_operator_sets_shows_and_unsets_beside_the_service(cloud, cpus, manage):
    first, last = cpus[0], cpus[-1]
    guest = cloud.guest(iothreads=1)
    with cloud.daemon() as daemon:
        cloud.update(guest, vcpu_pinning=str(first))
        applied(daemon, guest)
        changed = manage(
            daemon,
            *("allocation", "set", guest.uuid, "-f", "json"),
            *("--vcpu-pinning", f"0:{last}", "--cpu-shares", "200", "--vcpu-quota", "50%"),
        )
        assert changed["status"] == "applied"
        assert changed["source"] == "operator"
        assert guest.affinity() == {0: {last}, 1: set(cpus)}
        shown = manage(daemon, "allocation", "show", guest.uuid, "-f", "json")
        assert (
            shown["requested"]
            == shown["in_force"]
            == {
                "vcpu_pinning": {"0": str(last)},
                "cpu_shares": 200,
                "vcpu_quota": {"quota_us": 50_000, "period_us": 100_000},
            }
        )
        assert shown["observed"]["vcpu_pinning"] == {"0": str(last), "1": f"{first}-{last}"}
        assert shown["observed"]["iothread_pinning"] == {"1": f"{first}-{last}"}
        assert shown["observed"]["cpu_shares"] == 200
        assert shown["baseline"]["vcpu_pinning"] == {"0": f"{first}-{last}"}
        assert shown["baseline"]["vcpu_quota"] == "none"
        assert [request["source"] for request in shown["requests"]] == ["metadata", "operator"]
        assert sum(shown["memory_kib"].values()) > 0
        text = manage(daemon, "allocation", "show", guest.uuid)
        assert f"vcpu-pinning=0:{last}" in text
        assert (
            manage(daemon, "allocation", "unset", guest.uuid, "-f", "json")["status"] == "applied"
        )
        assert guest.affinity() == {0: {first}, 1: {first}}
        history = manage(daemon, "allocation", "history", guest.uuid, "-f", "json")
        assert [entry["source"] for entry in history] == ["metadata", "operator", "metadata"]
        assert history[1]["requested_by"].startswith("operator ")
        assert "withdrawn by operator " in history[2]["requested_by"]
        stderr = manage(daemon, "allocation", "unset", guest.uuid, fails=True)
        assert "has no operator's request" in stderr


def test_time_windows_from_a_file(cloud, cpus, manage, tmp_path):
    first, last = cpus[0], cpus[-1]
    guest = cloud.guest()
    written = tmp_path / "allocation.yaml"
    written.write_text(
        f"vcpu_pinning: '{first}'\n"
        "windows:\n"
        "- {name: never, start: 0 0 29 2 *, duration_s: 60, vcpu_pinning: '0'}\n"
        f"- {{name: always, start: '* * * * *', duration_s: 3600, vcpu_pinning: '{last}'}}\n"
    )
    with cloud.daemon() as daemon:
        words = ("allocation", "set", guest.uuid, "--file", written, "-f", "json")
        entry = manage(daemon, *words)
        assert (entry["status"], entry["window"]) == ("applied", "always")
        guest.wait_on(last)
        shown = manage(daemon, "allocation", "show", guest.uuid)
        assert f"always: * * * * * (UTC), 3600 s, vcpu-pinning={last}" in shown
        spans = manage(daemon, "allocation", "preview", guest.uuid, "-f", "json", "--days", "1")
        assert {span["window"] for span in spans} <= {"always", "never"}
        assert spans[-1]["requested"] == {"vcpu_pinning": str(last)}
        text = written.read_text()
        written.write_text(text.replace("duration_s: 3600", "duration_s: 1"))
        stderr = manage(daemon, *words[:5], fails=True)
        assert "windows[1].duration_s: 1 is less than the minimum" in stderr
        written.write_text("{")
        assert "neither JSON nor YAML" in manage(daemon, *words[:5], fails=True)
        stderr = manage(daemon, *words[:5], "--cpu-shares", "200", fails=True)
        assert "leave out the other options" in stderr
        guest.wait_on(last)


@pytest.mark.needs_mounts
def test_a_list_of_all_allocations_and_a_text_exist_for_each_format(cloud, cpus, manage):
    guests = [cloud.guest(vcpus=1) for _ in range(2)]
    with cloud.daemon() as daemon:
        cloud.update(guests[0], vcpu_pinning=str(cpus[0]), cpu_shares="200")
        cloud.update(guests[1], vcpu_pinning="x")
        applied(daemon, guests[0])
        status(daemon, guests[1], "refused")
        rows = {
            row["instance_uuid"]: row for row in manage(daemon, "allocation", "list", "-f", "json")
        }
        assert rows[guests[0].uuid]["status"] == "applied"
        assert rows[guests[0].uuid]["requested"]["cpu_shares"] == 200
        assert rows[guests[1].uuid]["reason"] == "request_invalid"
        assert rows[guests[1].uuid]["requested"] is None
        for form in ("table", "yaml", "csv", "value"):
            assert guests[0].uuid in manage(daemon, "allocation", "list", "-f", form)


@pytest.mark.needs_mounts
def test_a_plan_shows_the_steps_or_the_refusal_and_has_no_effect(cloud, cpus, manage):
    guest, other = cloud.guest(), cloud.guest()
    other.pin(cpus[-1])
    with cloud.daemon(options=f"[guard]\nreserved_cpus = {cpus[0]}\n") as daemon:
        words = ("allocation", "plan", guest.uuid, "-f", "json")
        steps = manage(daemon, *words, "--vcpu-pinning", str(cpus[-1]), "--cpu-shares", "300")
        assert [(step["target"], step["to"]) for step in steps] == [
            ("vCPU 0", str(cpus[-1])),
            ("vCPU 1", str(cpus[-1])),
            ("CPU shares", "300"),
        ]
        assert f"CPU {cpus[-1]}: instance {other.uuid}" in manage.stderr
        stderr = manage(daemon, *words, "--vcpu-pinning", str(cpus[0]), fails=True)
        assert "reserved" in stderr
        stderr = manage(daemon, *words, "--vcpu-pinning", "0;1", fails=True)
        assert "item '0' at position 1" in stderr
        stderr = manage(daemon, *words, fails=True)
        assert "is unknown on this host" in stderr
        assert guest.affinity() == everywhere(guest)
        assert daemon.record(guest.uuid) is None


def test_a_refused_manual_request_has_a_reason_and_the_former_stays(cloud, cpus, manage):
    guest = cloud.guest()
    with cloud.daemon() as daemon:
        words = ("allocation", "set", guest.uuid, "--vcpu-pinning")
        manage(daemon, *words, str(cpus[-1]))
        stderr = manage(daemon, *words, "8191", fails=True)
        assert "refused (cpu_unknown): CPU 8191 does not exist" in stderr
        guest.wait_on(cpus[-1])
        assert "the allocation is empty" in manage(
            daemon, "allocation", "set", guest.uuid, fails=True
        )
        assert "not an instance UUID" in manage(daemon, "allocation", "set", "vm1", fails=True)


@pytest.mark.needs_mounts
def test_reconcile_finds_an_unannounced_guest(cloud, cpus, manage):
    guest = cloud.guest()
    with cloud.daemon(options="[executor]\ncheck_interval = 0\n") as daemon:
        cloud.update(guest, vcpu_pinning=f"{cpus[0]},{cpus[-1]}")
        applied(daemon, guest)
        guest.move_thread(0, cpus[0])
        (row,) = manage(daemon, "reconcile", guest.uuid, "-f", "json")
        assert row["status"] == "applied"
        assert guest.affinity() == everywhere(guest)
        assert daemon.record(guest.uuid).drift
        assert len(manage(daemon, "reconcile", "-f", "json")) == 1


def test_without_the_service_a_request_is_stored_for_its_start(cloud, cpus, manage):
    guest = cloud.guest()
    daemon = cloud.daemon()
    assert "has a service of Kongming run" in manage(daemon, "allocation", "list", fails=True)
    daemon.start()
    daemon.stop()
    entry = manage(
        daemon, "allocation", "set", guest.uuid, "--vcpu-pinning", str(cpus[-1]), "-f", "json"
    )
    assert entry["status"] == "pending"
    assert "does not run with this state_path" in manage.stderr
    assert "does not run" in manage(daemon, "reconcile", guest.uuid, fails=True)
    daemon.start()
    guest.wait_on(cpus[-1])


def test_an_unknown_guest_can_be_returned_to_its_baseline(cloud, cpus, manage):
    guest = cloud.guest()
    daemon = cloud.daemon()
    daemon.start()
    cloud.update(guest, vcpu_pinning=str(cpus[-1]))
    applied(daemon, guest)
    daemon.stop()
    for path in daemon.state_path.glob("allocations*"):
        path.unlink()
    daemon.forget_store()
    with daemon:
        (row,) = manage(daemon, "allocation", "list", "-f", "json")
        assert (row["instance_uuid"], row["status"]) == (guest.uuid, "unclaimed")
        assert row["requested"] == {}
        assert "(nothing)" in manage(daemon, "allocation", "list", "-f", "table")
        guest.wait_on(cpus[-1])
        entry = manage(daemon, "allocation", "unset", guest.uuid, "-f", "json")
        assert entry["status"] == "released"
        wait_until(lambda: guest.affinity() == everywhere(guest), 30, "the baseline")
        assert manage(daemon, "allocation", "list", "-f", "json") == []
