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

"""Messages: the form of everything that services tell each other over RPC, in both directions.

What comes is read by :meth:`Message.from_json`, which takes nothing that it has not checked.
Fields that it does not know are a newer peer's, and left out; fields that an older peer does not
send have a default. A bad item of a batch is left out alone, and named in ``unfit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
import time
from typing import Any, ClassVar, Self

from kongming import exception
from kongming.allocation.statuses import REPORTED, Status
from kongming.rpc import fields as form
from kongming.rpc import view as host_view

RELEASED = Status.RELEASED.value

# More than any host has, than any map may have, and than any plan takes.
_GUESTS_MAX = 10_000
_OF_HOST_MAX = 20_000
_OF_MAP_MAX = 100_000
_LINES_MAX = 100_000
# So many bad items are named; the others are left out without a word.
_UNFIT_MAX = 1_000

_name = form.text(255)
_word = form.text(64)
_message = form.text(4_000)
_value = form.text(65_536)

_WIRED: dict[type, list[tuple[str, form.Check, Any]]] = {}


def wire(check: form.Check, default: Any = MISSING) -> Any:
    """Return a field of a message.

    :param check: see :mod:`kongming.rpc.fields`.
    :param default: what counts if the field is not there; without it, it must be.
    """
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True)
class Message:
    """What one service tells another.

    :ivar unfit: what was left out in reading it; it is not sent.
    """

    unfit: tuple[Refusal, ...] = field(default=(), kw_only=True, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return its form on the wire."""
        return {name: _plain(getattr(self, name)) for name, _, _ in _wired(type(self))}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what :meth:`to_json` gives, or what other versions of it gave.

        :raises MessageInvalid: naming the field and what is wrong with it.
        """
        told = form.sized(value, dict, _LINES_MAX)
        found: dict[str, Any] = {}
        unfit: list[Refusal] = []
        for name, check, default in _wired(cls):
            if name not in told:
                if default is MISSING:
                    raise form.invalid(f"{name} is missing")
                found[name] = default
                continue
            with form.within(name):
                taken = check(told[name])
            if isinstance(taken, form.Partly):
                unfit += [Refusal(name, key, why) for key, why in taken.left_out]
                taken = taken.value
            elif isinstance(taken, Message):
                unfit += taken.unfit
            found[name] = taken
        return cls(**found, unfit=tuple(unfit[:_UNFIT_MAX]))


@dataclass(frozen=True, slots=True)
class Refusal(Message):
    """An item of a message that was not taken.

    :ivar what: the field that it was in.
    :ivar key: which item: an instance's UUID if it names one, else its place.
    :ivar why: what is wrong with it.
    """

    what: str = wire(_word)
    key: str = wire(_word)
    why: str = wire(_message)


@dataclass(frozen=True, slots=True)
class Kept(Message):
    """The answer to what a host tells.

    :ivar refused: what was not taken: it will not be another time.
    """

    refused: tuple[Refusal, ...] = wire(form.each(Refusal.from_json, _LINES_MAX), ())


@dataclass(frozen=True, slots=True)
class Report(Message):
    """What a host says of an instance.

    :ivar generation: of what was wanted.
    :ivar reason: reason code of a refusal, failure or drift; empty otherwise.
    :ivar source: who had asked the host for it; empty if it did not say.
    :ivar drift: what was last found to be other than wanted; empty if never.
    :ivar drift_at: when that was found, in seconds since the epoch.
    :ivar changed_at: when the status changed, by the host's clock.
    :ivar unobserved: what of its placement can't be observed there, and why; empty if all can,
        None if the host does not say.
    """

    instance_uuid: str = wire(form.instance_uuid)
    generation: int = wire(form.generation)
    status: str = wire(form.one_of(*REPORTED))
    reason: str = wire(form.reason_code)
    message: str = wire(_message)
    source: str = wire(form.reason_code)
    drift: str = wire(_message)
    drift_at: float | None = wire(form.maybe(form.moment))
    changed_at: float = wire(form.moment)
    unobserved: str | None = wire(form.maybe(_message), None)

    @classmethod
    def released(cls, instance_uuid: str, generation: int, now: float) -> Report:
        """Make the report that an instance has been let go of."""
        return cls(instance_uuid, generation, RELEASED, "", "", "", "", None, now)


def _started(value: Any) -> Any:
    """Check the time of a start: a clock that was set since then must not silence a host."""
    try:
        return form.moment(value)
    except exception.MessageInvalid as error:
        return form.Partly(time.time(), (("about", str(error)),))


@dataclass(frozen=True, slots=True)
class About(Message):
    """What an executor says of itself.

    :ivar started_at: in seconds since the epoch, by the host's clock.
    :ivar interval_s: seconds between two times that it tells all.
    """

    version: str = wire(_word)
    started_at: float = wire(_started)
    interval_s: float = wire(form.number(0.1, form.DAY_S))


@dataclass(frozen=True, slots=True)
class Exchange(Message):
    """What a host has, knows and has done; a conductor answers with what it is to do.

    :ivar complete: whether this is about all that the host has.
    :ivar guests: the instances that run there.
    :ivar known: the generation of what is known there of each instance.
    :ivar reports: how far each has come.
    :ivar digest: of what the host looks like; empty if that is not told.
    """

    told_by: str = wire(form.host_name)
    about: About = wire(About.from_json)  # noqa: RUF009
    complete: bool = wire(form.flag)
    guests: tuple[str, ...] = wire(form.each(form.instance_uuid, _GUESTS_MAX))
    known: Mapping[str, int] = wire(form.each_of(form.generation, _OF_HOST_MAX))
    reports: tuple[Report, ...] = wire(form.each(Report.from_json, _OF_HOST_MAX))
    digest: str = wire(form.digest, "")


@dataclass(frozen=True, slots=True)
class Wanted(Message):
    """What is wanted for one instance.

    :ivar allocation: its JSON form, not yet read; None: it is to be released.
    """

    generation: int = wire(form.generation)
    allocation: Mapping[str, Any] | None = wire(form.maybe(form.an_object))
    asked_by: str = wire(_name, "")


@dataclass(frozen=True, slots=True)
class ExchangeAnswer(Message):
    """What a host is to do.

    :ivar wanted: by instance, what is wanted otherwise than is known there.
    :ivar elsewhere: what is on another host.
    :ivar contested: what runs there and counts as being on another host: ask again soon.
    :ivar show: whether to tell what the host looks like.
    :ivar refused: as in :class:`Kept`.
    """

    wanted: Mapping[str, Wanted] = wire(form.each_of(Wanted.from_json, _OF_HOST_MAX))
    elsewhere: tuple[str, ...] = wire(form.each(form.instance_uuid, _OF_HOST_MAX))
    contested: tuple[str, ...] = wire(form.each(form.instance_uuid, _OF_HOST_MAX), ())
    show: bool = wire(form.flag, default=False)
    refused: tuple[Refusal, ...] = wire(form.each(Refusal.from_json, _LINES_MAX), ())


@dataclass(frozen=True, slots=True)
class Reports(Message):
    """What came of what is wanted; the answer is :class:`Kept`."""

    told_by: str = wire(form.host_name)
    reports: tuple[Report, ...] = wire(form.each(Report.from_json, _OF_HOST_MAX))


@dataclass(frozen=True, slots=True)
class Show(Message):
    """What a host looks like; the answer is :class:`Kept`.

    :ivar view: see :mod:`kongming.rpc.view`.
    """

    told_by: str = wire(form.host_name)
    view: Mapping[str, Any] = wire(host_view.read)
    digest: str = wire(form.digest)


@dataclass(frozen=True, slots=True)
class Changed(Message):
    """Instances for which something else is wanted now; there is no answer."""

    instance_uuids: tuple[str, ...] = wire(form.each(form.instance_uuid, _OF_MAP_MAX))


@dataclass(frozen=True, slots=True)
class Push(Message):
    """What is wanted for some instances of a host; there is no answer."""

    instances: Mapping[str, Wanted] = wire(form.each_of(Wanted.from_json, _OF_HOST_MAX))


@dataclass(frozen=True, slots=True)
class Plan(Message):
    """The question what a host would do to a guest.

    :ivar allocation: its JSON form, not yet read.
    """

    instance_uuid: str = wire(form.instance_uuid)
    allocation: Mapping[str, Any] = wire(form.an_object)


def _step(value: Any) -> dict[str, str]:
    """Check a step; ``from`` is no name of Python's."""
    told = form.sized(value, dict, _LINES_MAX)
    return {name: _value(told.get(name, "")) for name in ("target", "from", "to", "grant")}


