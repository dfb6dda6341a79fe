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

"""A short soak; kongming/tests/soak has the one in full."""

import pytest

from kongming.tests.integration.seed import SEED
from kongming.tests.soak.host import AHEAD, BEHIND, BROKER, DISK, KILLED, LIBVIRTD
from kongming.tests.soak.soak import Size, soak

pytestmark = pytest.mark.needs_mounts


def test_the_final_state_matches_the_newest_events(broker, libvirtd, tmp_path):
    size = Size(events=1500, rounds=1, real=6, simulated=200)
    run = soak(broker, libvirtd, tmp_path, size, SEED)
    for what in (AHEAD, BEHIND, BROKER, DISK, KILLED, LIBVIRTD):
        assert run.happened[what], run.happened
