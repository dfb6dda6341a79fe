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

"""Messages over RPC: what is taken, whatever comes; what was sent before and will be later."""

import copy
import json
import math
from pathlib import Path
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from kongming import exception
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.statuses import REPORTED, Status
from kongming.host.rules import Rules
from kongming.host.snapshot import to_json
from kongming.rpc import fields, messages, signing
from kongming.rpc.messages import (
    Acknowledgement,
    Changed,
    Desired,
    Exchange,
    ExchangeAnswer,
    ExecutorInfo,
    HostSnapshot,
    Message,
    Plan,
    PlanAnswer,
    Plans,
    PlansAnswer,
    Push,
    Refusal,
    Report,
    Reports,
)
from kongming.rpc.signing import Signature
from kongming.tests.databases import instance
from kongming.tests.hosts import guest, host
from kongming.tests.thorough import examples
from kongming.tests.unit.strategies import json_values

RECORDED = Path(__file__).parents[1] / "data/rpc"

# Question and answer of each call, as it is recorded.
CALLS = {
    "conductor-changed": (Changed, None),
    "conductor-exchange": (Exchange, ExchangeAnswer),
    "conductor-plan": (Plan, PlanAnswer),
    "conductor-report": (Reports, Acknowledgement),
    "conductor-snapshot": (HostSnapshot, Acknowledgement),
    "host-plan": (Plan, PlanAnswer),
    "host-desired": (Push, None),
}


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def recorded_messages():
    """Yield each recorded message with its kind."""
    for name, (question, answer) in CALLS.items():
        for pair in recorded(name):
            yield question, pair["arguments"]
            if answer is not None:
                yield answer, pair["answer"]


def on_wire(message):
    return json.loads(json.dumps(message.to_json()))


def report(**changed):
    fit = {
        "instance_uuid": instance(),
        "generation": 1,
        "status": "applied",
        **dict.fromkeys(("reason", "message", "source", "drift"), ""),
        "drift_at": None,
        "changed_at": 1e9,
        "unobserved": None,
    }
    return fit | changed


def exchange(**changed):
    fit = {
        "host": "compute-1",
        "executor": {"version": "1", "started_at": 1e9, "interval_s": 60.0},
        "complete": True,
        "guests": [],
        "known": {},
        "reports": [],
        "digest": "",
    }
    return fit | changed


def has_all(read, sent):
    """Return whether what was read has all that was sent, at any depth."""
    if isinstance(sent, dict):
        return all(name in read and has_all(read[name], sent[name]) for name in sent)
    if isinstance(sent, list):
        return len(read) == len(sent) and all(map(has_all, read, sent))
    return read == sent


def test_a_message_of_an_older_version_is_accepted_whole():
    for kind, message in recorded_messages():
        read = kind.from_json(message)
        assert read.left_out == ()
        # What it has besides are defaults, which an older version leaves alone.
        assert has_all(on_wire(read), message)


def test_a_sent_message_has_all_fields_that_older_versions_need():
    for kind, message in recorded_messages():
        assert on_wire(kind.from_json(message)).keys() >= message.keys()


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(list(recorded_messages())), st.data())
def test_a_message_with_any_part_replaced_is_read_or_refused(pair, data):
    kind, message = pair
    message = copy.deepcopy(message)
    place, holder = message, None
    while isinstance(place, dict | list) and place and data.draw(st.booleans() | st.just(True)):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        holder, key = place, data.draw(st.sampled_from(keys))
        place = holder[key]
    if holder is not None:
        holder[key] = data.draw(json_values)
    try:
        read = kind.from_json(message)
    except exception.MessageInvalid as error:
        assert str(error).isprintable()
    else:
        written = json.dumps(read.to_json(), allow_nan=False)
        assert kind.from_json(json.loads(written)) == read
        assert all(ord(each) >= 32 for each in written)


