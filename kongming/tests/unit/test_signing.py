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

"""Signatures: what proves who sent a call, and what does not."""

import json
import time

import pytest

from kongming import exception
from kongming.rpc import keys, signing
from kongming.rpc.keys import Keys
from kongming.rpc.signing import SIGNATURE, Signer

MASTER = bytes(range(32))
NEXT = bytes(range(32, 64))
ARGUMENTS = {
    "host": "compute-1",
    "number": 1.5,
    "text": "ä\ud800",
    "nested": {"b": [1], "a": None},
}


def controller(*masters, **options):
    return Signer(Keys(masters or [MASTER]), None, **options)


def host(name="compute-1", *masters, **options):
    own = [keys.derive(master, name) for master in masters or [MASTER]]
    return Signer(Keys(hosts={name: own}), name, **options)


def over_the_bus(value):
    return json.loads(json.dumps(value))


def signed(signer=None, to=None, method="report", arguments=None):
    signer = signer or host()
    return over_the_bus(signer.sign(to, method, arguments or ARGUMENTS).to_json())


def refused(signer, signature, method="report", arguments=None):
    with pytest.raises(exception.SignatureInvalid) as raised:
        signer.check(signature, method, over_the_bus(arguments or ARGUMENTS))
    return str(raised.value)


def test_a_host_proves_itself_to_a_controller_and_the_other_way_round():
    assert controller().check(signed(), "report", over_the_bus(ARGUMENTS)).by == "compute-1"
    pushed = signed(controller(), "compute-1", "desired")
    assert host().check(pushed, "desired", over_the_bus(ARGUMENTS)).by is None
    question = signed(controller(), None, "plan")
    assert controller().check(question, "plan", over_the_bus(ARGUMENTS)).by is None


@pytest.mark.parametrize("field", ["by", "to", "at", "nonce", "mac"])
def test_a_signature_covers_all_its_fields(field):
    other = {
        "by": "compute-2",
        "to": None,
        "at": time.time() + 1,
        "nonce": "0" * 32,
        "mac": "0" * 64,
    }
    signature = signed(controller(), "compute-1", "desired")
    changed = signature | {field: other[field]}
    assert refused(host(), changed, "desired")
    with pytest.raises(exception.SignatureInvalid):
        controller().check(signed() | {field: other[field]}, "snapshot", over_the_bus(ARGUMENTS))


def test_a_signature_covers_the_call():
    assert "not that of compute-1" in refused(controller(), signed(), "snapshot")
    changed = {**ARGUMENTS, "host": "compute-2"}
    assert "not that of compute-1" in refused(controller(), signed(), arguments=changed)


def test_a_host_signs_only_in_its_name():
    forged = signed(host("compute-2")) | {"by": "compute-1"}
    assert "not that of compute-1" in refused(controller(), forged)
    # It knows its own key, which controllers use to speak to it.
    as_controller = signed(host("compute-2")) | {"by": None}
    assert refused(controller(), as_controller)


def test_a_host_receives_no_messages_of_other_hosts_or_for_other_receivers():
    assert "not for this service" in refused(host(), signed(host("compute-2"), "compute-1"))
    assert "not for this service" in refused(host(), signed(controller(), "compute-2"))
    assert "not for this service" in refused(host(), signed(controller(), None))
    assert "not for this service" in refused(host(), signed(host(), "compute-1"))
    assert "not for this service" in refused(controller(), signed(controller(), "compute-1"))


@pytest.mark.parametrize("signature", [None, 5, "x", [], {}, {"by": None}, {"by": 5, "to": 5}])
def test_an_invalid_signature_is_refused(signature):
    assert refused(controller(), signature)


@pytest.mark.parametrize("mac", ["", "ä" * 64, "0" * 64, "f" * 32])
def test_a_code_that_does_not_fit_is_refused(mac):
    assert refused(controller(), signed() | {"mac": mac})


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(299.0, None), (301.0, "s ago by the clock of compute-1"), (-299.0, None), (-301.0, "ahead")],
)
def test_a_call_is_accepted_only_for_some_minutes(monkeypatch, seconds, expected):
    now = time.time()
    signature = signed()
    monkeypatch.setattr(time, "time", lambda: now + seconds)
    if expected is None:
        assert controller().check(signature, "report", over_the_bus(ARGUMENTS))
    else:
        assert expected in refused(controller(), signature)


def test_a_call_is_accepted_once(monkeypatch):
    now, signature = time.monotonic(), signed()
    taking = controller()
    assert taking.check(signature, "report", over_the_bus(ARGUMENTS))
    assert "received before" in refused(taking, signature)
    assert taking.check(signed(), "report", over_the_bus(ARGUMENTS))
    # Remembered for longer than its time may differ from the receiver's.
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * signing.WINDOW_S + 10)
    assert "received before" in refused(taking, signature)


