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

"""kongming-conductor: delivers desired allocations to hosts, and polls Nova."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kongming.cmd.start import start

if TYPE_CHECKING:
    from kongming.configuration.configuration import Configuration
    from kongming.runtime.service import Service


def main() -> int:
    """Run the service; returns only if it could not start, or was stopped before."""
    return start("kongming-conductor", _build)


def _build(conf: Configuration) -> Service:
    from kongming.conductor.service import ConductorService

    return ConductorService(conf)


if __name__ == "__main__":
    sys.exit(main())
