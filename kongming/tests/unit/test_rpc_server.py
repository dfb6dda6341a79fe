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

"""The server's side of calls: what reaches a method, and what is answered to the rest."""

import json
import logging
from types import SimpleNamespace

import pytest

from kongming import exception
from kongming.rpc import keys
from kongming.rpc.keys import Keys
from kongming.rpc.messages import Acknowledgement, Changed, Reports
from kongming.rpc.refusals import Refusals
from kongming.rpc.server import Method, Server
from kongming.rpc.signing import SIGNATURE, Signer
from kongming.tests.databases import instance, report

MASTER = bytes(32)
CHANGED = {"instance_uuids": [instance()]}
REPORTS = {"host": "compute-1", "reports": [report(instance(), changed_at=1e9).to_json()]}


def controller(**options):
    return Signer(Keys([MASTER]), None, **options)


def host(name="compute-1"):
    return Signer(Keys(hosts={name: [keys.derive(MASTER, name)]}), name)


class Service:
    """Keeps what reached its methods."""

    def __init__(self, signer=None, error=None):
        self.taken, self.refusals, self._error = [], Refusals(), error
        methods = {
            "changed": Method(Changed, self._take),
            "report": Method(Reports, self._answer, by_host=True),
        }
        self.server = Server(methods, signer, self.refusals)

    def _take(self, message):
        self.taken.append(message)
        if self._error is not None:
            raise self._error

    def _answer(self, message):
        self._take(message)
        return Acknowledgement(message.left_out)

    def call(self, method, arguments, signature=None, **more):
        context = {} if signature is None else {SIGNATURE: signature.to_json()}
        sent = {"method": method, "args": arguments, "version": "1.0", **more}
        incoming = SimpleNamespace(message=json.loads(json.dumps(sent)), ctxt=context)
        return self.server.dispatch(incoming)


def test_a_readable_message_reaches_its_method_and_is_answered():
    service = Service()
    assert service.call("changed", CHANGED) == {}
    assert service.call("report", REPORTS) == {"refused": []}
    assert [type(each) for each in service.taken] == [Changed, Reports]
    assert service.refusals.counts == {}


def test_a_bad_item_is_counted_and_named_and_the_rest_is_accepted():
    service = Service()
    arguments = {"host": "compute-1", "reports": [5, *REPORTS["reports"]]}
    (refusal,) = service.call("report", arguments)["refused"]
    assert (refusal["field"], refusal["key"]) == ("reports", "[0]")
    assert len(service.taken[0].reports) == 1
    assert service.refusals.counts == {("report", "message_invalid"): 1}


@pytest.mark.parametrize(
    ("method", "arguments", "more", "kind"),
    [
        ("nothing", {}, {}, "other"),
        (None, {}, {}, "other"),
        (["report"], {}, {}, "other"),
        ("_take", {}, {}, "other"),
        ("report", {}, {}, "report"),
        ("report", None, {}, "report"),
        ("report", [REPORTS], {}, "report"),
        ("report", REPORTS, {"version": "2.0"}, "report"),
        ("report", REPORTS, {"version": "11.0"}, "report"),
        ("report", REPORTS, {"version": None}, "report"),
    ],
)
def test_an_unreadable_message_is_refused_and_reaches_no_method(
    caplog, method, arguments, more, kind
):
    service = Service()
    assert service.call(method, arguments, **more)["error"]["reason"] == "message_invalid"
    assert service.taken == []
    assert service.refusals.counts == {(kind, "message_invalid"): 1}
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)


@pytest.mark.parametrize("version", ["1.0", "1.7"])
def test_later_minor_versions_are_understood(version):
    assert Service().call("report", REPORTS, version=version) == {"refused": []}


def test_a_message_nested_too_deep_to_be_signed_is_refused(monkeypatch):
    service = Service(controller())

    def check(*_arguments):
        raise RecursionError

    monkeypatch.setattr(Signer, "check", check)
    assert service.call("report", REPORTS)["error"]["reason"] == "message_invalid"
    assert service.refusals.counts == {("report", "message_invalid"): 1}


@pytest.mark.parametrize(
    ("error", "reason", "traceback"),
    [
        (exception.DatabaseUnavailable("away"), "database_unavailable", False),
        (ZeroDivisionError("ours"), "internal_error", True),
    ],
)
def test_an_error_is_an_answer(caplog, error, reason, traceback):
    service = Service(error=error)
    answer = service.call("report", REPORTS)
    assert answer["error"]["reason"] == reason
    assert bool(caplog.records) is traceback
    assert service.refusals.counts == {}


def test_an_answer_does_not_pass_on_the_message_of_a_driver():
    error = exception.DatabaseUnavailable("it says 'x of y'; check it", "check it")
    assert str(error) == "it says 'x of y'; check it"
    answer = Service(error=error).call("report", REPORTS)
    assert answer["error"] == {"reason": "database_unavailable", "message": "check it"}


def test_the_signer_must_be_a_permitted_caller():
    for signer, to_report, to_change in (
        (host(), True, False),
        (host("compute-2"), False, False),
        (controller(), False, True),
    ):
        for method, arguments, taken in (
            ("report", REPORTS, to_report),
            ("changed", CHANGED, to_change),
        ):
            service = Service(controller())
            answer = service.call(method, arguments, signer.sign(None, method, arguments))
            assert bool(service.taken) is taken
            assert (answer.get("error", {}).get("reason") is None) is taken
            assert bool(service.refusals.counts[method, "signature_invalid"]) is not taken


def test_answers_are_signed_if_their_questions_were():
    service = Service(controller(required=False))
    asking = host()
    for arguments in (REPORTS, {"host": "compute-1"}):
        question = asking.sign(None, "report", arguments)
        answer = service.call("report", arguments, question)
        asking.check_answer(question, answer)
        assert SIGNATURE not in service.call("report", arguments)


def test_without_keys_no_answer_is_signed():
    question = host().sign(None, "report", REPORTS)
    assert Service().call("report", REPORTS, question) == {"refused": []}


def test_an_unsigned_message_is_refused_unless_signatures_are_optional():
    service = Service(controller())
    assert service.call("report", REPORTS)["error"]["reason"] == "signature_invalid"
    assert service.taken == []
    service = Service(controller(required=False))
    assert service.call("report", REPORTS) == {"refused": []}
    wrong = host("compute-2").sign(None, "report", CHANGED)
    assert service.call("report", REPORTS, wrong)["error"]["reason"] == "signature_invalid"
