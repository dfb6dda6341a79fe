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
"""Waiting for one's own request: what is open, what is done, what ends it, which pauses."""

import argparse
import io

import pytest

from kongming.client.progress import Progress, placed
from kongming.client.responses import Fault
from kongming.client.waiting import Waiter
from kongming.manage import state
from kongming.osc import columns, waiting
from kongming.terminal import options
from kongming.tests.commands import Meanwhile

UUIDS = [f"5f0c3b52-6a0e-4c6e-9a5f-0d6a4f0b8c1{n}" for n in range(3)]


def allocation(number, status, host_state="up", **more):
    """An allocation, as the API shows it."""
    return {
        "instance_uuid": UUIDS[number],
        "host": "compute1",
        "host_state": host_state,
        "status": status,
        "reason": "",
        "message": "",
        **more,
    }


class Waited:
    """The outcome of waiting; the last poll stays.

    :ivar lines: the lines on stderr.
    :ivar slept: the pauses.
    """

    def __init__(self, *looks, timeout=5.0, patience=0.5):
        stderr, meanwhile, left = io.StringIO(), Meanwhile(), list(looks)

        def look():
            found = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(found, Exception):
                raise found
            return found if isinstance(found, Progress) else Progress(found, placed(found))

        messages = waiting.Messages(stderr)
        waiter = Waiter(
            messages.print,
            timeout,
            patience=patience,
            clock=meanwhile.clock,
            sleep=meanwhile.sleep,
        )
        self.end = waiter.wait(look)
        if self.end.progress:
            waiting.print_undone(messages, self.end.progress)
        self.lines, self.slept = stderr.getvalue().splitlines(), meanwhile.slept


def test_waiting_shows_its_progress():
    waited = Waited(
        [allocation(0, "pending"), allocation(1, "pending", "unresponsive")],
        [allocation(0, "applied"), allocation(1, "pending", "unresponsive")],
        [allocation(0, "applied"), allocation(1, "applied")],
    )
    assert waited.end.done
    assert waited.lines == [
        "0 of 2 applied (2 pending; unresponsive: compute1)",
        "1 of 2 applied (1 pending; unresponsive: compute1)",
        "2 of 2 applied",
    ]


def test_waiting_reports_unfinished_allocations_with_their_reasons():
    refused = allocation(1, "refused", reason="cpu_unknown", message="CPU 9 does not exist")
    waited = Waited([allocation(0, "applied"), refused])
    assert (waited.end.done, waited.end.why, waited.slept) == (False, "", [])
    assert waited.lines == [
        "1 of 2 applied (1 refused)",
        f"{UUIDS[1]} on compute1: refused (cpu_unknown): CPU 9 does not exist",
    ]
    (short,) = columns.not_applied(waited.end.progress.allocations).machine_readable()
    assert (short["instance_uuid"], short["reason"]) == (UUIDS[1], "cpu_unknown")


def test_an_absent_guest_is_reported_and_no_failure():
    waited = Waited([allocation(0, "absent", host=None, host_state="unknown")])
    assert waited.end.done
    assert waited.lines[-1] == (
        f"{UUIDS[0]}: absent: the guest does not run; it is placed when it starts"
    )
    assert sum(waited.slept) >= 0.5


def test_an_absent_guest_gets_its_full_time_again_after_it_was_observed():
    absent, pending = [allocation(0, "absent")], [allocation(0, "pending")]
    # It is observed after 0.2 and 0.5 s, and absent again after 0.95 s.
    assert sum(Waited(absent, pending, absent, patience=0.6).slept) >= 0.95 + 0.6


def test_an_absent_guest_may_still_appear():
    waited = Waited(
        [allocation(0, "absent")], [allocation(0, "pending")], [allocation(0, "applied")]
    )
    assert (waited.end.done, waited.lines[-1]) == (True, "1 of 1 applied")


def test_an_absent_guest_excuses_no_other_guest():
    assert not Waited([allocation(0, "absent"), allocation(1, "failed")]).end.done
    assert not Waited([allocation(0, "absent"), allocation(1, "failed")], timeout=0.1).end.done
    assert Waited([allocation(0, "absent"), allocation(1, "applied")], timeout=0.1).end.done


@pytest.mark.parametrize(
    ("source", "done"), [(None, True), ("", True), ("api", True), ("operator", False)]
)
def test_an_applied_allocation_counts_if_it_is_of_this_request(source, done):
    assert Waited([allocation(0, "applied", source=source)]).end.done is done


