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

"""``[executor]``: how the executor places the guests of this host."""

from oslo_config import cfg

GROUP = "executor"

OPTS = [
    cfg.IntOpt(
        "workers",
        default=4,
        min=1,
        max=64,
        help="Number of instances placed in parallel. Work on one instance is always serial. "
        "Raise it if hung guests, each of which can block a libvirt call for 30 seconds, delay "
        "the others.",
    ),
    cfg.IntOpt(
        "retry_interval_max",
        default=60,
        min=1,
        max=3_600,
        mutable=True,
        help="Maximum number of seconds between two attempts at an allocation that libvirt "
        "failed to apply. Retries start after 1, 2, 4, … seconds.",
    ),
    cfg.IntOpt(
        "check_interval",
        default=60,
        min=0,
        max=86_400,
        mutable=True,
        help="Seconds between two checks of all managed guests for drift that no event reports, "
        "such as a thread moved with taskset. A check takes a few milliseconds of CPU time per "
        "managed guest. 0 disables these checks.",
    ),
    cfg.IntOpt(
        "pull_interval",
        default=60,
        min=1,
        max=3_600,
        mutable=True,
        help="Seconds between two exchanges in which kongming-executor fetches the desired "
        "allocations of this host from a conductor and reports its status. Changes are sent at "
        "once in both directions; this interval recovers lost messages. Each exchange is one "
        "message and one reply. A host that misses three of them is unresponsive.",
    ),
    cfg.IntOpt(
        "history_days",
        default=90,
        min=0,
        max=36_500,
        mutable=True,
        help="Number of days to keep the history of each instance: its requests, their sources "
        "and outcomes (kongming-manage allocation history).",
    ),
]
