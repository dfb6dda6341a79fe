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

"""The standard streams of a program: closed, full, broken, or unable to encode a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import io
import os
import sys
from typing import Any

from kongming.runtime import extras

#: The exit status of a program that SIGPIPE ends, in a shell.
BROKEN_PIPE = 141


class Unwritten(BaseException):
    """The output can't be written. A BaseException, so that no library handles it."""


class Output(io.TextIOWrapper):
    """The standard output; raises :class:`Unwritten` if it can't be written."""

    def write(self, text: str) -> int:
        """Write a text, or a part of the buffer."""
        with _raising_unwritten():
            return super().write(text)

    def flush(self) -> None:
        """Write the whole buffer."""
        with _raising_unwritten():
            super().flush()


class Messages(io.TextIOWrapper):
    """The standard error; text that can't be written is dropped."""

    def write(self, text: str) -> int:
        """Write a text, or a part of the buffer."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write the whole buffer."""
        with contextlib.suppress(OSError):
            super().flush()


def run(name: str, main: Callable[[], int], unexpected: int = 1) -> int:
    """Run the main function of a program, and return the exit status.

    :param name: the program's name, for messages.
    :param unexpected: the exit status if its output can't be written, or a package is missing. A
        broken pipe is no error.
    """
    complete()
    status: int | str | None
    try:
        try:
            status = main()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except BrokenPipeError:
        _discard()
        return BROKEN_PIPE
    except Unwritten as error:
        _discard()
        print(f"{name}: the output can't be written: {error}", file=sys.stderr)  # noqa: T201
        return unexpected
    except ModuleNotFoundError as error:
        print(f"{name}: {extras.missing(error)}", file=sys.stderr)  # noqa: T201
        return unexpected
    return status if isinstance(status, int) else int(status is not None)


def complete() -> None:
    """Open closed standard streams, and escape characters that their encoding lacks.

    Else libraries would write messages into the next file that is opened, such as a database.
    ``sys.stdin`` stays None if the standard input was closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest free descriptor, which is this one.
            os.open(os.devnull, os.O_RDWR)
    kind: type[io.TextIOWrapper]
    for name, kind, descriptor in (("stdout", Output, 1), ("stderr", Messages, 2)):
        former = getattr(sys, name)
        if former is getattr(sys, f"__{name}__"):
            made = _made(kind, former, descriptor)
            setattr(sys, name, made)
            # The width of the terminal is read from this one.
            setattr(sys, f"__{name}__", made)


def _made(kind: type[io.TextIOWrapper], former: Any, descriptor: int) -> io.TextIOWrapper:
    """Return a stream that replaces a former one, which is None if it was closed."""
    former = former or open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    encoding, line_buffering = former.encoding, former.line_buffering
    return kind(former.detach(), encoding, "backslashreplace", line_buffering=line_buffering)


@contextlib.contextmanager
def _raising_unwritten() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(error.strerror) from None


def _discard() -> None:
    """Discard the buffer, which Python would write when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