texts = st.text(max_size=20).map(lambda text: fields.text(20)(text))
moments = st.floats(fields.EARLIEST, 1.7e9)
uuids = st.integers(0, 10**11).map(instance)
codes = st.sampled_from(["", "cpu_offline", "failed"])
generations = st.integers(0, fields.GENERATION_MAX)
reports = st.builds(
    Report,
    uuids,
    generations,
    st.sampled_from(REPORTED).map(Status),
    codes,
    texts,
    codes,
    texts,
    st.none() | moments,
    moments,
)
desired = st.builds(Desired, generations, st.none() | st.just({"vcpu_pinning": "0"}), texts)
refusals = st.builds(Refusal, texts, texts, texts)
lists = {kind: st.lists(kind, max_size=3).map(tuple) for kind in (uuids, reports, refusals)}


infos = st.builds(ExecutorInfo, texts, moments, st.floats(0.1, 86_400))
host_names = st.sampled_from(["compute-1", "c1.example.org"])
digests = st.sampled_from(["", "0" * 64])
steps = st.fixed_dictionaries(dict.fromkeys(("target", "from", "to", "grant"), texts))
allocations = st.just({"vcpu_pinning": "0"})
SNAPSHOT = json.loads(
    json.dumps(to_json(host(2, 2, 2), [guest(1, "0:1"), guest(2)], Rules(shared_cpus=CpuSet([1]))))
)

plans = st.builds(
    PlanAnswer,
    st.sampled_from(PlanAnswer.OUTCOMES),
    st.none() | texts,
    codes,
    texts,
    st.lists(steps, max_size=2).map(tuple),
    st.lists(texts, max_size=2).map(tuple),
)

# How a message of each class is made.
MESSAGES = {
    Refusal: refusals,
    Acknowledgement: st.builds(Acknowledgement, lists[refusals]),
    Report: reports,
    ExecutorInfo: infos,
    Exchange: st.builds(
        Exchange,
        host_names,
        infos,
        st.booleans(),
        lists[uuids],
        st.dictionaries(uuids, generations, max_size=3),
        lists[reports],
        digests,
    ),
    Desired: desired,
    ExchangeAnswer: st.builds(
        ExchangeAnswer,
        st.dictionaries(uuids, desired, max_size=3),
        lists[uuids],
        lists[uuids],
        st.booleans(),
        lists[refusals],
    ),
    Reports: st.builds(Reports, host_names, lists[reports]),
    HostSnapshot: st.builds(HostSnapshot, host_names, st.just(SNAPSHOT), digests),
    Changed: st.builds(Changed, lists[uuids]),
    Push: st.builds(Push, st.dictionaries(uuids, desired, max_size=3)),
    Plan: st.builds(Plan, uuids, allocations),
    PlanAnswer: plans,
    Plans: st.builds(Plans, st.dictionaries(uuids, st.none() | allocations, max_size=3)),
    PlansAnswer: st.builds(PlansAnswer, st.dictionaries(uuids, plans, max_size=3)),
    Signature: st.builds(
        Signature,
        st.none() | host_names,
        st.none() | host_names,
        moments,
        st.just("a" * 32),
        st.just("b" * 64),
    ),
}


def plan_of(length, steps=1):
    step = {"target": "vCPU 0", "from": "x" * length, "to": "1", "grant": ""}
    return PlanAnswer("planned", "here", steps=(step,) * steps, warnings=("shared",))


