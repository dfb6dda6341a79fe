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
"""Trigger 3 with real parts: a RabbitMQ, conductors, the API, executors, QEMU guests.

A request over HTTP is judged by the threads' affinity in /proc.
"""

import uuid

from kongming.tests.integration.site import HOST
from kongming.tests.testbed.process import wait_until


def test_an_allocation_is_observed_on_the_threads_and_released(site, cpus):
    site.executor().start()
    guest = site.guest()
    before = guest.affinity()
    created = site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    assert (created["generation"], created["status"]) == (1, "pending")
    site.plane.wait_status(guest.uuid, "applied")
    guest.wait_on(cpus[1])

    def where():
        shown = site.api.get(f"/v1/allocations/{guest.uuid}")
        return shown["host"], shown["reported_by"], shown["host_state"]

    # The host may have been faster than Nova, which decides where it is.
    wait_until(lambda: where() == (HOST, HOST, "up"), 30, "the host, as in Nova")
    site.put(guest.uuid, vcpu_pinning=str(cpus[0]))
    assert site.plane.wait_status(guest.uuid, "applied")["generation"] == 2
    guest.wait_on(cpus[0])
    site.delete(guest.uuid)
    site.plane.wait_gone(guest.uuid)
    assert guest.affinity() == before
    history = site.api.get(f"/v1/allocations/{guest.uuid}/history")["history"]
    assert [entry["status"] for entry in history] == ["applied", "applied", "released"]


def test_an_impossible_allocation_is_refused_by_the_host(site, cpus):
    site.executor().start()
    guest = site.guest()
    before = guest.affinity()
    site.put(guest.uuid, vcpu_pinning="8000")
    shown = site.plane.wait_status(guest.uuid, "refused")
    assert shown["reason"] == "cpu_unknown"
    assert guest.affinity() == before


def test_a_dry_run_is_carried_out_by_the_host_and_has_no_effect(site, cpus):
    site.executor().start()
    guest = site.guest()
    before = guest.affinity()
    path = f"/v1/allocations/{guest.uuid}?dry_run=true"
    requested = {"allocation": {"vcpu_pinning": str(cpus[1])}}
    body = site.api.request("PUT", path, requested).body
    assert (body["outcome"], body["host"]) == ("planned", HOST)
    assert body["steps"][0]["target"] == "vCPU 0"
    assert body["steps"][0]["to"] == str(cpus[1])
    refused = site.api.request("PUT", path, {"allocation": {"vcpu_pinning": "8000"}}).body
    assert (refused["outcome"], refused["reason"]) == ("refused", "cpu_unknown")
    assert guest.affinity() == before
    assert site.api.request("GET", f"/v1/allocations/{guest.uuid}").status == 404


def test_an_instance_that_does_not_exist_yet_is_placed_as_it_starts(site, cpus):
    site.executor().start()
    guest = site.guest()
    guest.domain.destroy()
    del site.nova.servers[guest.uuid]
    site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    shown = site.plane.wait_status(guest.uuid, "absent")
    assert (shown["host"], shown["reported_by"]) == (None, None)
    guest.start()
    site.plane.wait_status(guest.uuid, "applied")
    guest.wait_on(cpus[1])


def test_a_map_places_many_and_returns_them(site, cpus):
    site.executor().start()
    guests = [site.guest() for _ in range(3)]
    absent = str(uuid.uuid4())
    before = {guest.uuid: guest.affinity() for guest in guests}
    allocations = {guest.uuid: {"vcpu_pinning": str(cpus[1])} for guest in guests}
    allocations[absent] = {"vcpu_pinning": str(cpus[0])}
    path = "/v1/allocation-maps/night"
    answer = site.api.request("PUT", path, {"allocations": allocations})
    assert answer.status == 201, answer
    wait_until(
        lambda: site.api.get(path)["counts"] == {"applied": 3, "absent": 1}, 30, "all applied"
    )
    for guest in guests:
        guest.wait_on(cpus[1])
    assert site.api.request("DELETE", path).status == 202
    wait_until(lambda: site.api.request("GET", path).status == 404, 30, "the map is gone")
    assert {guest.uuid: guest.affinity() for guest in guests} == before


def test_guests_swap_their_cpus_by_a_map_without_a_refusal(site, cpus):
    site.executor(options="[guard]\noverlap = refuse\n").start()
    first, last = cpus[0], cpus[-1]
    one, other = site.guest(vcpus=1), site.guest(vcpus=1)
    path = "/v1/allocation-maps/swap"

    def put(*pins):
        guests = zip((one, other), pins, strict=True)
        allocations = {guest.uuid: {"vcpu_pinning": str(cpu)} for guest, cpu in guests}
        assert site.api.request("PUT", path, {"allocations": allocations}).status in (200, 201)
        for guest, cpu in zip((one, other), pins, strict=True):
            guest.wait_on(cpu)

    for pins in ((first, last), (last, first), (first, last)):
        put(*pins)
    wait_until(lambda: site.api.get(path)["counts"] == {"applied": 2}, 30, "all applied")
    for guest in (one, other):
        history = site.api.get(f"/v1/allocations/{guest.uuid}/history")["history"]
        assert {entry["status"] for entry in history} <= {"applied", "pending"}
    assert site.api.request("DELETE", path).status == 202
    wait_until(lambda: site.api.request("GET", path).status == 404, 30, "the map is gone")


