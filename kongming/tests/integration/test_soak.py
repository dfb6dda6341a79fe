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

"""Very many events: none is lost, and memory does not grow.

Their number is in KONGMING_SOAK_EVENTS; ``tools/test soak`` takes 100,000.
"""

import os
from pathlib import Path
import re
import statistics
import time
import uuid

from kongming.tests.integration.conftest import KEY
from kongming.tests.integration.test_random_events import HOST, OTHER, Publisher
from kongming.tests.testbed.process import wait_until

EVENTS = int(os.environ.get("KONGMING_SOAK_EVENTS", "20000"))
SAMPLES = 20
#: One in so many is of this host: half of them ask for a guest that is there,
#: half are each of an instance of their own.
OURS_EVERY = 100
GROWTH_MAX_MB = 2.0


def test_nothing_is_lost_and_memory_stays_flat(cloud, cpus):
    guest = cloud.guest(vcpus=1)
    publisher = Publisher(cloud)
    markers, samples, ours, last = [], [], 0, None
    with cloud.daemon(HOST) as daemon:
        queue = f"{cloud.exchange}.{HOST}"
        for number in range(1, EVENTS + 1):
            instance, host, metadata = str(uuid.uuid4()), OTHER, {KEY: "0"}
            if number % OURS_EVERY == 0:
                ours += 1
                host = HOST
                if ours % 2:
                    markers.append(instance)
                else:
                    last = cpus[ours // 2 % len(cpus)]
                    instance, metadata = guest.uuid, {KEY: str(last)}
            publisher.publish(("instance.update", host, host), instance, metadata, time.time())
            if number % 500 == 0:
                wait_until(lambda: publisher.waiting(queue) < 1000, 60, "it keeps up")
            if number % (EVENTS // SAMPLES) == 0:
                wait_until(lambda: publisher.waiting(queue) == 0, 60, "all was taken")
                samples.append(pss_mb(daemon.process.pid))
        publisher.close()
        for marker in markers:
            wait_until(lambda: daemon.record(marker), 30, "its event was kept")  # noqa: B023
        guest.wait_on(last)
        wait_until(lambda: cloud.broker.queues()[queue].unacked == 0, 30, "acknowledged")
        assert daemon.stop() == 0
        assert cloud.broker.queues()[queue].ready == 0
        counts = re.search(r"Ended after (\d+) events of this host, (\d+) of others", daemon.log())
        assert counts, daemon.log()[-2000:]
        assert tuple(map(int, counts.groups())) == (ours, EVENTS - ours)
        assert " ERROR " not in daemon.log()
    # Of the last half, its first and its last five samples.
    growth = statistics.median(samples[-5:]) - statistics.median(samples[-10:-5])
    assert growth <= GROWTH_MAX_MB, f"{samples} MB"


def pss_mb(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"the kernel does not tell the memory of process {pid}")
