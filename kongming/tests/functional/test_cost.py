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

"""What the worst requests cost, the whole way: steps and bytes, not time.

Nothing may depend on the numbers that a request names, only on its length and on what the guest
and its host have. The test driver has 8 CPUs, of which 0, 2 and 4 are online.
"""

import contextlib
import itertools
import json

import libvirt
import pytest

from kongming import exception
from kongming.allocation import metadata
from kongming.executor.store.store import Store
from kongming.hypervisor.connection import run_event_loop
from kongming.terminal.columns import Requested
from kongming.tests.api import Api
from kongming.tests.cost import cost, soon
from kongming.tests.databases import instance
from kongming.tests.functional.cloud import URI, Cloud
from kongming.tests.thorough import THOROUGH
from kongming.tests.unit.strategies import WORST

VCPUS = 4
BODY = 2 * 1024


def filled(entry, length, separator=";"):
    """As many entries as there is room for."""
    entries, left = [], length
    for number in itertools.count():
        entries.append(str(entry(number)))
        left -= len(entries[-1]) + len(separator)
        if left + len(separator) < 0:
            break
    return separator.join(entries[:-1])


LONGEST = WORST | {
    "a cpuset that is long": filled(lambda number: 2 * number, 255, ","),
    "blanks, and no cpuset": "0" + " " * 253 + "x",
    "commas": "," * 255,
    "entries of nothing": ";" * 255,
    "digits": "0" * 255,
    "the same CPU": filled(lambda _number: 2, 255, ","),
    "what the guest can have": "0-1=0,2;2:4;3:0,2,4",
}


@pytest.fixture
def cloud(tmp_path):
    run_event_loop()
    cloud = Cloud(tmp_path, libvirt.open(URI)).start()
    yield cloud
    cloud.stop()
    for domain in cloud.domains:
        domain.destroy()


def event(cloud, guest, keys):
    return {
        "event_type": "instance.update",
        "publisher_id": "nova-api:x",
        "payload": cloud._nova.payload(guest.UUIDString(), cloud.conf.host, keys),
    }


@pytest.mark.parametrize("text", LONGEST.values(), ids=LONGEST)
def test_the_cost_of_a_metadata_value_is_bounded(cloud, tmp_path, text):
    guest = cloud.guest(vcpus=VCPUS)
    keys = {metadata.VCPU_PINNING: text, "kongming-iothread-pinning": text}
    message = event(cloud, guest, keys)
    handled = {"lines": 8_000 + 400 * len(text), "peak": 128_000 + 600 * len(text)}

    def plan(allocation):
        with contextlib.suppress(exception.Refused):
            cloud.service._executor.plan(guest.UUIDString(), allocation)

    executor = cloud.service._executor
    # What the first of all events loads is no part of the cost of this one.
    cloud.publish(cloud.guest(), "instance.update", kongming_vcpu_pinning="0")
    cloud.settled()
    with soon():
        assert cost(lambda: cloud.service._handler.handle(message)).within(**handled)
        cloud.sent += 1
        cloud.settled()
        record = cloud.record(guest)
        assert record.status in ("refused", "applied")
        assert len(record.message) < 400
        assert cost(lambda: cloud.service._handler.handle(message)).within(**handled)
        assert cost(executor.records).within(**handled)
        if record.requested is not None:
            assert cost(lambda: plan(record.requested)).within(
                lines=20_000 + 400 * len(text), peak=256_000
            )
        cloud.stop()
        store = Store(tmp_path / "state")
        assert cost(store.records).within(**handled)
        assert cost(lambda: store.history(guest.UUIDString())).within(**handled)
        assert cost(lambda: Requested(record.requested).human_readable()).within(**handled)
        assert len(Requested(record.requested).human_readable()) <= 4 * len(text) + 100
        store.close()


def test_the_cost_of_a_restart_with_stored_requests_is_bounded(cloud):
    """All of it is read at once, by each look at all instances."""
    for text in WORST.values():
        guest = cloud.guest(vcpus=VCPUS)
        cloud.publish(guest, "instance.update", kongming_vcpu_pinning=text)
    cloud.settled()
    cloud.stop()
    cloud.start()
    total = sum(map(len, WORST.values()))
    assert len(cloud.service._executor.instances) == len(WORST)
    assert cost(cloud.service._executor.records).within(8_000 + 300 * total, 128_000 + 600 * total)


