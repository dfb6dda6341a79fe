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

"""Messages between services over RPC, in both directions.

:meth:`Message.from_json` checks every field that it reads. It ignores fields that only a newer
peer has. A field that an older peer does not send has a default. From a batch only the invalid
items are left out; ``left_out`` names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
import time
from typing import Any, ClassVar, Self

from kongming import exception
from kongming.allocation.statuses import REPORTED, Status
from kongming.rpc import fields as form
from kongming.rpc import host_snapshot

# Above what any host has, any map may have, and any plan takes.
_GUESTS_MAX = 10_000
_OF_HOST_MAX = 20_000
_OF_MAP_MAX = 100_000
_LINES_MAX = 100_000
# The most items that are named in ``left_out``.
_LEFT_OUT_MAX = 1_000

_name = form.text(255)
_short = form.text(64)
_message = form.text(4_000)
_value = form.text(65_536)

_WIRED: dict[type, list[tuple[str, form.Check, Any]]] = {}


def wire(check: form.Check, default: Any = MISSING) -> Any:
    """Return a field of a message.

    :param check: see :mod:`kongming.rpc.fields`.
    :param default: the value of a missing field; without a default the field is required.
    """
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, slots=True)
class Message:
    """The arguments of a call, its answer, or a part of either.

    :ivar left_out: the items that were invalid when the message was read; never sent.
    """

    left_out: tuple[Refusal, ...] = field(default=(), kw_only=True, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the message as JSON objects."""
        return {name: _plain(getattr(self, name)) for name, _, _ in _wired(type(self))}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read the output of :meth:`to_json`, of this version or another.

        :raises MessageInvalid: naming the field and what is wrong with it.
        """
        received = form.sized(value, dict, _LINES_MAX)
        found: dict[str, Any] = {}
        left_out: list[Refusal] = []
        for name, check, default in _wired(cls):
            if name not in received:
                if default is MISSING:
                    raise form.invalid(f"{name} is missing")
                found[name] = default
                continue
            with form.within(name):
                checked = check(received[name])
            if isinstance(checked, form.Partial):
                left_out += [Refusal(name, key, why) for key, why in checked.left_out]
                checked = checked.value
            elif isinstance(checked, Message):
                left_out += checked.left_out
            found[name] = checked
        return cls(**found, left_out=tuple(left_out[:_LEFT_OUT_MAX]))


@dataclass(frozen=True, slots=True)
class Refusal(Message):
    """An item of a message that was not accepted.

    :ivar field: the field that held the item.
    :ivar key: the instance's UUID if the item names one, else its place.
    :ivar message: what is wrong with it.
    """

    field: str = wire(_short)
    key: str = wire(_short)
    message: str = wire(_message)


@dataclass(frozen=True, slots=True)
class Acknowledgement(Message):
    """The answer to reports and snapshots.

    :ivar refused: the items that were not stored; sending them again is of no use.
    """

    refused: tuple[Refusal, ...] = wire(form.valid_items(Refusal.from_json, _LINES_MAX), ())


@dataclass(frozen=True, slots=True)
class Report(Message):
    """The status of an instance's request, reported by a host.

    :ivar generation: the generation of the request.
    :ivar reason: reason code of a refusal, failure or drift; empty otherwise.
    :ivar source: the source of the request in force; empty if unknown.
    :ivar drift: the last drift that was found; empty if none ever was.
    :ivar drift_at: when it was found, in seconds since the epoch.
    :ivar changed_at: when the status changed, by the host's clock.
    :ivar unobserved: the parts of the placement that can't be observed there, and why; empty if
        all can, None if the host does not report it.
    """

    instance_uuid: str = wire(form.instance_uuid)
    generation: int = wire(form.generation)
    status: Status = wire(form.one_of(Status, REPORTED))  # noqa: RUF009
    reason: str = wire(form.reason_code)
    message: str = wire(_message)
    source: str = wire(form.reason_code)
    drift: str = wire(_message)
    drift_at: float | None = wire(form.nullable(form.timestamp))
    changed_at: float = wire(form.timestamp)
    unobserved: str | None = wire(form.nullable(_message), None)

    @classmethod
    def released(cls, instance_uuid: str, generation: int, now: float) -> Report:
        """Return the report that an instance was released."""
        return cls(instance_uuid, generation, Status.RELEASED, "", "", "", "", None, now)


def _started_at(value: Any) -> Any:
    """Check the time of a start; an absurd clock must not make a host unresponsive."""
    try:
        return form.timestamp(value)
    except exception.MessageInvalid as error:
        return form.Partial(time.time(), (("executor", str(error)),))


@dataclass(frozen=True, slots=True)
class ExecutorInfo(Message):
    """Version and timing of an executor.

    :ivar started_at: in seconds since the epoch, by the host's clock.
    :ivar interval_s: seconds between two complete exchanges.
    """

    version: str = wire(_short)
    started_at: float = wire(_started_at)
    interval_s: float = wire(form.number(0.1, form.DAY_S))


@dataclass(frozen=True, slots=True)
class Exchange(Message):
    """The state of a host; the answer has the desired allocations that differ from it.

    :ivar complete: whether it covers all instances of the host.
    :ivar guests: the instances that run there.
    :ivar known: the generation that the host has of each instance.
    :ivar digest: the digest of the host's snapshot; empty if not sent.
    """

    host: str = wire(form.host_name)
    executor: ExecutorInfo = wire(ExecutorInfo.from_json)  # noqa: RUF009
    complete: bool = wire(form.boolean)
    guests: tuple[str, ...] = wire(form.valid_items(form.instance_uuid, _GUESTS_MAX))
    known: Mapping[str, int] = wire(form.by_instance(form.generation, _OF_HOST_MAX))
    reports: tuple[Report, ...] = wire(form.valid_items(Report.from_json, _OF_HOST_MAX))
    digest: str = wire(form.digest, "")


@dataclass(frozen=True, slots=True)
class Desired(Message):
    """The desired allocation of one instance.

    :ivar allocation: its JSON form, unchecked; None: the instance is to be released.
    """

    generation: int = wire(form.generation)
    allocation: Mapping[str, Any] | None = wire(form.nullable(form.json_object))
    requested_by: str = wire(_name, "")


@dataclass(frozen=True, slots=True)
class ExchangeAnswer(Message):
    """The instructions of a conductor to a host.

    :ivar desired: by instance, the desired allocations that the host does not have yet.
    :ivar elsewhere: the instances that are on another host.
    :ivar contested: the instances that run there but belong to another host: exchange again soon.
    :ivar send_snapshot: whether to send the host's snapshot.
    :ivar refused: as in :class:`Acknowledgement`.
    """

    desired: Mapping[str, Desired] = wire(form.by_instance(Desired.from_json, _OF_HOST_MAX))
    elsewhere: tuple[str, ...] = wire(form.valid_items(form.instance_uuid, _OF_HOST_MAX))
    contested: tuple[str, ...] = wire(form.valid_items(form.instance_uuid, _OF_HOST_MAX), ())
    send_snapshot: bool = wire(form.boolean, default=False)
    refused: tuple[Refusal, ...] = wire(form.valid_items(Refusal.from_json, _LINES_MAX), ())


@dataclass(frozen=True, slots=True)
class Reports(Message):
    """Reports of a host; the answer is an :class:`Acknowledgement`."""

    host: str = wire(form.host_name)
    reports: tuple[Report, ...] = wire(form.valid_items(Report.from_json, _OF_HOST_MAX))


@dataclass(frozen=True, slots=True)
class HostSnapshot(Message):
    """The snapshot of a host; the answer is an :class:`Acknowledgement`.

    :ivar snapshot: see :mod:`kongming.rpc.host_snapshot`.
    """

    host: str = wire(form.host_name)
    snapshot: Mapping[str, Any] = wire(host_snapshot.read)
    digest: str = wire(form.digest)


@dataclass(frozen=True, slots=True)
class Changed(Message):
    """Instances whose desired allocation has changed; there is no answer."""

    instance_uuids: tuple[str, ...] = wire(form.valid_items(form.instance_uuid, _OF_MAP_MAX))


@dataclass(frozen=True, slots=True)
class Push(Message):
    """Desired allocations of some instances of a host; there is no answer."""

    instances: Mapping[str, Desired] = wire(form.by_instance(Desired.from_json, _OF_HOST_MAX))


@dataclass(frozen=True, slots=True)
class Plan(Message):
    """A dry run: an allocation for a guest.

    :ivar allocation: its JSON form, unchecked.
    """

    instance_uuid: str = wire(form.instance_uuid)
    allocation: Mapping[str, Any] = wire(form.json_object)


def _step(value: Any) -> dict[str, str]:
    """Check a step; a dataclass can't have a field named ``from``."""
    received = form.sized(value, dict, _LINES_MAX)
    return {name: _value(received.get(name, "")) for name in ("target", "from", "to", "grant")}


