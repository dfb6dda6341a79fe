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

"""The soak in full: a million events unless KONGMING_SOAK_EVENTS changes that."""

import os

from kongming.tests.integration.seed import SEED
from kongming.tests.soak.soak import Size, soak

EVENTS = int(os.environ.get("KONGMING_SOAK_EVENTS", "1000000"))
#: A moment in which more waits than ever before may take two of them, once and for good. Ten
#: bytes for each event would be five.
GROWTH_MAX_MB = 3.0
#: Before so many its memory of the order of events is not full.
SEEN_FROM = 500_000


def test_the_final_state_matches_the_newest_events_and_memory_is_flat(
    broker, libvirtd, tmp_path, capsys
):
    size = Size(EVENTS, rounds=min(20, max(2, EVENTS // 5000)), real=50, simulated=5000)
    run = soak(broker, libvirtd, tmp_path, size, SEED)
    with capsys.disabled():
        print(f"\n{'seed':30} {SEED}\n{run.figures()}")
    assert EVENTS < SEEN_FROM or run.memory_growth_mb() <= GROWTH_MAX_MB, f"{run.pss_mb} MB"