def pins(entry):
    """What fills a body with the pins of single vCPUs."""
    return lambda room: {str(number): entry(number) for number in range(room // 32)}


def run_of_lists(room):
    numbers = filled(lambda number: 2 * number, room // 2, ",")
    return f"{numbers}={numbers}"


def stepping(number):
    numbers = f"{number}-{number + 3072}/1024"
    return f"{numbers}={numbers}"


BODIES = {
    "one CPU for each": pins(lambda number: str(8191 - number)),
    "all CPUs for each": pins(lambda _number: "0-8191"),
    "two CPUs for each": pins(lambda number: f"{number},{8191 - number}"),
    "all but one for each": pins(lambda number: f"0-8191,^{number}"),
    "one set of vCPUs": lambda _room: {"0-4095": "0-8191"},
    "a run": lambda _room: "0-4095=0-4095",
    "runs": lambda room: filled(lambda number: f"{number}={8191 - number}", room),
    "a run of lists": run_of_lists,
    "runs with steps": lambda room: filled(stepping, room),
    "exclusions": lambda room: "0-8191," + filled(lambda number: f"^{9 * number}", room // 2, ","),
    "blanks": lambda room: "0" + " " * room,
}


@pytest.mark.parametrize("made", BODIES.values(), ids=BODIES)
def test_the_cost_of_an_api_body_is_bounded(tmp_path, made):
    api = Api(tmp_path, f"max_body_size = {BODY}\nmax_limit = 10\n")
    allocation = {"vcpu_pinning": made(BODY - 500), "emulator_pinning": "0-8191"}
    small = {"vcpu_pinning": "1"}
    length = len(json.dumps(allocation))
    assert length < BODY
    one, path = f"/v1/allocations/{instance(1)}", "/v1/allocation-maps/worst"
    # What is made at the first request, whatever it is.
    api.put(f"/v1/allocations/{instance(99)}", {"allocation": small})
    api.put("/v1/allocation-maps/first", {"allocations": {instance(98): small}})
    calls = {
        "put": lambda: api.put(one, {"allocation": allocation}),
        "put again": lambda: api.put(one, {"allocation": allocation}),
        "put as a map": lambda: api.put(
            path, {"allocations": {instance(2): allocation, instance(3): small}}
        ),
        "get": lambda: api.get(one),
        "get the map": lambda: api.get(path),
        "list": lambda: api.get("/v1/allocations"),
        "history": lambda: api.get(f"{one}/history"),
        "dry run": lambda: api.put(f"{one}?dry_run=true", {"allocation": allocation}),
    }
    with soon(60):
        for name, call in calls.items():
            found = cost(call)
            assert found.within(lines=3_000 + 60 * length, peak=384_000 + 130 * length), name
    assert api.get(one)["allocation"] == api.get(path)["allocations"][0]["allocation"]
    again = api.put(one, {"allocation": api.get(one)["allocation"]}, 200)
    assert again["generation"] == 1


@pytest.mark.parametrize(
    "start",
    ["{0} 0 * * *", "{0} {0} 29 2 {0}", "{0}-59/7,{0} */2 1-31 * *"],
    ids=["always", "seldom", "often"],
)
def test_windows(tmp_path, start):
    api = Api(tmp_path, "max_limit = 1000\n")
    windows = [
        {"name": f"w{number}", "start": start.format(number % 7), "duration_s": 86_400}
        | {"timezone": "Europe/Berlin", "vcpu_pinning": "0"}
        for number in range(32)
    ]
    allocations = {
        instance(number): {"windows": windows} for number in range(20 if THOROUGH else 5)
    }
    length = len(json.dumps(allocations))
    path = "/v1/allocation-maps/worst"
    api.put("/v1/allocation-maps/first", {"allocations": {instance(98): {"cpu_shares": 9}}})
    for call in (
        lambda: api.put(path, {"allocations": allocations}),
        lambda: api.get(path),
        lambda: api.get("/v1/allocations"),
        lambda: api.get(f"/v1/allocations/{instance(1)}"),
    ):
        with soon():
            assert cost(call).within(lines=30_000 + 20 * length, peak=384_000 + 130 * length)


@pytest.mark.parametrize(
    "value",
    [
        " " * 60_000 + "x",
        "0" + " " * 60_000 + "x",
        "0-" + " " * 60_000,
        "," * 30_000,
        "0=" * 20_000,
    ],
)
def test_an_invalid_body_is_refused_at_once(tmp_path, value):
    api = Api(tmp_path)
    for allocation in (
        {"vcpu_pinning": value},
        {"vcpu_pinning": {"0": value}},
        {"numa_nodes": value},
    ):
        with soon():
            answer = api.request(
                "PUT", f"/v1/allocations/{instance(1)}", {"allocation": allocation}
            )
        assert answer.status == 400
        assert len(answer.error["detail"]) < 400