def test_waiting_has_an_end():
    waited = Waited([allocation(0, "pending", "unresponsive")], timeout=0.0)
    assert (waited.end.done, waited.end.why) == (False, "not carried out within 0 s")
    assert waited.lines[1:] == [
        f"{UUIDS[0]} on compute1: pending; the executor of compute1 is unresponsive"
    ]
    waited = Waited([allocation(0, "pending")], timeout=10)
    assert sum(waited.slept) == pytest.approx(10)
    assert waited.slept[:2] == [0.2, pytest.approx(0.3)]
    assert max(waited.slept) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut"),
        Fault("slow down", status=429, code="x"),
        Fault("busy", status=503, code="busy"),
        Fault("a page", status=404),
        Fault("time out", status=408, code="x"),
        Fault("log in", status=401),
    ],
    ids=str,
)
def test_a_temporary_error_is_waited_out(fault):
    waited = Waited(fault, [allocation(0, "applied")])
    assert waited.end.done
    assert waited.lines == [str(fault), "1 of 1 applied"]


@pytest.mark.parametrize(("requested", "pause"), [(2.5, 2.5), (0.1, 0.2), (7200, 5)])
def test_the_api_is_not_called_before_its_retry_delay(requested, pause):
    fault = Fault("slow down", status=429, code="x", retry_after=requested)
    assert Waited(fault, [allocation(0, "applied")]).slept == [pause]


@pytest.mark.parametrize(("status", "code"), [(403, "forbidden"), (400, "request_invalid")])
def test_a_permanent_error_ends_waiting_at_once(status, code):
    waited = Waited([allocation(0, "pending")], Fault("no", status=status, code=code))
    assert (waited.end.done, waited.end.why, len(waited.slept)) == (False, "no", 1)
    assert waited.end.progress.allocations == [allocation(0, "pending")]


def test_two_refusals_in_succession_end_waiting():
    denied = Fault("log in", status=401)
    assert Waited(denied, denied, [allocation(0, "applied")]).end.why == "log in"
    assert Waited(denied, Fault("cut"), denied, [allocation(0, "applied")]).end.done


def test_a_replacement_ends_waiting_whatever_else_is_open():
    for more in ([], [allocation(0, "pending")], [allocation(0, "absent")]):
        waited = Waited(Progress(more, "x", [allocation(1, "releasing")], replaced="by another"))
        assert (waited.end.done, waited.end.why, waited.slept) == (False, "", [])


def test_releases_keep_waiting_open():
    releasing = Progress(
        [allocation(0, "applied")], "x", [allocation(1, "releasing", "unresponsive")]
    )
    assert Waited(releasing, Progress([allocation(0, "applied")], "y")).end.done
    waited = Waited(releasing, timeout=1)
    assert not waited.end.done
    assert waited.lines[-1] == (
        f"{UUIDS[1]} on compute1: releasing; the executor of compute1 is unresponsive"
    )


def test_no_instances_end_waiting_at_once():
    assert Waited([]).end.done


def test_only_some_of_many_instances_are_listed():
    waited = Waited([allocation(0, "failed")] * 42)
    assert waited.lines[-1] == "and 2 more: see 'kongming allocation list'"
    assert len(waited.lines) == 42
    assert len(Waited([allocation(0, "failed")] * 40).lines) == 41


def test_the_progress_need_not_be_read():
    class Closed(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    for stderr in (None, Closed()):
        waiting.Messages(stderr).print("x")


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("60", 60), ("0.5", 0.5), ("7.", 7)])
def test_a_number_of_seconds(text, number):
    assert options.seconds(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        "inf",
        "-inf",
        "-5",
        "-0",
        "1e400",
        "1e3",
        "1_0",
        "",
        " 5",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        "5s",
        "9" * 10,
    ],
)
def test_an_invalid_number_of_seconds_is_refused_with_the_way_out(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"from 0 to 999999999, such as 60"):
        options.seconds(text)


@pytest.mark.parametrize("add", [waiting.add_options, state.add_wait_option])
def test_every_waiting_command_accepts_numbers_of_seconds_only(add, capsys):
    parser = argparse.ArgumentParser()
    add(parser, 30.0)
    option = "--timeout" if add is waiting.add_options else "--wait"
    assert vars(parser.parse_args([]))[option[2:]] == 30
    assert vars(parser.parse_args([option, "0.5"]))[option[2:]] == 0.5
    for text in ("nan", "inf", "-5"):
        with pytest.raises(SystemExit):
            parser.parse_args([f"{option}={text}"])
        assert f"'{text}' is not a number of seconds" in capsys.readouterr().err
