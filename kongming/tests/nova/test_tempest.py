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

"""Nova's own acceptance tests (tempest) end alike, whether its guests are placed or not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import re
import threading

import pytest

from kongming.conf.notification_handler import VERSIONED
from kongming.tests.nova.aspects import NOTHING, SECOND
from kongming.tests.nova.conftest import STANDALONE, Cloud
from kongming.tests.testbed.openstack import tempest
from kongming.tests.testbed.process import wait_until

# Requested by hand with the first of them, by a PUT with the other.
TRIGGERS = (VERSIONED, STANDALONE)
# Seconds between two looks at Nova's events.
LOOK = 0.05
COMPUTE = r"^tempest\.api\.compute\."
# All of them, in parts that can be run again alone.
WHOLE = {
    "admin": r"admin\.test_servers",
    "create to list": r"servers\.test_[a-l]",
    "actions": r"servers\.test_server_actions",
    "metadata to volumes": r"servers\.test_(?!server_actions)[m-z]",
}
# What a guest goes through, and some of what it does not notice.
SHORT = (
    r"servers\.("
    r"test_server_metadata\."
    r"|test_multiple_create\."
    r"|test_server_rescue\.ServerRescueTestJSON\."
    r"|test_server_actions\.ServerActionsTest(JSON|OtherA|OtherB)\.test_"
    r"(reboot|rebuild|resize|shelve|pause|suspend|stop|lock))"
)
PLACED = re.compile(r"Instance ([0-9a-f-]{36}): .*\(applied, observed on the threads\)")
ACTIVE, DELETED = "instance.create.end", "instance.delete.end"


@pytest.fixture(scope="session")
def bare():
    """The results without Kongming, by selection: they count for both triggers."""
    return {}


@contextmanager
def every_guest_placed(cloud: Cloud) -> Iterator[None]:
    """Request a placement of each server at Nova's first event about it."""
    over = threading.Event()
    moment = cloud.events.now()

    def place(uuid: str) -> None:
        cloud.request_by_hand(uuid, SECOND)
        # The request for a server that was deleted meanwhile would be kept until it is withdrawn.
        if any(
            event.instance_uuid == uuid and event.name == DELETED
            for event in cloud.events.since(moment)
        ):
            cloud.request_by_hand(uuid, NOTHING)

    def place_all() -> None:
        placed: set[str] = set()
        done = moment
        while not over.wait(LOOK):
            news = cloud.events.since(done)
            done += len(news)
            for uuid in {event.instance_uuid for event in news} - placed:
                place(uuid)
                placed.add(uuid)

    with ThreadPoolExecutor(1) as pool:
        placing = pool.submit(place_all)
        try:
            yield
        finally:
            over.set()
        placing.result()


@pytest.mark.slow
@pytest.mark.parametrize("part", WHOLE)
def test_every_test_has_the_same_result_with_and_without_placements(cloud, bare, tmp_path, part):
    compare(cloud, bare, WHOLE[part], tmp_path)


@pytest.mark.parametrize("cloud", [STANDALONE], indirect=True, scope="session")
def test_some_tests_have_the_same_result_with_and_without_placements(cloud, bare, tmp_path):
    compare(cloud, bare, SHORT, tmp_path)


def compare(cloud, bare, selection, folder):
    """Run tests without Kongming and with it."""
    if selection not in bare:
        with cloud.without_kongming():
            bare[selection] = tempest.run(cloud.openstack, folder / "bare", COMPUTE + selection)
    without = bare[selection]
    assert list(without.values()).count(tempest.PASSED) > len(without) / 2
    logged, moment = len(cloud.daemon.log()), cloud.events.now()
    with every_guest_placed(cloud):
        placed = tempest.run(cloud.openstack, folder / "placed", COMPUTE + selection)
    assert different(without, placed) == {}
    active = {event.instance_uuid for event in cloud.events.since(moment) if event.name == ACTIVE}
    wait_until(
        lambda: not any(cloud.daemon.record(uuid) for uuid in active), 60, "nothing is kept"
    )
    log = cloud.daemon.log()[logged:]
    assert len(set(PLACED.findall(log)) & active) > 0.9 * len(active) > 0
    # Nothing that becomes of Nova's guests is anything to warn of.
    assert [line for line in log.splitlines() if " WARNING " in line or " ERROR " in line] == []


def different(first: tempest.Results, second: tempest.Results) -> dict[str, tuple[str, str]]:
    """Return the status in each of the two, of those tests where they are not the same."""
    both = {name: (first.get(name, ""), second.get(name, "")) for name in {*first, *second}}
    return {name: (before, after) for name, (before, after) in both.items() if before != after}