@dataclass(frozen=True, slots=True)
class PlanAnswer(Message):
    """What a host would do.

    :ivar outcome: ``silent`` if the host does not answer the conductor.
    :ivar steps: objects of ``target``, ``from``, ``to`` and ``grant``.
    """

    OUTCOMES: ClassVar = ("planned", "refused", "failed", "absent", "silent")

    outcome: str = wire(form.one_of(*OUTCOMES))
    host: str | None = wire(form.maybe(_name), None)
    reason: str = wire(form.reason_code, "")
    message: str = wire(_message, "")
    steps: tuple[Mapping[str, str], ...] = wire(form.listed(_step, _LINES_MAX), ())
    warnings: tuple[str, ...] = wire(form.listed(_message, _LINES_MAX), ())


def by_instance(refused: Iterable[Refusal]) -> dict[str, Refusal]:
    """Return those refusals that are about an instance, by its UUID."""
    return {each.key: each for each in refused if not each.key.startswith("[")}


def _wired(cls: type[Message]) -> list[tuple[str, form.Check, Any]]:
    """Return name, check and default of the fields that are sent."""
    if cls not in _WIRED:
        wired = [each for each in fields(cls) if "check" in each.metadata]
        _WIRED[cls] = [(each.name, each.metadata["check"], each.default) for each in wired]
    return _WIRED[cls]


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