@dataclass(frozen=True, slots=True)
class PlanAnswer(Message):
    """The outcome of a dry run.

    :ivar outcome: ``unresponsive`` if the conductor gets no answer from the host.
    :ivar steps: objects of ``target``, ``from``, ``to`` and ``grant``.
    """

    UNRESPONSIVE: ClassVar = "unresponsive"
    OUTCOMES: ClassVar = ("planned", "refused", "failed", "absent", UNRESPONSIVE)

    outcome: str = wire(form.one_of(str, OUTCOMES))
    host: str | None = wire(form.nullable(_name), None)
    reason: str = wire(form.reason_code, "")
    message: str = wire(_message, "")
    steps: tuple[Mapping[str, str], ...] = wire(form.list_of(_step, _LINES_MAX), ())
    warnings: tuple[str, ...] = wire(form.list_of(_message, _LINES_MAX), ())


@dataclass(frozen=True, slots=True)
class Plans(Message):
    """A dry run: allocations for guests that are requested together.

    :ivar instances: by instance, the JSON form of its allocation, unchecked; None: its release.
    """

    instances: Mapping[str, Mapping[str, Any] | None] = wire(
        form.by_instance(form.nullable(form.json_object), _OF_MAP_MAX)
    )


@dataclass(frozen=True, slots=True)
class PlansAnswer(Message):
    """The outcomes of a dry run, by instance."""

    # RabbitMQ accepts 16 MiB in one message, and the text is quoted in it.
    CHARACTERS_MAX: ClassVar = 4 * 1024 * 1024
    # The names of the fields of a step, and of a plan.
    _NAMES: ClassVar = 100
    _MESSAGE_MAX: ClassVar = 100

    plans: Mapping[str, PlanAnswer] = wire(form.by_instance(PlanAnswer.from_json, _OF_MAP_MAX))

    @classmethod
    def limited(cls, plans: Mapping[str, PlanAnswer]) -> Self:
        """Return plans that fit into one message: those that do not have no steps."""
        left, kept = cls.CHARACTERS_MAX, {}
        for uuid, plan in plans.items():
            left -= cls._NAMES + len(plan.message) + sum(map(len, plan.warnings))
            left -= sum(cls._NAMES + sum(map(len, step.values())) for step in plan.steps)
            kept[uuid] = plan if left >= 0 else cls._shortened(plan)
        return cls(kept)

    @classmethod
    def _shortened(cls, plan: PlanAnswer) -> PlanAnswer:
        omitted = len(plan.steps) + len(plan.warnings)
        note = f"{omitted} steps and warnings are omitted: plan fewer instances at once"
        return replace(
            plan,
            message=plan.message[: cls._MESSAGE_MAX],
            steps=(),
            warnings=(note,) if omitted else (),
        )


def of_instances(refused: Iterable[Refusal]) -> dict[str, Refusal]:
    """Return the refusals of items that name an instance, by its UUID."""
    return {each.key: each for each in refused if not each.key.startswith("[")}


def _wired(cls: type[Message]) -> list[tuple[str, form.Check, Any]]:
    """Return name, check and default of each field that is sent."""
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
