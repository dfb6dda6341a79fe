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

"""Log records that escape foreign text, whatever logs it.

The record factory of the process makes them, so no caller, library, handler or format can bypass
the escaping: of messages, of texts of exceptions in a traceback, and of the user in a request
context. Colours and line breaks of a format, and the lines of a traceback, stay. oslo.log's
summary of the exception that is being handled is left out: the message names it if it matters.
"""

from __future__ import annotations

import logging
from typing import Any

from kongming.runtime.escaping import escape

# Attributes without foreign text, or that are escaped after formatting.
_AS_IT_IS = frozenset({"msg", "color", "reset_color"})
# Texts of exceptions are escaped before they become lines of a traceback.
_OF_LINES = frozenset({"exc_text", "stack_info"})


class EscapedRecord(logging.LogRecord):
    """A log record with escaped attributes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        # Faster than setting each attribute.
        self.__dict__.update(logging.LogRecord(*arguments, **named).__dict__)
        if self.exc_info:
            self.exc_info = self.exc_info

    def __setattr__(self, name: str, value: object) -> None:
        if name == "error_summary" and not self.exc_info:
            # oslo.log appends the exception that is being handled.
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
    """Return an exception that looks the same in a traceback, with its text escaped.

    :param seen: the ids of exceptions of its chain that were escaped already.
    """
    if error is None or id(error) in seen:
        return error
    seen.add(id(error))
    cause, context = _plain(error.__cause__, seen), _plain(error.__context__, seen)
    text = _text(error)
    if text.isprintable() and cause is error.__cause__ and context is error.__context__:
        return error
    kind = type(error)
    looks = {name: getattr(kind, name) for name in ("__module__", "__qualname__")}
    stand_in: BaseException = type(
        kind.__name__, (Exception,), {**looks, "__str__": lambda _self: escape(text)}
    )()
    stand_in.__traceback__ = error.__traceback__
    stand_in.__cause__, stand_in.__context__ = cause, context
    stand_in.__suppress_context__ = error.__suppress_context__
    return stand_in


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001, a foreign __str__ may raise anything
        return f"(unprintable: {type(problem).__name__})"


def install() -> None:
    """Use escaped records in this process from now on."""
    logging.setLogRecordFactory(EscapedRecord)
