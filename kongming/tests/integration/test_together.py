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
"""Guests that change places: judged together, carried out in one go, where sharing is refused."""

from kongming.tests.integration.conftest import applied, status
from kongming.tests.testbed.process import wait_until

REFUSE = "[guard]\noverlap = refuse\n[executor]\ncheck_interval = 0\n"


def test_two_guests_swap_their_cpus(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    one, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    with cloud.daemon(options=REFUSE) as daemon:
        cloud.update(one, vcpu_pinning=str(first))
        cloud.update(other, vcpu_pinning=str(last))
        applied(daemon, one)
        applied(daemon, other)
        # The first is refused as long as the other stays where it is.
        cloud.update(one, vcpu_pinning=str(last))
        assert status(daemon, one, "refused").reason == "overlap"
        cloud.update(other, vcpu_pinning=str(first))
        one.wait_on(last)
        other.wait_on(first)
        applied(daemon, one)
        applied(daemon, other)


def test_a_guest_that_does_not_give_way_still_refuses(cloud, cpus):
    first, last = cpus[0], cpus[-1]
    one, other = cloud.guest(vcpus=1), cloud.guest(vcpus=1)
    with cloud.daemon(options=REFUSE) as daemon:
        cloud.update(one, vcpu_pinning=str(first))
        cloud.update(other, vcpu_pinning=str(last))
        applied(daemon, one)
        applied(daemon, other)
        # It can't leave: it requests a CPU that does not exist.
        cloud.update(other, vcpu_pinning="4000")
        assert status(daemon, other, "refused").reason == "cpu_unknown"
        cloud.update(one, vcpu_pinning=str(last))
        record = status(daemon, one, "refused")
        assert record.reason == "overlap"
        assert other.uuid in record.message
        one.wait_on(first)
        other.wait_on(last)
        cloud.update(other)
        wait_until(lambda: daemon.record(other.uuid) is None, 30, "it is pinned no more")
        daemon.reload()
        one.wait_on(last)
