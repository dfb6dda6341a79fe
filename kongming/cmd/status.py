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

"""kongming-status: checks this machine for problems before users notice them."""

from __future__ import annotations

import sys

from kongming.runtime import streams

NAME = "kongming-status"
_UNEXPECTED = 255


def main() -> int:
    """Check this machine; return 0, 1 after a warning, 2 after a failure, 255 on other errors."""
    return streams.run(NAME, _main, unexpected=_UNEXPECTED)


def _main() -> int:
    # Imported here: the packages of services may be missing.
    from kongming.cmd import checks

    return checks.check(NAME, _UNEXPECTED)


if __name__ == "__main__":
    sys.exit(main())
