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

"""``[conductor]``: the side of the bus that has the database."""

from oslo_config import cfg

GROUP = "conductor"

OPTS = [
    cfg.IntOpt(
        "poll_interval",
        default=60,
        min=1,
        max=86_400,
        mutable=True,
        help="Seconds between two looks at what has changed in Nova: servers that were deleted or "
        "moved. One of the conductors asks, for all of them, and only if [nova] says how. Each "
        "look is one request, and one more for each thousand servers that have changed.",
    ),
    cfg.IntOpt(
        "poll_full_interval",
        default=3600,
        min=1,
        max=604_800,
        mutable=True,
        help="Seconds between two looks at all of Nova's servers: one request for each thousand "
        "of them.",
    ),
    cfg.IntOpt(
        "host_timeout",
        default=10,
        min=1,
        max=600,
        mutable=True,
        help="Seconds that a host has to answer when it is asked for a plan (dry run).",
    ),
]
