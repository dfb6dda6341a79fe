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

"""Log records that show the text of others escaped, whoever logs it.

Made where all records are made, so that no caller, library, handler or format
can go past it: not a message, nor what an exception says in a traceback, nor
who asks by the context of a request. Colours and line breaks that a format
sets, and the lines of a traceback, stay. A line that is logged while an exception
is handled says of it only what its caller says.
"""

from __future__ import annotations

import logging
from typing import Any

from kongming.runtime.escaping import escape

# What is no text of others, or is escaped once it is put together.
_AS_IT_IS = frozenset({"msg", "color", "reset_color"})
# The lines of a traceback are ours: what its exceptions say is escaped before.
_OF_LINES = frozenset({"exc_text", "stack_info"})


class EscapedRecord(logging.LogRecord):
    """A log record as all handlers see it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        # To set each attribute here would cost five times as much.
        self.__dict__.update(logging.LogRecord(*arguments, **named).__dict__)
        if self.exc_info:
            self.exc_info = self.exc_info

    def __setattr__(self, name: str, value: object) -> None:
        if name == "error_summary" and not self.exc_info:
            # oslo.log appends whatever exception is being handled: our lines say it already.
            value = ""
        elif isinstance(value, str) and name not in _AS_IT_IS:
            value = escape(value, keep="\n\t" if name in _OF_LINES else "")
        elif name == "exc_info" and isinstance(value, tuple):
            value = (value[0], _plain(value[1], set()), value[2])
        super().__setattr__(name, value)

    def getMessage(self) -> str:  # noqa: N802, it is logging's name
        """Return the message with its arguments, on one line."""
        return escape(super().getMessage())


def _plain(error: BaseException | None, seen: set[int]) -> BaseException | None:
    """Return an exception that looks the same in a traceback, with what it says escaped.

    :param seen: those of its chain that were looked at already.
    """
    if error is None or id(error) in seen:
        return error
    seen.add(id(error))
    cause, context = _plain(error.__cause__, seen), _plain(error.__context__, seen)
    said = _said(error)
    if said.isprintable() and cause is error.__cause__ and context is error.__context__:
        return error
    kind = type(error)
    looks = {name: getattr(kind, name) for name in ("__module__", "__qualname__")}
    stand_in: BaseException = type(
        kind.__name__, (Exception,), {**looks, "__str__": lambda _self: escape(said)}
    )()
    stand_in.__traceback__ = error.__traceback__
    stand_in.__cause__, stand_in.__context__ = cause, context
    stand_in.__suppress_context__ = error.__suppress_context__
    return stand_in


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001, it is somebody else's __str__
        return f"(unprintable: {type(problem).__name__})"


def install() -> None:
    """Have all records of this process made so from now on."""
    logging.setLogRecordFactory(EscapedRecord)
