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
"""Check for the tz databases that time windows need."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Result

from kongming.allocation import timezones
from kongming.status.finding import doubtful, good


def check(_conf: cfg.ConfigOpts) -> Iterator[Result]:
    """List the tz databases with their versions, in the order of the search for zones."""
    found = [f"{folder} (version {version})" for folder, version in timezones.sources().items()]
    if not found:
        yield doubtful(
            "no tz database found: requests with time windows are refused; install tzdata, the "
            "system's package or Python's"
        )
        return
    yield good(f"zones come from {', and missing ones from '.join(found)}")