def test_plans_that_do_not_fit_into_one_message_have_no_steps():
    most = PlansAnswer.CHARACTERS_MAX
    fitting = {instance(number): plan_of(60, 8) for number in range(1000)}
    assert PlansAnswer.limited(fitting).plans == fitting
    large = {instance(number): plan_of(most // 4) for number in range(6)}
    kept = PlansAnswer.limited(large).plans
    assert [len(plan.steps) for plan in kept.values()] == [1] * 3 + [0] * 3
    assert kept[instance(5)].outcome == "planned"
    assert kept[instance(5)].warnings == (
        "2 steps and warnings are omitted: plan fewer instances at once",
    )
    # The text is quoted in the message of oslo.messaging.
    full = PlansAnswer.limited({instance(number): plan_of(20, 100) for number in range(1000)})
    assert len(json.dumps(json.dumps(full.to_json()))) < 16 * 2**20


def newer(value):
    """Return a message as a newer peer may send it, with more fields at each level."""
    later = {"later": {"than": ["this", 1.5, None]}, "more": None}
    if isinstance(value, Message):
        fields_ = {name: newer(getattr(value, name)) for name in value.to_json()}
        return fields_ | later
    if isinstance(value, tuple | list):
        return [newer(each) for each in value]
    if isinstance(value, dict):
        more = later if "target" in value else {}
        return {name: newer(each) for name, each in value.items()} | more
    return value


def test_each_class_of_messages_is_tested():
    classes = [*vars(messages).values(), *vars(signing).values()]
    found = {each for each in classes if isinstance(each, type) and issubclass(each, Message)}
    assert found - {Message} == set(MESSAGES)


any_message = st.one_of(*MESSAGES.values())


@settings(deadline=None)
@given(any_message)
def test_a_sent_message_is_read_back(message):
    read = type(message).from_json(on_wire(message))
    assert (read, read.left_out) == (message, ())


@settings(deadline=None)
@given(any_message)
def test_additional_fields_of_a_newer_peer_are_ignored_at_every_level(message):
    read = type(message).from_json(json.loads(json.dumps(newer(message))))
    assert (read, read.left_out) == (message, ())


@settings(deadline=None)
@given(any_message, st.data())
def test_a_field_that_an_older_peer_does_not_send_has_a_default_or_is_required(message, data):
    sent = on_wire(message)
    name = data.draw(st.sampled_from(sorted(sent)))
    del sent[name]
    try:
        read = type(message).from_json(sent)
    except exception.MessageInvalid as error:
        assert str(error) == f"{name} is missing"
    else:
        assert on_wire(read).keys() == on_wire(message).keys()
        assert read.left_out == ()


@settings(max_examples=examples(300))
@given(st.sampled_from(sorted(MESSAGES, key=lambda kind: kind.__name__)), json_values)
def test_any_json_is_a_message_or_refused(kind, value):
    try:
        kind.from_json(value)
    except exception.MessageInvalid as error:
        assert str(error).isprintable()


DAY = 86_400
NOW = time.time()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance_uuid", instance().upper()),
        ("instance_uuid", f"{instance()}\n"),
        ("instance_uuid", None),
        ("generation", -1),
        ("generation", 2**31),
        ("generation", True),
        ("generation", 1.0),
        ("generation", "1"),
        ("status", "releasing"),
        ("status", "gone"),
        ("status", ["applied"]),
        ("reason", "Bad Code"),
        ("reason", "a" * 65),
        ("reason", "code\n"),
        ("source", 5),
        ("message", None),
        ("message", 5),
        ("drift", []),
        ("drift_at", 1e300),
        ("drift_at", math.inf),
        ("drift_at", math.nan),
        ("drift_at", -1e300),
        ("drift_at", "2026-01-01"),
        ("drift_at", True),
        ("changed_at", None),
        ("changed_at", fields.EARLIEST - 1),
        pytest.param("changed_at", NOW + 2 * DAY, id="changed_at-two days from now"),
        ("changed_at", 10**400),
    ],
)
def test_a_bad_report_is_skipped_alone(field, value):
    batch = [report(), report(instance_uuid=instance(2)) | {field: value}, report()]
    read = Reports.from_json({"host": "compute-1", "reports": batch})
    assert read.reports == (Report.from_json(report()),) * 2
    (refusal,) = read.left_out
    named = "[1]" if field == "instance_uuid" else instance(2)
    assert (refusal.field, refusal.key) == ("reports", named)
    assert field in refusal.message
    assert refusal.message.isprintable()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generation", 0),
        ("generation", 2**31 - 1),
        ("reason", "a" * 64),
        ("source", "something_later"),
        ("drift_at", 1e9),
        ("changed_at", fields.EARLIEST),
        pytest.param("changed_at", NOW + DAY / 2, id="changed_at-half a day from now"),
        ("changed_at", 1_000_000_000),
        *(("status", status) for status in REPORTED),
    ],
)
def test_a_report_within_the_rules_is_accepted(field, value):
    read = Reports.from_json({"host": "compute-1", "reports": [report(**{field: value})]})
    assert read.left_out == ()
    assert getattr(read.reports[0], field) == value


