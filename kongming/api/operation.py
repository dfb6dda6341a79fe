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

"""Operations of the API: each is described once, for its checks and its documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import re
from typing import Any, ClassVar, Protocol

import falcon

from kongming import exception
from kongming.allocation.cpuset import shown
from kongming.allocation.host_name import PATTERN
from kongming.allocation.statuses import LISTED

# In some dialects, such as Python's, $ also matches before a final line break.
END = r"$(?!\n)"
UUID = rf"^[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}{END}"
MAP_NAME = rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,254}}{END}"
HOST_NAME = rf"^{PATTERN}{END}"
PROJECT_ID = rf"^[A-Za-z0-9_-]{{1,64}}{END}"

# The largest integers that all supported databases can store.
GENERATION_MAX = 2**31 - 1
ID_MAX = 2**63 - 1

#: The longest wait of one request, in seconds: proxies end those that last a minute.
WAIT_MAX_S = 30

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value in the path or in the query.

    :ivar schema: the JSON Schema of the value.
    :ivar read: converts the text to the value, or raises ValueError.
    :ivar expected: a description of valid values, for errors.
    """

    name: str
    description: str
    schema: Schema
    read: Callable[[str], Any]
    expected: str

    def value(self, text: str) -> Any:
        """Return the value of a text.

        :raises RequestInvalid: naming the parameter.
        """
        try:
            return self.read(text)
        except ValueError:
            raise exception.RequestInvalid(
                f"{self.name} {shown(text)} is not {self.expected}"
            ) from None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a path.

    :ivar answers: status → name of the schema of the response; None without a body.
    :ivar body: name of the schema of the request's body.
    :ivar errors: the statuses of its errors, in addition to those of all operations.
    :ivar public: whether it needs no authentication.
    :ivar conditional: whether If-Match and If-None-Match are supported.
    """

    summary: str
    answers: Mapping[int, str | None]
    query: tuple[Parameter, ...] = ()
    body: str | None = None
    errors: tuple[int, ...] = ()
    public: bool = False
    conditional: bool = False

    def read_query(self, req: falcon.Request) -> dict[str, Any]:
        """Return the values of the query by name, without absent parameters.

        :raises RequestInvalid: naming the parameter.
        """
        known = {parameter.name: parameter for parameter in self.query}
        values = {}
        for name, text in req.params.items():
            if name not in known:
                raise exception.RequestInvalid(
                    f"unknown parameter {shown(name)}; known: {', '.join(sorted(known)) or 'none'}"
                )
            if not isinstance(text, str):
                raise exception.RequestInvalid(f"{name} is given more than once")
            values[name] = known[name].value(text)
        return values


class Resource:
    """The resource of one path; HEAD is handled as GET.

    :cvar path: the path in the form of falcon's router.
    :cvar operations: the operations by method.
    """

    path: ClassVar[str]
    operations: ClassVar[Mapping[str, Operation]]

    def __init_subclass__(cls) -> None:
        """Handle HEAD as GET."""
        if on_get := getattr(cls, "on_get", None):
            cls.on_head = on_get  # type: ignore[attr-defined]


class Described(Protocol):
    """A resource as far as the document needs it."""

    @property
    def path(self) -> str: ...

    @property
    def operations(self) -> Mapping[str, Operation]: ...


def _matching(pattern: str) -> Callable[[str], str]:
    expression = re.compile(pattern, re.ASCII)

    def read(text: str) -> str:
        if not expression.fullmatch(text):
            raise ValueError(text)
        return text

    return read


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
            raise ValueError(text)
        if not minimum <= (value := int(text)) <= maximum:
            raise ValueError(text)
        return value

    return read


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _text(name: str, description: str, pattern: str, expected: str) -> Parameter:
    schema = {"type": "string", "pattern": pattern}
    return Parameter(name, description, schema, _matching(pattern), expected)


def _number(name: str, description: str, minimum: int, maximum: int) -> Parameter:
    schema = {"type": "integer", "minimum": minimum, "maximum": maximum}
    expected = f"a whole number from {minimum} to {maximum}"
    return Parameter(name, description, schema, _integer(minimum, maximum), expected)


_A_UUID = "an instance UUID as Nova writes it: 32 lower-case hexadecimal digits and 4 dashes"
_A_MAP = "1 to 255 letters, digits, '_', '.' and '-', beginning with a letter or digit"
_A_HOST = "a host name"

INSTANCE_UUID = _text("instance_uuid", "The UUID of a Nova instance.", UUID, _A_UUID)
NAME = _text("name", "The name of an allocation map.", MAP_NAME, _A_MAP)
HOST = _text("host", "The name of a compute host, as in Nova.", HOST_NAME, _A_HOST)

OF_HOST = _text("host", "Only instances on this compute host.", HOST_NAME, _A_HOST)
OF_PROJECT = _text("project_id", "Only instances of this project.", PROJECT_ID, "a project's id")
OF_MAP = _text("map", "Only instances of this allocation map.", MAP_NAME, _A_MAP)
OF_STATUS = Parameter(
    "status",
    "Only instances with this status.",
    {"type": "string", "enum": list(LISTED)},
    _matching("|".join(LISTED)),
    f"one of {', '.join(LISTED)}",
)
GENERATION = _number(
    "generation",
    "Fail with 409 unless the current generation equals this value.",
    0,
    GENERATION_MAX,
)
LIMIT = _number("limit", "The maximum number of entries; [api] max_limit applies, too.", 1, ID_MAX)
AFTER_INSTANCE = _text("marker", "The last instance of the previous page.", UUID, _A_UUID)
AFTER_NAME = _text("marker", "The last name of the previous page.", MAP_NAME, _A_MAP)
AFTER_HOST = _text("marker", "The last host of the previous page.", HOST_NAME, _A_HOST)
AFTER_CHANGE = _number("marker", "The last change of the previous page.", 0, ID_MAX)
WAIT = _number(
    "wait_s",
    "Respond as soon as no instance is pending or releasing, at the latest after this number of "
    "seconds.",
    0,
    WAIT_MAX_S,
)
DRY_RUN = Parameter(
    "dry_run",
    "Whether to return only the plan and change nothing.",
    {"type": "boolean"},
    _boolean,
    "true or false",
)
