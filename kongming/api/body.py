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

"""The body of a request: JSON of bounded length and depth, without duplicate fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import json
import re
from typing import Any, TypeVar, cast

import falcon

from kongming import exception
from kongming.allocation.cpuset import shown
from kongming.allocation.json_schema import PROBLEMS_MAX
from kongming.api import errors
from kongming.api.operation import GENERATION_MAX

T = TypeVar("T")

# An allocation map's body needs seven.
MAX_DEPTH = 16

# The most that is read and discarded of a body that is too long, in multiples of the longest
# body; and the bytes read at once.
_DISCARDED, _PART = 4, 64 * 1024


@dataclass(frozen=True, slots=True)
class BodyReader:
    """A reader of bodies.

    :ivar max_size: the longest body, in bytes.
    """

    max_size: int

    def read(
        self, req: falcon.Request, field: str, parse: Callable[[Any], T]
    ) -> tuple[T, int | None]:
        """Read a body with a field, and perhaps the generation that the client knows.

        :param parse: reads the value of the field; raises BodyInvalid.
        :returns: what it returns, and the generation or None.
        :raises RequestInvalid: for any other body; BodyInvalid has all problems.
        :raises LengthRequired: if it is chunked and the server does not support that.
        :raises BodyTooLarge: if it is too long.
        :raises ContentTypeUnsupported: if its type is not JSON, or its encoding not UTF-8.
        :raises BodyEncoded: if it is compressed.
        """
        body = self._load(req)
        if not isinstance(body, dict):
            raise exception.RequestInvalid(f"the body is not a JSON object with the field {field}")
        problems = [
            f"the body has the unknown field {shown(name)}; known fields: {field}, generation"
            for name in sorted(body.keys() - {field, "generation"})
        ]
        generation = value = None
        try:
            generation = _generation(body.get("generation"))
        except exception.RequestInvalid as error:
            problems.append(str(error))
        if field in body:
            try:
                value = parse(body[field])
            except errors.BodyInvalid as error:
                problems += error.details
        else:
            problems.append(f"the body lacks the field {field}")
        if problems:
            raise errors.BodyInvalid(*problems[:PROBLEMS_MAX])
        return cast(T, value), generation

    def _load(self, req: falcon.Request) -> Any:
        _check_form(req)
        try:
            # Some editors begin a file with a byte order mark, which is harmless.
            value = json.loads(
                self._bytes(req).decode("utf-8-sig"),
                object_pairs_hook=_object,
                parse_constant=_no_number,
                parse_float=_number,
            )
        except RecursionError:
            raise exception.RequestInvalid("the body is nested too deeply") from None
        except UnicodeDecodeError as error:
            raise exception.RequestInvalid(
                f"the body is not JSON: byte {error.start + 1} is not valid UTF-8"
            ) from None
        # JSONDecodeError, and Python's error for numbers of thousands of digits.
        except ValueError as error:
            raise exception.RequestInvalid(f"the body is not JSON: {str(error)[:200]}") from None
        _check_depth(value)
        return value

    def _bytes(self, req: falcon.Request) -> bytes:
        chunked = req.content_length is None and "HTTP_TRANSFER_ENCODING" in req.env
        # Without a length, the stream can only be read if the server ends it.
        if chunked and not req.env.get("wsgi.input_terminated"):
            raise errors.LengthRequired(
                "this WSGI server does not support chunked bodies: send the header Content-Length"
            )
        stream = req.stream if chunked else req.bounded_stream
        if (req.content_length or 0) <= self.max_size:
            body: bytes = stream.read(self.max_size + 1)
            if len(body) <= self.max_size:
                return body
        self._discard(stream)
        raise self._too_large()

    def _discard(self, stream: Any) -> None:
        """Read the rest within limits: a client that is still sending gets no answer."""
        left = _DISCARDED * self.max_size
        while left > 0 and (part := stream.read(min(left, _PART))):
            left -= len(part)

    def _too_large(self) -> errors.BodyTooLarge:
        return errors.BodyTooLarge(
            f"the body is longer than {self.max_size} bytes, [api] max_body_size: "
            "send fewer instances at once"
        )


def _check_form(req: falcon.Request) -> None:
    kind, _, parameters = (req.content_type or "").partition(";")
    charset = re.search(r"charset=([^;]*)", parameters, re.IGNORECASE)
    if kind.strip().lower() != errors.CONTENT_TYPE:
        raise errors.ContentTypeUnsupported(
            f"the body must be JSON: send the header Content-Type: {errors.CONTENT_TYPE}"
        )
    if charset and charset[1].strip(' "').lower() not in ("utf-8", "utf8"):
        raise errors.ContentTypeUnsupported(
            f"JSON must be in UTF-8, not {shown(charset[1])}: send the header Content-Type: "
            f"{errors.CONTENT_TYPE}, and the body in UTF-8"
        )
    encoding = (req.get_header("Content-Encoding") or "").strip()
    if encoding.lower() not in ("", "identity"):
        raise errors.BodyEncoded(
            f"the body is encoded as {shown(encoding)}: send it unencoded, without the header "
            "Content-Encoding"
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise exception.RequestInvalid(f"the body has the field {shown(name)} twice")
        found[name] = value
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _number(text: str) -> int | float:
    """Read 1000.0 and 1e3 as integers, as JSON Schema does."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise exception.RequestInvalid(f"the body is nested deeper than {MAX_DEPTH} levels")


def _generation(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= GENERATION_MAX:
        raise exception.RequestInvalid(
            f"generation is not a whole number from 0 to {GENERATION_MAX}"
        )
    return value
