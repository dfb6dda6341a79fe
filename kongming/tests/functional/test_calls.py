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
"""Calls between services: what comes of them when the other side is not there."""

import uuid

import oslo_messaging
import pytest

from kongming import exception
from kongming.bus.subscription import Subscription
from kongming.cmd import launch
from kongming.rpc.calls import CONDUCTOR, Caller, answers, get_transport, subscription
from kongming.tests.functional.test_service import wait_for
from kongming.tests.testbed.process import free_port


class Endpoint:
    """Answers as it is told to."""

    target = oslo_messaging.Target(version=CONDUCTOR.version)

    @answers
    def good(self, _context, number):
        return {"number": number}

    @answers
    def unable(self, _context):
        raise exception.DatabaseUnavailable("the database is away")

    def faulty(self, _context):
        raise ZeroDivisionError("a fault of ours")

    def odd(self, _context):
        return ["no", "object"]


def configured(tmp_path, url):
    path = tmp_path / "kongming.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = {url}\n")
    return launch.configure(["--config-file", str(path)])


@pytest.fixture
def transport(tmp_path):
    return get_transport(configured(tmp_path, f"fake:///{uuid.uuid4()}"))


@pytest.fixture
def caller(transport):
    listening = []
    served: Subscription = subscription(
        transport, CONDUCTOR, "here", [Endpoint()], lambda: listening.append(True)
    )
    served.start()
    wait_for(lambda: listening)
    yield Caller(transport, CONDUCTOR, exception.ConductorSilent, lambda: 10.0)
    served.stop(5)


def test_an_answer_is_given(caller):
    assert caller.call("good", number=5) == {"number": 5}
    assert caller.call("good", "here", number=6) == {"number": 6}


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("unable", "the database is away"),
        ("faulty", "a fault of ours"),
        ("odd", "answers with a list"),
    ],
)
def test_what_is_no_answer_is_told_as_silence_with_its_reason(caller, method, said):
    with pytest.raises(exception.ConductorSilent, match=said):
        caller.call(method)


def test_nobody_there_is_told_after_the_timeout(transport):
    caller = Caller(transport, CONDUCTOR, exception.HostSilent, lambda: 0.1)
    with pytest.raises(exception.HostSilent, match="of host nowhere does not answer"):
        caller.call("good", "nowhere", number=1)


def test_a_broker_that_is_away_is_not_waited_for(tmp_path):
    conf = configured(tmp_path, f"rabbit://guest:sesame@127.0.0.1:{free_port()}/")
    caller = Caller(get_transport(conf), CONDUCTOR, exception.ConductorSilent, lambda: 0.1)
    for _ in range(2):
        with pytest.raises(exception.ConductorSilent, match="does not answer"):
            caller.call("good", number=1)
        with pytest.raises(exception.ConductorSilent, match="can't be asked") as raised:
            caller.cast("good", number=1)
    assert "sesame" not in str(raised.value)


def test_a_wrong_url_is_told(tmp_path):
    with pytest.raises(exception.ConfigInvalid, match="transport_url"):
        get_transport(configured(tmp_path, "carrier-pigeon://loft/"))
