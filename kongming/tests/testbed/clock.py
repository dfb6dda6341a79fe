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

"""A clock that can be set: the time of day that a process sees, by a library of its own.

Monotonic clocks are left as they are. With libfaketime Python's ``time.sleep`` fails.
"""

from __future__ import annotations

from pathlib import Path
import subprocess

from kongming.tests.testbed.process import find_program

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The clock of the processes that are started with ``environment``; it begins right.

    :param root: where the library is made
    """

    def __init__(self, root: Path) -> None:
        library, self._file = root / "clock.so", root / "clock"
        compiler = find_program("gcc", "gcc")
        options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
        subprocess.run([compiler, *options, "-o", library, SOURCE, "-ldl"], check=True)
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "KONGMING_TEST_CLOCK": str(self._file)}

    def set(self, ahead_s: int) -> None:
        """Set it so many seconds ahead of the machine's."""
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode) as file:
            file.write(ahead_s.to_bytes(8, "little", signed=True))
