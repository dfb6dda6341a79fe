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

"""Guests that Nova defines again: placed within the new grant, or refused as Nova left them."""

import pytest

from kongming.allocation.statuses import Status
from kongming.allocation.target import EMULATOR, MEMORY, vcpu
from kongming.hypervisor import definition
from kongming.tests import domains
from kongming.tests.guests import request
from kongming.tests.unit.reconciling import Host

ELSEWHERE = "6a5d0d7e-5f1c-4d3c-9c7d-0a1b2c3d4e5f"

# A request for each guest, and the pins of its vCPUs and its emulator then.
PLACED = {
    "large-pages": (request(vcpu_pinning="0:1;1:2-3", emulator_pinning="9"), ["1", "2-3"], "9"),
    "two-cells": (request(vcpu_pinning="0-1:2;2-3:10"), ["2", "2", "10", "10"], "0-3,8-11"),
    "dedicated": (request(vcpu_pinning="0:4;1:5;2:6"), ["4", "5", "6"], "4-6"),
    "mixed": (request(vcpu_pinning="0:5;1:6;2-3:0-1"), ["5", "6", "0-1", "0-1"], "0-3,5-6"),
    "mixed-two-cells": (
        request(vcpu_pinning="1:2;3:9-10"),
        ["6", "2", "12", "9-10"],
        "0-3,6,8-12",
    ),
    "realtime": (
        request(vcpu_pinning="0:5;1:6", emulator_pinning="5", iothread_pinning="3"),
        ["5", "6", "4"],
        "5",
    ),
    "emulator-isolate": (request(emulator_pinning="0-4"), ["6", "5"], "0-4"),
    "plain": (request(vcpu_pinning="0:1;1:3"), ["1", "3"], "0-3,8-11"),
}


class Compute(Host):
    """A host of Nova's, with one of its guests."""

    def begin(self):
        super().begin()
        self.rules = domains.RULES

    def run(self, name, note=""):
        """Have Nova define and start the guest; another domain has ended."""
        former = self.guest.domain_id
        self.start(domains.HOST, xml=domains.xml(name, note))
        self.guest.domain_id = former + 1
        self.granted = self.configured()

    def configured(self):
        configured = self.guest.definition().configured
        return {what: cpus for what, cpus in configured.items() if what != MEMORY}

    def assert_placed(self, pins, emulator):
        assert self.record.status == Status.APPLIED
        configured = self.configured()
        assert [str(configured[vcpu(number)]) for number in range(len(pins))] == pins
        assert str(configured[EMULATOR]) == emulator

    def assert_as_nova_left_it(self):
        assert self.configured() == self.granted
        assert not self.guest.definition().baseline
        assert not self.guest.definition().has_foreign_baseline


@pytest.fixture
def host(tmp_path):
    host = Compute(tmp_path)
    yield host
    host.store.close()


@pytest.mark.parametrize("name", PLACED)
def test_a_guest_is_placed_again_after_a_hard_reboot_or_a_rebuild(host, name):
    requested, *placed = PLACED[name]
    host.run(name)
    host.reconcile(requested)
    host.assert_placed(*placed)
    host.run(name)
    host.reconcile()
    host.assert_placed(*placed)
    host.reconcile(request())
    host.assert_as_nova_left_it()


@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize(
    ("name", "other", "reason", "placed"),
    [
        ("large-pages", "two-cells", "", (["1", "2-3"], "9")),
        ("large-pages", "plain", "", (["1", "2-3"], "9")),
        ("large-pages", "mixed", "outside_grant", None),
        ("large-pages", "dedicated", "outside_grant", None),
        ("two-cells", "dedicated-two-cells", "outside_grant", None),
        ("two-cells", "mixed-two-cells", "outside_grant", None),
        ("dedicated", "dedicated-resized", "outside_grant", None),
        # vCPU 0 would give its CPU, which is the emulator's, to a real-time vCPU.
        ("dedicated", "realtime", "realtime_cpu", None),
        ("dedicated", "plain", "cpu_dedicated", None),
        ("mixed", "two-cells", "outside_grant", None),
        ("mixed", "mixed-resized", "outside_grant", None),
        ("mixed-two-cells", "mixed-resized", "", (["4", "2", "12", "9-10"], "0-4,8-12")),
        ("mixed-two-cells", "mixed", "outside_grant", None),
        ("realtime", "mixed-realtime", "outside_grant", None),
        ("realtime", "dedicated", "", (["5", "6", "4"], "5")),
        ("emulator-isolate", "emulator-share", "outside_grant", None),
        ("plain", "large-pages", "", (["1", "3"], "0-3")),
        ("plain", "dedicated", "outside_grant", None),
    ],
)
def test_a_resized_guest_is_placed_within_the_new_grant_or_left_to_it(
    host, name, other, reason, placed, restarted
):
    requested, *former = PLACED[name]
    host.run(name)
    host.reconcile(requested)
    host.run(other)
    if restarted:
        host.begin()
    host.reconcile()
    if placed is None:
        assert host.outcome == (Status.REFUSED, reason)
        host.assert_as_nova_left_it()
        assert not host.guest.done
    else:
        host.assert_placed(*placed)
    # The resize is reverted.
    host.run(name)
    host.reconcile()
    host.assert_placed(*former)


@pytest.mark.parametrize(
    ("name", "requested", "pins"),
    [
        ("plain", {"vcpu_pinning": "0:3;1:2"}, ["3", "2"]),
        ("plain", {"vcpu_pinning": "0:4"}, None),
        ("large-pages", {"vcpu_pinning": "0:3;1:2"}, ["3", "2"]),
        ("large-pages", {"vcpu_pinning": "0:1"}, None),
        ("two-cells", {"vcpu_pinning": "0-1:3;2:11"}, ["3", "3", "11", "10-11"]),
        ("two-cells", {"vcpu_pinning": "0-1:2;2:9"}, None),
        ("dedicated", {"vcpu_pinning": "0:5;1:6"}, ["5", "6", "7"]),
        ("dedicated", {"vcpu_pinning": "0:4;1:5;2:6"}, None),
        ("mixed-two-cells", {"vcpu_pinning": "1:2", "emulator_pinning": "6"}, ["6", "2", "15"]),
        ("mixed-two-cells", {"vcpu_pinning": "0:12;1:2"}, None),
        ("realtime", {"vcpu_pinning": "1:7;2:5"}, ["6", "7", "5"]),
        ("realtime", {"vcpu_pinning": "1:4;2:5"}, None),
    ],
)
def test_a_migrated_guest_is_placed_within_the_grant_of_the_destination(
    host, name, requested, pins
):
    """Nova has rewritten all pins of a guest with a NUMA topology."""
    host.run(name)
    note = definition.baseline_xml(host.configured(), "", ELSEWHERE)
    host.run(f"{name}-migrated", note)
    assert host.guest.definition().has_foreign_baseline
    host.reconcile(request(**requested))
    if pins is None:
        assert host.record.status == Status.REFUSED
        host.assert_as_nova_left_it()
        return
    assert host.record.status == Status.APPLIED
    assert [str(host.configured()[vcpu(number)]) for number in range(len(pins))] == pins
    host.reconcile(request())
    host.assert_as_nova_left_it()
