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

"""What the RabbitMQ driver logs, as the operator reads it."""

import logging

from oslo_messaging._drivers import amqpdriver, impl_rabbit
import pytest

from kongming.bus import driver_log

DRIVER = logging.getLogger(driver_log.DRIVER)
AWAY = "[%(id)s] AMQP server on %(host)s is unreachable: %(err)s. Trying again in 1 seconds."


@pytest.fixture
def undecodable(caplog):
    caplog.set_level(logging.INFO)
    kinds = []
    log = driver_log.DriverLog(kinds.append)
    log.install()
    yield kinds
    log.remove()


def test_it_listens_to_the_loggers_that_the_driver_uses():
    assert impl_rabbit.LOG.logger.name == driver_log.DRIVER
    assert amqpdriver.LOG.name == driver_log.LISTENER


def test_an_undecodable_message_is_counted_and_leaves_no_traceback(undecodable, caplog):
    try:
        raise ValueError("the body, with a token")
    except ValueError:
        DRIVER.exception("Failed to process message ... skipping it.")
    assert undecodable == ["undecodable (ValueError)"]
    assert "token" not in caplog.text
    assert not caplog.records


def test_a_broker_that_is_away_is_told_of_once_until_it_is_back(undecodable, caplog):
    for _ in range(3):
        DRIVER.error(AWAY, {"id": "x", "host": "127.0.0.1:5672", "err": "refused"})
    DRIVER.info("[%s] Reconnected to AMQP server on %s", "x", "y")
    DRIVER.info("[%s] Reconnected to AMQP server on %s", "x", "y")
    DRIVER.error("Connection failed: %s (retrying in %s seconds)", "refused", 2)
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in levels] == ["WARNING", "INFO", "WARNING"]
    assert "127.0.0.1:5672 is unreachable: refused" in levels[0][1]
    assert levels[1][1] == "RabbitMQ is back, listening again"


def test_everything_else_is_left_alone(undecodable, caplog):
    DRIVER.error("Something %s", "else")
    assert [record.getMessage() for record in caplog.records] == ["Something else"]


def test_that_it_is_back_is_heard_whatever_the_operator_wants_to_read(caplog):
    DRIVER.setLevel(logging.ERROR)
    log = driver_log.DriverLog(lambda _what: None)
    log.install()
    try:
        DRIVER.error(AWAY, {"id": "x", "host": "127.0.0.1:5672", "err": "refused"})
        assert log.away
        DRIVER.info("Something else")
        DRIVER.warning("Something else")
        DRIVER.info("[%s] Reconnected to AMQP server on %s", "x", "y")
        assert not log.away
        assert "Something else" not in caplog.text
    finally:
        log.remove()
        assert DRIVER.level == logging.ERROR
        DRIVER.setLevel(logging.NOTSET)
