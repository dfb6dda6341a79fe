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

"""The installed programs, as the testbed runs them."""

from __future__ import annotations

import os
from pathlib import Path
import sys

from kongming.tests.testbed.preloaded import shared
from kongming.tests.testbed.process import Process

BIN = Path(sys.executable).parent


def installed(name: str) -> list[str]:
    """Return the command of an installed program; of one that is loaded, if there is one."""
    path = str(BIN / name)
    server = shared(path)
    return [path] if server is None else server.command(name)


class Program(Process):
    """An installed program that runs; it is forked where it is loaded already.

    It is started by itself where ``command`` was changed to begin with another program.
    """

    def start(self) -> None:
        server = shared(self.command[0])
        if server is None:
            super().start()
            return
        if self.running:
            raise RuntimeError(f"{self.name} runs already: stop it first")
        path, *arguments = self.command
        environment = os.environ if self.env is None else self.env
        with self.log.open("ab") as log:
            self._child = server.spawn(Path(path).name, arguments, environment, log)