def test_a_dry_run_of_a_map_shows_what_the_host_would_do_with_all_of_it(site, cpus):
    site.executor(options="[guard]\noverlap = refuse\n").start()
    first, last = cpus[0], cpus[-1]
    one, other = site.guest(vcpus=1), site.guest(vcpus=1)
    absent = str(uuid.uuid4())
    path = "/v1/allocation-maps/swap"

    def body(**pins):
        guests = {"one": one.uuid, "other": other.uuid, "absent": absent}
        allocations = {guests[name]: {"vcpu_pinning": str(cpu)} for name, cpu in pins.items()}
        return {"allocations": allocations}

    def plan(**pins):
        answer = site.api.request("PUT", f"{path}?dry_run=true", body(**pins))
        assert answer.status == 200, answer
        return [
            (each["outcome"], each["reason"], [step["to"] for step in each["steps"]])
            for each in answer.body["plans"]
        ]

    assert plan(one=first, other=last, absent=first) == [
        ("planned", "", [str(first)]),
        ("planned", "", [str(last)]),
        ("absent", "guest_absent", []),
    ]
    assert site.api.request("GET", path).status == 404
    assert site.api.request("PUT", path, body(one=first, other=last)).status == 201
    one.wait_on(first)
    other.wait_on(last)
    wait_until(lambda: site.api.get(path)["counts"] == {"applied": 2}, 30, "all applied")
    # Both swap; both on the same CPU; and one goes where the other leaves the map.
    assert plan(one=last, other=first) == [
        ("planned", "", [str(last)]),
        ("planned", "", [str(first)]),
    ]
    assert plan(one=last, other=last) == [("refused", "overlap", []), ("planned", "", [])]
    (moved, released) = plan(one=last)
    assert moved == ("planned", "", [str(last)])
    assert released[0] == "planned"
    assert released[2] != []
    one.wait_on(first)
    other.wait_on(last)
    assert site.api.get(path)["generation"] == 1


def test_a_host_that_was_down_requests_missed_changes(site, cpus):
    executor = site.executor()
    executor.start()
    guest, other = site.guest(), site.guest()
    before = guest.affinity()
    site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    site.plane.wait_status(guest.uuid, "applied")
    executor.kill()
    site.delete(guest.uuid)
    site.put(other.uuid, vcpu_pinning=str(cpus[1]))
    executor.start()
    site.plane.wait_gone(guest.uuid)
    site.plane.wait_status(other.uuid, "applied")
    other.wait_on(cpus[1])
    assert guest.affinity() == before


def test_a_killed_conductor_loses_no_allocation(site, cpus):
    site.executor(options="[executor]\npull_interval = 1\n").start()
    guest = site.guest()
    first, second = site.plane.conductors
    for number, (victim, back) in enumerate([(first, second), (second, first), (None, second)]):
        cpu = cpus[number % 2]
        site.put(guest.uuid, vcpu_pinning=str(cpu))
        if not back.process.running:
            back.start_soon()
        if victim is not None:
            victim.kill()
        site.plane.wait_status(guest.uuid, "applied", timeout=60)
        guest.wait_on(cpu)


def test_a_restarted_broker_loses_no_allocation(site, cpus):
    site.executor(options="[executor]\npull_interval = 1\n").start()
    guest = site.guest()
    site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    site.plane.wait_status(guest.uuid, "applied")
    site.broker.stop()
    try:
        # The API's database takes it; no hint can be sent.
        site.put(guest.uuid, vcpu_pinning=str(cpus[0]))
    finally:
        site.broker.start()
    site.plane.wait_status(guest.uuid, "applied", timeout=60)
    guest.wait_on(cpus[0])


def test_hosts_send_their_snapshot_and_become_unresponsive(site, cpus):
    executor = site.executor(options="[executor]\npull_interval = 1\n")
    executor.start()
    guest = site.guest()
    site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    site.plane.wait_status(guest.uuid, "applied")

    def shown():
        view = site.api.get(f"/v1/hosts/{HOST}")["snapshot"]
        mine = [each for each in view["guests"] if each["instance_uuid"] == guest.uuid]
        return view if mine and mine[0]["pins"] else None

    view = wait_until(shown, 30, "the guest's pins in the view of its host")
    online = {cpu["id"] for cell in view["cells"] for cpu in cell["cpus"] if cpu["online"]}
    assert online == set(cpus)
    executor.kill()

    def state():
        return {host["name"]: host["state"] for host in site.api.get("/v1/hosts")["hosts"]}

    wait_until(lambda: state() == {HOST: "unresponsive"}, 30, "the host is unresponsive")
    allocation = site.api.get(f"/v1/allocations/{guest.uuid}")
    assert (allocation["status"], allocation["host_state"]) == ("applied", "unresponsive")
