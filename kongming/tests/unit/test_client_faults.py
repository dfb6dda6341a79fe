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
"""Faults of requests: which ones pass, which ones leave the outcome of a change unknown."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
import errno
import socket
import ssl
from types import SimpleNamespace
from typing import Any

from keystoneauth1 import exceptions as keystone
import pytest
import requests
from urllib3 import exceptions as urllib3

from kongming.client import responses
from kongming.client.responses import Fault


@pytest.mark.parametrize(
    ("status", "code", "passing", "unknown"),
    [
        (None, "", True, True),
        (200, "", True, True),
        (302, "", True, True),
        (400, "", True, False),
        (401, "", True, False),
        (404, "", True, False),
        (499, "", True, False),
        (502, "", True, True),
        (400, "request_invalid", False, False),
        (401, "unauthenticated", False, False),
        (403, "forbidden", False, False),
        (404, "map_unknown", False, False),
        (408, "x", True, False),
        (409, "generation_conflict", False, False),
        (425, "x", True, False),
        (426, "x", False, False),
        (429, "x", True, False),
        (499, "x", False, False),
        (500, "internal_error", True, True),
        (503, "database_unavailable", True, True),
        (503, "identity_unavailable", True, False),
    ],
)
def test_each_status_code_has_a_meaning(status, code, passing, unknown):
    fault = Fault("x", status=status, code=code)
    assert (fault.passing, fault.outcome_unknown) == (passing, unknown)
    assert not Fault("x", status=status, code=code, sent=False).outcome_unknown


def answer(status, body=None, **headers):
    def read():
        if isinstance(body, Exception):
            raise body
        return body

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(status_code=status, json=read, headers=named, url="http://api/v1")


def error(**fields):
    return {"errors": [{"code": "busy", "detail": "try again", **fields}]}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (409, error(), "busy: try again (HTTP 409)"),
        (499, error(request_id="req-1"), "busy: try again (HTTP 499)"),
        (500, error(request_id="req-1"), "busy: try again (req-1) (HTTP 500)"),
        (503, error(), "busy: try again (HTTP 503)"),
    ],
)
def test_an_error_of_kongming_is_shown_with_its_code(status, body, expected):
    fault = responses.of_answer(answer(status, body))
    assert (str(fault), fault.code, fault.status_code) == (expected, "busy", status)


@pytest.mark.parametrize(
    "body",
    [
        ValueError(),
        RecursionError(),
        None,
        [],
        "x",
        {},
        {"errors": []},
        {"errors": [{}]},
        {"errors": ["x"]},
        {"errors": 5},
        {"error": {"code": 401, "message": "of Keystone"}},
    ],
    ids=str,
)
def test_an_error_of_another_service_is_shown_as_such(body):
    fault = responses.of_answer(answer(404, body))
    assert str(fault).startswith(
        "http://api/v1 responds with HTTP 404 Not Found, not in the form of Kong"
    )
    assert (fault.code, fault.status_code) == ("", 404)
    assert "HTTP 799," in str(responses.of_answer(answer(799, body)))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0", 0), ("7", 7), ("1.5", 1.5), ("-3", 0), ("soon", 0), ("nan", 0), ("inf", 0), ("", 0)],
)
def test_the_retry_delay_may_be_in_seconds(written, seconds):
    assert responses.of_answer(answer(429, error(), Retry_After=written)).retry_after == seconds
    assert responses.of_answer(answer(429, None, Retry_After=written)).retry_after == seconds
    assert responses.of_answer(answer(429)).retry_after == 0


def test_the_retry_delay_may_be_a_date():
    moment = datetime.now(UTC) + timedelta(hours=1)
    for written in (format_datetime(moment), format_datetime(moment.replace(tzinfo=None))):
        found = responses.of_answer(answer(429, Retry_After=written)).retry_after
        assert 3500 < found <= 3600
    assert (
        responses.of_answer(answer(429, Retry_After=format_datetime(moment.min))).retry_after == 0
    )


def failed(kind, cause):
    """An exception as keystoneauth makes it: of what requests made of what happened."""
    try:
        try:
            raise requests.exceptions.ConnectionError(cause)
        except requests.exceptions.ConnectionError:
            raise kind("in the library's words") from None
    except keystone.ClientException as error:
        return error


POOL: Any = None
UNTRUSTED = ssl.SSLCertVerificationError(1, "x")
UNTRUSTED.verify_message = "self-signed certificate"
REFUSED = urllib3.NewConnectionError(POOL, "x")
REFUSED.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "x")


@pytest.mark.parametrize(
    ("cause", "expected", "sent"),
    [
        (urllib3.MaxRetryError(POOL, "/", REFUSED), "connection refused", False),
        (urllib3.ProtocolError("x", ConnectionResetError(errno.ECONNRESET, "x")), "reset", True),
        (urllib3.IncompleteRead(3, 5), "the response was cut off", True),
        (urllib3.ReadTimeoutError(POOL, "/", "x"), "no response within 1.5 s", True),
        (urllib3.ConnectTimeoutError(POOL, "x"), "no response within 1.5 s", False),
        (socket.gaierror(-2, "x"), "its name can't be resolved", False),
        (ssl.SSLError(1, "x"), "its port does not support the TLS", False),
        (UNTRUSTED, "its certificate is not trusted (self-signed certificate)", False),
    ],
)
def test_the_reason_for_a_missing_answer_is_explained(cause, expected, sent):
    fault = responses.of_exception(failed(keystone.ConnectFailure, cause), 1.5)
    assert str(fault).startswith("Kongming's API can't be reached: ")
    assert expected in str(fault)
    assert "library" not in str(fault)
    assert (fault.sent, fault.passing, fault.outcome_unknown) == (sent, True, sent)


@pytest.mark.parametrize(
    ("url", "who", "sent"),
    [
        ("http://keystone/v3/auth/tokens", "Keystone can't be reached: ", False),
        ("http://keystone/identity/v2.0/tokens?x=y", "Keystone can't be reached: ", False),
        ("http://api/v1/allocation-maps/tokens-1", "Kongming's API can't be reached: ", True),
    ],
)
def test_the_unreachable_service_is_named(url, who, sent):
    cause = requests.exceptions.ConnectionError(urllib3.IncompleteRead(3, 5))
    cause.request = SimpleNamespace(url=url)
    fault = responses.of_exception(failed(keystone.ConnectFailure, cause), 1)
    assert str(fault).startswith(who)
    assert fault.outcome_unknown is sent


def test_a_keystone_whose_versions_can_not_be_read_is_unreachable():
    try:
        raise failed(keystone.ConnectFailure, urllib3.NewConnectionError(POOL, "x"))
    except keystone.ConnectFailure as failure:
        error = keystone.DiscoveryFailure(f"could not find versions: {failure}")
        error.__context__ = failure
    fault = responses.of_exception(error, 1)
    assert str(fault).startswith("Keystone can't be reached: ")
    assert not fault.outcome_unknown


@pytest.mark.parametrize(
    "kind", [requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema]
)
def test_an_invalid_address_is_reported_as_such(kind):
    fault = responses.of_exception(keystone.UnknownConnectionError("x", kind("x")), 1)
    assert str(fault).endswith("is neither http nor https")
    assert not fault.outcome_unknown


@pytest.mark.parametrize(
    ("raised", "expected", "status"),
    [
        (keystone.Unauthorized(), "Keystone refuses to issue a token (HTTP 401", 401),
        (keystone.ServiceUnavailable(), "Keystone is unavailable (HTTP 503", 503),
        (keystone.MissingAuthPlugin(), "Keystone provides no token or no endpoint", None),
    ],
)
def test_a_client_without_a_token_has_sent_no_request(raised, expected, status):
    fault = responses.of_exception(raised, 1)
    assert str(fault).startswith(expected)
    assert (fault.status_code, fault.outcome_unknown) == (status, False)


def test_a_call_returns_its_result_and_raises_its_error():
    assert responses.bounded(lambda: 5, 30) == 5
    with pytest.raises(KeyError):
        responses.bounded(lambda: {}["x"], 30)


def test_a_call_without_remaining_time_is_not_made():
    made = []
    with pytest.raises(Fault) as raised:
        responses.bounded(lambda: made.append(1), 0)
    assert (made, raised.value.sent, raised.value.outcome_unknown) == ([], False, False)


def test_a_call_that_takes_too_long_may_have_been_carried_out():
    ending = socket.socketpair()
    with pytest.raises(Fault, match="no response within 0.01 s") as raised:
        responses.bounded(lambda: ending[0].recv(1), 0.01)
    assert raised.value.outcome_unknown
    for each in ending:
        each.close()
