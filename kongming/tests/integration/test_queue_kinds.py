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

"""Calls over quorum queues, with stable names of queues and streams, as operators set them."""

import pytest

from kongming.tests.integration.site import Installation

OPTIONS = """
[oslo_messaging_rabbit]
rabbit_quorum_queue = true
rabbit_transient_quorum_queue = true
rabbit_stream_fanout = true
use_queue_manager = true
"""


@pytest.fixture(scope="module")
def installation(broker, tmp_path_factory):
    with Installation(broker, tmp_path_factory.mktemp("control"), options=OPTIONS) as installation:
        yield installation


def test_names_of_queues_that_stay_need_locks_that_the_service_sets_up_itself(site, cpus):
    executor = site.executor(options=OPTIONS)
    executor.start()
    guest = site.guest()
    site.put(guest.uuid, vcpu_pinning=str(cpus[1]))
    site.plane.wait_status(guest.uuid, "applied")
    guest.wait_on(cpus[1])
    assert (executor.state_path / "locks").is_dir()
    assert "Traceback" not in executor.log()