@pytest.mark.parametrize("field", sorted(report().keys() - {"unobserved"}))
def test_a_report_without_one_of_its_fields_is_skipped(field):
    partial = {name: value for name, value in report().items() if name != field}
    read = Reports.from_json({"host": "compute-1", "reports": [partial]})
    assert read.reports == ()
    assert read.left_out[0].message == f"{field} is missing"


@pytest.mark.parametrize(
    ("fields", "unobserved"), [({}, None), ({"unobserved": ""}, ""), ({"unobserved": "x"}, "x")]
)
def test_an_older_host_does_not_name_unobservable_values(fields, unobserved):
    older = {name: value for name, value in report().items() if name != "unobserved"}
    read = Reports.from_json({"host": "compute-1", "reports": [older | fields]})
    assert read.left_out == ()
    assert read.reports[0].unobserved == unobserved


def test_text_for_people_is_cleaned_and_cut():
    text = "line\nline\x00\x1b[31m\ud800\u202e" + "x" * 10_000
    message = Report.from_json(report(message=text)).message
    assert message.startswith("line line�" + "�[31m��x")
    assert message.isprintable()
    assert len(message) == 4_000


def test_bad_guests_and_bad_known_generations_are_skipped_individually():
    read = Exchange.from_json(
        exchange(guests=[instance(), 5, "x"], known={instance(): 3, instance(2): -1, "y": 1})
    )
    assert (read.guests, read.known) == ((instance(),), {instance(): 3})
    left_out = [(each.field, each.key) for each in read.left_out]
    assert left_out == [
        ("guests", "[1]"),
        ("guests", "[2]"),
        ("known", instance(2)),
        ("known", "[2]"),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""),
        ("host", "-x"),
        ("host", "a b"),
        ("host", "x" * 256),
        ("host", None),
        ("complete", 1),
        ("guests", {}),
        ("guests", [instance()] * 10_001),
        ("known", []),
        ("reports", None),
        ("digest", "no digest"),
        ("executor", []),
        ("executor", {"version": "1", "started_at": 1e9, "interval_s": 0}),
        ("executor", {"version": "1", "started_at": 1e9, "interval_s": 2 * DAY}),
        ("executor", {"version": 1, "started_at": 1e9, "interval_s": 60}),
        ("executor", {"version": "1", "started_at": 1e9, "interval_s": math.nan}),
    ],
)
def test_an_exchange_that_can_not_be_read_is_refused_with_the_field(field, value):
    with pytest.raises(exception.MessageInvalid, match=f"^{field}: "):
        Exchange.from_json(exchange(**{field: value}))


def test_an_impossible_start_time_does_not_make_a_host_unresponsive():
    about = {"version": "1", "started_at": 12.0, "interval_s": 60.0}
    read = Exchange.from_json(exchange(executor=about))
    assert abs(read.executor.started_at - time.time()) < DAY
    assert [each.field for each in read.left_out] == ["started_at"]


def test_an_unreadable_desired_allocation_is_skipped_alone():
    good = {"generation": 2, "allocation": None}
    bad = {"generation": "2", "allocation": None}
    deep = {"generation": 2, "allocation": {"a": [[[[[[[[[[[[[1]]]]]]]]]]]]]}}
    answer = {"desired": {instance(): good, instance(2): bad, instance(3): deep}, "elsewhere": [7]}
    read = ExchangeAnswer.from_json(answer)
    assert read.desired == {instance(): Desired(2, None, "")}
    assert [each.key for each in read.left_out] == [instance(2), instance(3), "[0]"]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_endless_nesting_is_refused():
    depth = sys.getrecursionlimit() // 2
    for value in (nested(depth), {"a": nested(depth)}):
        with pytest.raises(exception.MessageInvalid):
            Plan.from_json({"instance_uuid": instance(), "allocation": value})
    read = HostSnapshot.from_json(
        {"host": "c", "snapshot": {"later": 1, "cells": nested(depth)}, "digest": ""}
    )
    assert read.snapshot["cells"] == []


