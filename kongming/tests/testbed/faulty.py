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

"""The service with faults: named calls of it, or of a library, fail or end it.

``python -m kongming.tests.testbed.faulty`` is the installed service, which
knows nothing of it. Which faults there are is in the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
import functools
import importlib
import itertools
import json
import os
from pathlib import Path
import signal
import sys
import time
from typing import Any, TypeVar

from kongming.tests.testbed.daemon import Daemon

FAULTS = "KONGMING_TEST_FAULTS"
ARMED = "KONGMING_TEST_FAULTS_ARMED"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Fault:
    """What happens at one call of one function.

    :ivar name: module:function or module:class.method.
    :ivar call: the number of the call, from 1; counted are those made while
        the faults are armed.
    :ivar after: whether it happens after the call has done its work.
    :ivar error: the number and text of the libvirt error that is raised;
        none of it: the process ends by SIGKILL.
    :ivar wait: it goes on once the faults are no longer armed; no error.
    """

    name: str
    call: int = 1
    after: bool = False
    error: tuple[int, str] | None = None
    wait: bool = False

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.name.split(':')[1]} {self.call}"


class FaultyDaemon(Daemon):
    """The service, as it is with faults once they are armed."""

    def start_with(self, *faults: Fault) -> None:
        """Start it with other faults than before, and not yet armed."""
        self.disarm()
        command = [sys.executable, "-m", "kongming.tests.testbed.faulty"]
        self.process.command = [*command, "--config-file", str(self.conf)]
        self.process.env = {
            **(self.process.env or {}),
            FAULTS: json.dumps([asdict(fault) for fault in faults]),
            ARMED: str(self._armed),
        }
        self.start()

    def arm(self) -> None:
        """Have the calls counted from now on."""
        self._armed.touch()

    def disarm(self) -> None:
        """Have nothing happen any more."""
        self._armed.unlink(missing_ok=True)

    @property
    def _armed(self) -> Path:
        return self.conf.with_name("armed")


def install(faults: Sequence[Fault], armed: Path) -> None:
    """Put the faults into the functions of this process."""
    for name, some in itertools.groupby(sorted(faults, key=_name), key=_name):
        module, _, path = name.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, attribute = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, attribute, _wrapped(getattr(owner, attribute), list(some), armed))


def _name(fault: Fault) -> str:
    return fault.name


def _wrapped(
    function: Callable[..., _T], faults: Sequence[Fault], armed: Path
) -> Callable[..., _T]:
    numbers = itertools.count(1)

    @functools.wraps(function)
    def faulty(*arguments: Any, **named: Any) -> _T:
        if not armed.exists():
            return function(*arguments, **named)
        number = next(numbers)
        now = [fault for fault in faults if fault.call == number]
        for fault in now:
            if not fault.after:
                _happen(fault, armed)
        result = function(*arguments, **named)
        for fault in now:
            if fault.after:
                _happen(fault, armed)
        return result

    return faulty


def _happen(fault: Fault, armed: Path) -> None:
    if fault.wait:
        while armed.exists():
            time.sleep(0.01)
    elif fault.error is not None:
        import libvirt

        code, text = fault.error
        error = libvirt.libvirtError(text)
        error.err = (code, 0, text, 2, None, None, None, -1, -1)
        raise error
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Be the service, with the faults that the environment names."""
    # First of all: what it imports must be imported in its own order.
    from kongming.cmd import launch, notification_handler  # noqa: F401

    faults = [Fault(**fault) for fault in json.loads(os.environ[FAULTS])]
    install(faults, Path(os.environ[ARMED]))
    return notification_handler.main()


if __name__ == "__main__":
    sys.exit(main())
