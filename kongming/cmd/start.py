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

"""The start of a service: it queues signals before it imports the rest.

Only the standard streams are opened before that: a socket must not take their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kongming.runtime import streams
from kongming.runtime.signals import Signals

if TYPE_CHECKING:
    from kongming.configuration.configuration import Configuration
    from kongming.runtime.service import Service


def start(name: str, build: Callable[[Configuration], Service]) -> int:
    """Run a service; returns only if it could not start, or was stopped before.

    :param build: builds the service, and imports its parts.
    """

    def run() -> int:
        signals = Signals()
        # Imported here, as it takes long.
        from kongming.cmd import launch

        return launch.run(name, build, signals)

    return streams.run(name, run)