def test_a_huge_allocation_is_refused():
    with pytest.raises(exception.MessageInvalid, match="more levels or items"):
        Plan.from_json({"instance_uuid": instance(), "allocation": {"a": [0] * 100_001}})
    assert Plan.from_json({"instance_uuid": instance(), "allocation": {"a": [0] * 90_000}})


def test_refusals_that_name_instances_are_distinguished():
    named, other = Refusal("reports", instance(), "x"), Refusal("reports", "[3]", "x")
    assert messages.of_instances([named, other]) == {instance(): named}


def test_of_many_bad_items_some_are_named_and_all_are_skipped():
    read = Reports.from_json({"host": "compute-1", "reports": [5] * 5_000})
    assert (read.reports, len(read.left_out)) == ((), 1_000)


def test_a_report_of_a_release_has_no_other_fields():
    released = Report.released(instance(), 7, 1e9)
    assert on_wire(released) == report(generation=7, status="released")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (True, "True"),
        (1.5, "1.5"),
        (2**64, "18446744073709551616"),
        (-(2**64), "-18446744073709551616"),
        (2**64 + 1, "a huge number"),
        (10**4000, "a huge number"),
        ("x" * 38, f"'{'x' * 38}'"),
        ("x" * 39, f"'{'x' * 39}…"),
        ("x" * 100_000, f"'{'x' * 39}…"),
        ("\x1b\ud800", "'\\x1b\\ud800'"),
        ([1], "a list"),
        ({}, "a dict"),
    ],
)
def test_an_error_quotes_a_value_in_short(value, shown):
    assert fields.shown(value) == shown


def test_an_error_names_the_expected_value():
    for kind, noun in ((list, "a list"), (dict, "an object")):
        with pytest.raises(exception.MessageInvalid, match=f"^5 is not {noun}$"):
            fields.sized(5, kind, 3)
        with pytest.raises(exception.MessageInvalid, match="^4 items are more than 3$"):
            fields.sized(kind(zip(range(4), range(4), strict=True)), kind, 3)
        assert len(fields.sized(kind(zip(range(3), range(3), strict=True)), kind, 3)) == 3


def test_names_and_nesting_of_unknown_fields_have_an_end():
    assert fields.any_json({"x" * 300: 1}) == {"x" * 255: 1}
    assert fields.any_json(nested(12)) == nested(12)
    with pytest.raises(exception.MessageInvalid, match="more levels or items"):
        fields.any_json(nested(13))


def test_words_and_names_are_cut():
    about = ExecutorInfo.from_json({"version": "1" * 65, "started_at": 1e9, "interval_s": 1})
    assert about.version == "1" * 64
    desired = Desired.from_json({"generation": 1, "allocation": None, "requested_by": "x" * 256})
    assert desired.requested_by == "x" * 255
    step = {"target": "t", "from": "0" * 70_000, "to": "1"}
    answer = PlanAnswer.from_json({"outcome": "planned", "steps": [step]})
    assert answer.steps == ({"target": "t", "from": "0" * 65_536, "to": "1", "grant": ""},)


@pytest.mark.parametrize(
    ("seconds", "fit"), [(0.1, True), (0.09, False), (86_400, True), (86_401, False)]
)
def test_the_interval_of_complete_exchanges_is_accepted_or_refused(seconds, fit):
    about = {"version": "1", "started_at": 1e9, "interval_s": seconds}
    if fit:
        assert ExecutorInfo.from_json(about).interval_s == seconds
    else:
        with pytest.raises(exception.MessageInvalid, match="not a number from 0.1 to 86400"):
            ExecutorInfo.from_json(about)
