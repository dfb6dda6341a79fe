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

"""What is refused of what comes over the bus is counted, and logged once for each sender."""

import logging
import time

import pytest

from kongming import exception
from kongming.rpc.messages import Acknowledgement, Refusal
from kongming.rpc.refusals import Refusals
from kongming.runtime import hourly
from kongming.runtime.cleaning import clean

INVALID = exception.MessageInvalid("it is odd")
UNSIGNED = exception.SignatureInvalid("it is not signed")


@pytest.fixture
def refusals(caplog):
    caplog.set_level(logging.WARNING)
    return Refusals()


def test_each_sender_and_kind_is_logged_once_and_all_are_counted(refusals, caplog):
    for _ in range(3):
        for sender in ("compute-1", "compute-2"):
            refusals.note(sender, "report", INVALID)
        refusals.note("compute-1", "exchange", INVALID)
        refusals.note("compute-1", "report", UNSIGNED)
    assert refusals.counts == {
        ("report", "message_invalid"): 6,
        ("exchange", "message_invalid"): 3,
        ("report", "signature_invalid"): 3,
    }
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 4
    assert logged[0].startswith("report of compute-1 is rejected (message_invalid): it is odd")


def test_skipped_items_of_a_message_are_counted_individually(refusals, caplog):
    left_out = tuple(Refusal("reports", f"[{number}]", "x") for number in range(3))
    refusals.note_left_out("compute-1", "report", Acknowledgement(left_out=left_out))
    refusals.note_left_out("compute-1", "report", Acknowledgement())
    assert refusals.counts["report", "message_invalid"] == 3
    assert len(caplog.records) == 1


def test_made_up_senders_do_not_fill_the_log(refusals, caplog, monkeypatch):
    now = time.monotonic()
    for number in range(150):
        refusals.note(f"host-{number}", "report", INVALID)
    assert len(caplog.records) == 100
    monkeypatch.setattr(time, "monotonic", lambda: now + hourly.HOUR_S - 10)
    refusals.note("host-0", "report", INVALID)
    assert len(caplog.records) == 100
    monkeypatch.setattr(time, "monotonic", lambda: now + hourly.HOUR_S + 10)
    refusals.note("host-0", "report", INVALID)
    assert len(caplog.records) == 101
    assert refusals.counts["report", "message_invalid"] == 152


@pytest.mark.parametrize("sender", ["", "a\nb\x1b[2J", "\ud800", "x" * 1000])
def test_a_line_contains_printable_characters_only(refusals, caplog, sender):
    refusals.note(sender, "report", INVALID)
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 400


@pytest.mark.parametrize(
    ("text", "most", "cleaned"),
    [
        ("", 5, ""),
        ("plain ä 漢", 20, "plain ä 漢"),
        ("12345", 5, "12345"),
        ("123456", 5, "12345"),
        ("a\tb\r\nc", 9, "a b  c"),
        ("\x00\x07\x1b\x7f\x9b", 9, "�" * 5),
        ("\ud800\u202e\u2028", 9, "�" * 3),
        ("ok\x00", 2, "ok"),
    ],
)
def test_foreign_text_is_made_printable(text, most, cleaned):
    assert clean(text, most) == cleaned