def test_the_number_of_remembered_calls_is_bounded(monkeypatch):
    monkeypatch.setattr(signing, "_NONCES_MAX", 10)
    taking = controller()
    for _ in range(100):
        taking.check(signed(), "report", over_the_bus(ARGUMENTS))
    (remembered,) = taking._nonces.values()
    assert len(remembered._new) + len(remembered._old) <= 24


def test_a_call_that_another_sender_remembers_is_never_forgotten_early(monkeypatch):
    monkeypatch.setattr(signing, "_NONCES_MAX", 10)
    taking, once = controller(), signed()
    taking.check(once, "report", over_the_bus(ARGUMENTS))
    for _ in range(100):
        taking.check(signed(host("compute-2")), "report", over_the_bus(ARGUMENTS))
    assert "received before" in refused(taking, once)


def test_unsigned_calls_count_only_while_signatures_are_not_required():
    assert controller(required=False).check(None, "report", ARGUMENTS) is None
    assert "not signed" in refused(controller(), None)
    assert refused(controller(required=False), signed() | {"mac": "0" * 64})


def test_the_order_of_fields_is_of_no_consequence():
    turned = dict(reversed(list(over_the_bus(ARGUMENTS).items())))
    assert controller().check(signed(), "report", turned)


def test_an_answer_fits_its_question_only():
    asking, answering = host(), controller()
    question, other = (asking.sign(None, "report", ARGUMENTS) for _ in range(2))
    answer = {"desired": {"x": 1.5}}
    answer |= {SIGNATURE: answering.sign_answer(question, answer)}
    asking.check_answer(question, over_the_bus(answer))
    for forged, expected in (
        ({**answer, "desired": {}}, "signature of the answer is wrong"),
        ({**answer, "more": 1}, "signature of the answer is wrong"),
        ({**answer, SIGNATURE: 5}, "signature of the answer is wrong"),
        ({"desired": {"x": 1.5}}, "answer is not signed"),
    ):
        with pytest.raises(exception.SignatureInvalid, match=expected):
            asking.check_answer(question, over_the_bus(forged))
    with pytest.raises(exception.SignatureInvalid, match="wrong"):
        asking.check_answer(other, over_the_bus(answer))
    host(required=False).check_answer(question, {"desired": {}})
    with pytest.raises(exception.SignatureInvalid, match="wrong"):
        host(required=False).check_answer(question, {**answer, "desired": {}})


def test_keys_are_changed_without_a_gap():
    # The next key is accepted before it signs, and the former one afterwards.
    before, between, after = [MASTER], [MASTER, NEXT], [NEXT, MASTER]
    for theirs, ours in ((before, between), (between, between), (after, between), (after, after)):
        signature = signed(host("compute-1", *theirs))
        assert controller(*ours).check(signature, "report", over_the_bus(ARGUMENTS))
        pushed = signed(controller(*ours), "compute-1")
        assert host("compute-1", *theirs, *before).check(pushed, "report", over_the_bus(ARGUMENTS))
    assert refused(controller(NEXT), signed())


def test_each_host_has_a_separate_key_and_so_have_the_controllers():
    found = {keys.derive(MASTER, name) for name in ("a", "b", "None", None)}
    found |= {keys.derive(NEXT, "a"), MASTER}
    assert len(found) == 6
    assert len(keys.new_master()) == 32
    assert keys.new_master() != keys.new_master()


@pytest.mark.parametrize("name", [None, "compute-1", "c_1.example.org"])
def test_a_key_file_has_the_written_keys(tmp_path, name):
    path = tmp_path / "rpc.key"
    own = [MASTER if name is None else keys.derive(MASTER, name), NEXT]
    path.write_text("# first\n" + "".join(f"{keys.written(key, name)}\n" for key in own) + "\n")
    found = keys.read(str(path), name)
    if name is None:
        assert found.of("x") == (keys.derive(MASTER, "x"), keys.derive(NEXT, "x"))
        assert found.of(None) == (keys.derive(MASTER, None), keys.derive(NEXT, None))
    else:
        assert found.of(name) == tuple(own)
        assert found.of("another") == ()


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", None, "it has no key"),
        ("# none\n", "compute-1", "it has no key"),
        ("master 00\n", None, "line 1: not a key"),
        (f"\nmaster {'g' * 64}\n", None, "line 2: not a key"),
        (f"host compute 1 {'0' * 64}\n", "compute-1", "not a key"),
        (f"host compute-2 {'0' * 64}\n", "compute-1", "key of host compute-2"),
        (f"host compute-1 {'0' * 64}\n", None, "need the master key"),
        (f"master {'0' * 64}\n", "compute-1", "no compute host may hold"),
        ("ä", None, "not ASCII text"),
        (None, None, "No such file"),
    ],
)
def test_an_unusable_key_file_is_reported_without_quoting_a_key(tmp_path, text, name, expected):
    path = tmp_path / "rpc.key"
    if text is not None:
        path.write_text(text)
    with pytest.raises(exception.ConfigInvalid, match=expected) as raised:
        keys.read(str(path), name)
    assert str(path) in str(raised.value)
    assert "0" * 64 not in str(raised.value)
