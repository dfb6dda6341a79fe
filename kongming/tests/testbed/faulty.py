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

"""The service with one fault: it is killed, or a call fails, at a named point.

Run in place of the command; the fault is in ``KONGMING_TEST_FAULT``, as JSON.
The product knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
import functools
import importlib
import itertools
import json
import os
import signal
import sys
from typing import Any, cast

VARIABLE = "KONGMING_TEST_FAULT"
PROGRAM = "kongming.cmd.notification_handler"


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and where.

    :ivar point: a function of the product or of libvirt: ``module:Class.name``.
    :ivar call: at its how manyth call, the first being 1.
    :ivar after: whether the call has had its effect before.
    :ivar error: libvirt's error code that the call ends with; None kills.
    """

    point: str
    call: int = 1
    after: bool = False
    error: int | None = None

    def __str__(self) -> str:
        when = "after" if self.after else "before"
        what = "killed" if self.error is None else f"error {self.error}"
        return f"{what} {when} {self.point.partition(':')[2]} {self.call}"

    @property
    def environment(self) -> dict[str, str]:
        """How the service is told."""
        return {VARIABLE: json.dumps(asdict(self))}


def install(fault: Fault) -> None:
    """Have it happen in this process."""
    module, _, path = fault.point.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, _faulty(getattr(owner, name), fault))


def _faulty(function: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    numbers = itertools.count(1)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if next(numbers) != fault.call:
            return function(*arguments, **named)
        if fault.after:
            function(*arguments, **named)
        if fault.error is None:
            signal.raise_signal(signal.SIGKILL)
        raise _libvirt_error(fault.error or 0)

    return call


def _libvirt_error(code: int) -> Exception:
    # Not before the product has chosen its backend.
    import libvirt

    error: Any = libvirt.libvirtError("")
    error.err = (code, 0, "an injected error", 2, "", "", "", 0, 0)
    return cast(Exception, error)


def main() -> int:
    """Be the service, with the fault."""
    # First of all: it chooses oslo.service's backend.
    importlib.import_module("kongming.cmd")
    if VARIABLE in os.environ:
        install(Fault(**json.loads(os.environ[VARIABLE])))
    status: int = importlib.import_module(PROGRAM).main()
    return status


if __name__ == "__main__":
    sys.exit(main())
