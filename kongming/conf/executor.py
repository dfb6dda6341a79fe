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

"""``[executor]``: how work on the guests is done."""

from oslo_config import cfg

GROUP = "executor"

OPTS = [
    cfg.IntOpt(
        "workers",
        default=4,
        min=1,
        max=64,
        help="Number of instances that are worked on at once. The work for one instance is "
        "always serial. Raise it if stuck guests (each may hold libvirt for half a minute) "
        "delay the others.",
    ),
    cfg.IntOpt(
        "retry_interval_max",
        default=60,
        min=1,
        max=3_600,
        mutable=True,
        help="Longest time in seconds between two attempts at an allocation that libvirt "
        "failed to carry out. The first attempts come after 1, 2, 4, … seconds.",
    ),
    cfg.IntOpt(
        "check_interval",
        default=60,
        min=0,
        max=86_400,
        mutable=True,
        help="Seconds between two checks of all guests that anything is asked for: they find what "
        "nobody announces, such as a thread that was moved with taskset. A check takes some "
        "milliseconds of CPU time for each such guest. 0 means no such checks.",
    ),
    cfg.IntOpt(
        "pull_interval",
        default=60,
        min=1,
        max=3_600,
        mutable=True,
        help="Seconds between two times that kongming-executor asks a conductor what is wanted "
        "for all guests of this host, and tells it what it sees. What changes is told and heard "
        "at once: this is for what got lost. Each is one message and one answer. A host that was "
        "not heard of for three times as long counts as silent.",
    ),
    cfg.IntOpt(
        "history_days",
        default=90,
        min=0,
        max=36_500,
        mutable=True,
        help="For how many days it is kept what was asked for each instance, by whom, and what "
        "came of it (kongming-manage allocation history).",
    ),
]
