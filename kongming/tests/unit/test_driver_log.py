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

import ast
from importlib.util import find_spec
import logging
from pathlib import Path
import ssl
import time

import amqp
from amqp.exceptions import MessageNacked  # type: ignore[import-untyped]
from oslo_messaging import exceptions as oslo
from oslo_messaging import server
from oslo_messaging._drivers import amqpdriver, impl_rabbit
import pytest

from kongming.bus import reasons
from kongming.bus.driver_log import DriverLog
from kongming.bus.driver_messages import MEANINGS, Meaning, meaning
from kongming.bus.reasons import UNKNOWN, UNREACHABLE, explain, not_acknowledged
from kongming.tests import sources

DRIVER = logging.getLogger("oslo.messaging._drivers.impl_rabbit")
BROKER_UNREACHABLE = (
    "[%(connection_id)s] AMQP server on %(hostname)s:%(port)s is unreachable: %(err_str)s. "
    "Trying again in %(sleep_time)d seconds."
)
INFO = {"connection_id": "x", "hostname": "h", "port": 5672, "sleep_time": 1}
CONSUMING = "Failed to consume message from queue: %s"
TIMED_OUT = amqp.PreconditionFailed(
    "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: "
    "5000 ms. This timeout value can be configured, see consumers doc guide to learn more",
    (0, 0),
    "",
    406,
)
REFUSED = amqp.AccessRefused(
    "ACCESS_REFUSED - access to queue 'kongming.compute-1' in vhost '/' refused for user 'k'",
    (50, 10),
    "Queue.declare",
    403,
)
LOGIN = amqp.AccessRefused(
    "ACCESS_REFUSED - Login was refused using authentication mechanism AMQPLAIN. For details see "
    "the broker logfile.",
    (0, 0),
    "",
    403,
)
#: Their sources, and what each logs by.
SOURCES = {
    "oslo_messaging._drivers.impl_rabbit": "LOG",
    "oslo_messaging._drivers.amqpdriver": "LOG",
    "oslo_messaging._drivers.amqp": "LOG",
    "oslo_messaging._drivers.common": "LOG",
    "oslo_messaging._drivers.pool": "LOG",
    "oslo_messaging._drivers.base": "LOG",
    "oslo_messaging.server": "LOG",
    "oslo_messaging.transport": "LOG",
    "oslo_messaging.rpc.server": "LOG",
    "oslo_messaging.rpc.client": "LOG",
    "oslo_messaging.rpc.dispatcher": "LOG",
    "oslo_messaging.notify.listener": "LOG",
    "oslo_messaging.notify.dispatcher": "LOG",
    "kombu.connection": "logger",
    "kombu.common": "logger",
    "kombu.message": "logger",
    "kombu.entity": "logger",
    "amqp.channel": "AMQP_LOGGER",
    "amqp.abstract_channel": "AMQP_LOGGER",
    "amqp.connection": "AMQP_LOGGER",
}


class Taken:
    """What was taken of the driver's log."""

    def __init__(self, caplog):
        self._caplog = caplog
        self.undecodable = []
        self.troubles = []
        self.log = DriverLog(self.undecodable.append, self.troubles.append)

    @property
    def lines(self):
        return [(each.levelname, each.getMessage()) for each in self._caplog.records]


# RabbitMQ 4.0 says this.
TRANSIENT = """Feature `transient_nonexcl_queues` is deprecated.
Its use is not permitted per the configuration (overriding the default, which is permitted):
    "deprecated_features.permit.transient_nonexcl_queues = false\""""


@pytest.fixture
def taken(caplog):
    caplog.set_level(logging.INFO)
    taken = Taken(caplog)
    taken.log.install()
    yield taken
    taken.log.remove()


def raised(error):
    """An error as it is caught: with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


def logged(modules):
    """The beginnings of all that modules log from INFO on."""
    levels = {"info", "warning", "error", "exception", "critical"}
    for module, name in modules.items():
        path = Path(find_spec(module).origin)
        tree = ast.parse(path.read_text())
        constants = {
            each.targets[0].id: each.value
            for each in tree.body
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
        }
        for node in sources.walk(tree):
            function = getattr(node, "func", None)
            if not (isinstance(function, ast.Attribute) and function.attr in levels):
                continue
            if isinstance(function.value, ast.Name) and function.value.id == name:
                yield module, _text(node.args[0], constants)


def _text(node, constants):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return _text(node.values[0], constants)
    if isinstance(node, ast.BinOp):
        return _text(node.left, constants)
    if isinstance(node, ast.Name) and node.id in constants:
        return _text(constants[node.id], constants)
    return f"<{getattr(node, 'id', None) or ast.unparse(node.value)}>"


def test_every_message_that_the_libraries_may_log_has_a_meaning():
    texts = list(logged(SOURCES))
    assert len(texts) > 50
    unknown = [
        (module, text)
        for module, text in texts
        # Two are put together before: "Unable to connect ...", and one of endpoints.
        if text not in ("<msg>", "<errmsg>")
        and not any(text.startswith(start) for start in MEANINGS)
    ]
    assert unknown == []


def test_all_loggers_of_the_libraries_are_handled(taken):
    assert impl_rabbit.LOG.logger.name == DRIVER.name
    for log in (impl_rabbit.LOG.logger, amqpdriver.LOG, server.LOG, logging.getLogger("amqp")):
        assert taken.log in log.filters
    assert taken.log not in logging.getLogger("kongming.bus.driver_log").filters


def test_the_longest_beginning_counts():
    assert meaning("Exception in string format operation, x") is Meaning.ONE_LINE
    assert meaning("Failed to process message ... skipping it.") is Meaning.UNDECODABLE
    assert meaning("Failed to process incoming message, retrying..") is Meaning.NO_NEWS
    assert meaning("never heard of") is Meaning.ONE_LINE


def test_an_undecodable_message_is_counted_and_leaves_no_traceback(taken, caplog):
    caplog.set_level(logging.DEBUG)
    try:
        raise ValueError("the body, with a token")
    except ValueError:
        DRIVER.exception("Failed to process message ... skipping it.")
    assert taken.undecodable == ["undecodable (ValueError)"]
    assert "token" not in caplog.text
    assert not caplog.records


def test_the_reason_for_not_listening_is_passed_on_and_not_shown(taken):
    for error in (ConnectionRefusedError(111, "refused"), REFUSED):
        DRIVER.error(BROKER_UNREACHABLE, {**INFO, "err_str": error})
        DRIVER.error(CONSUMING, error)
        try:
            raise oslo.MessageDeliveryFailure("Unable to connect") from error
        except oslo.MessageDeliveryFailure:
            logging.getLogger("oslo_utils.excutils").exception(
                "Unexpected exception occurred %d time(s)... retrying.", 1
            )
    assert len(taken.troubles) == 6
    assert not taken.lines


def test_an_error_that_is_only_being_handled_counts_too(taken):
    try:
        raise ConnectionRefusedError(111, "refused")
    except ConnectionRefusedError as error:
        DRIVER.error("Connection failed: %s (retrying in %s seconds)", str(error), 1)
    assert [type(each) for each in taken.troubles] == [ConnectionRefusedError]
    assert not taken.lines


def test_a_fault_in_the_driver_s_thread_is_one_line(taken):
    try:
        raise RuntimeError("cannot schedule new futures")
    except RuntimeError:
        logging.getLogger("oslo_utils.excutils").exception(
            "Unexpected exception occurred %d time(s)... retrying.", 1
        )
    ((level, line),) = taken.lines
    assert level == "ERROR"
    assert line.endswith("retrying.: RuntimeError: cannot schedule new futures")
    assert not taken.troubles


def test_a_queue_that_rabbitmq_cancels_is_one_line_and_no_outage(taken, caplog):
    for error in (TIMED_OUT, raised(oslo.MessageDeliveryFailure("Unable to connect"))):
        error.__context__ = None if error is TIMED_OUT else TIMED_OUT
        DRIVER.error(CONSUMING, error)
        DRIVER.error(BROKER_UNREACHABLE, {**INFO, "err_str": error})
    amqpdriver.LOG.warning("Failed to acknowledge received message: %s", TIMED_OUT)
    ((level, line),) = taken.lines
    assert level == "WARNING"
    assert "not acknowledged within its consumer_timeout (5 s)" in line
    assert "Nothing is lost, they are delivered again" in line
    assert not taken.troubles
    assert "Traceback" not in caplog.text


def test_a_line_is_repeated_after_an_hour(taken, monkeypatch):
    DRIVER.error(CONSUMING, TIMED_OUT)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3599)
    DRIVER.error(CONSUMING, TIMED_OUT)
    assert len(taken.lines) == 1
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    DRIVER.error(CONSUMING, TIMED_OUT)
    assert len(taken.lines) == 2


def test_a_repetition_is_logged_at_debug_only(taken, caplog):
    for template, what in MEANINGS.items():
        if what is Meaning.NO_NEWS:
            record = logging.LogRecord("x", logging.ERROR, "f", 1, template, (), None)
            assert not taken.log.filter(record)
    assert not taken.lines
    caplog.set_level(logging.DEBUG)
    logging.getLogger("kombu.connection").critical("Couldn't ack %r, reason:%r", 1, OSError("x"))
    ((level, line),) = taken.lines
    assert (level, line.partition(", reason")[0]) == ("DEBUG", "kombu.connection: Couldn't ack 1")


BLOCKED = "The broker has blocked the connection: %s"
UNBLOCKED = "The broker has unblocked the connection"


def test_an_alarm_of_the_broker_is_logged_once_for_all_connections(taken):
    for _ in range(3):
        DRIVER.error(BLOCKED, "connection blocked, see broker logs")
    for _ in range(2):
        DRIVER.info(UNBLOCKED)
    (blocked, unblocked) = taken.lines
    assert blocked[0] == "WARNING"
    assert "accepts no messages: its memory or disk alarm is on" in blocked[1]
    assert unblocked == ("INFO", "RabbitMQ accepts messages again")


def test_the_next_alarm_is_logged_again(taken):
    for message in (BLOCKED, UNBLOCKED, BLOCKED, UNBLOCKED):
        DRIVER.error(message, *["why"] * message.count("%s"))
    assert [level for level, _ in taken.lines] == ["WARNING", "INFO", "WARNING", "INFO"]


def test_an_alarm_whose_end_was_missed_by_a_lost_connection_is_logged_after_an_hour(
    taken, monkeypatch
):
    DRIVER.error(BLOCKED, "why")
    now = time.monotonic()
    for later, lines in ((3590.0, 1), (3601.0, 2)):
        monkeypatch.setattr(time, "monotonic", lambda later=later: now + later)
        DRIVER.error(BLOCKED, "why")
        assert len(taken.lines) == lines


def test_a_conflicting_declaration_and_a_stuck_message_are_logged(taken):
    for _ in range(3):
        DRIVER.warning("Force creating a non durable exchange.")
    DRIVER.warning("Queue %s is stuck on unresponsive node. Error info: %s", "q", REFUSED)
    (otherwise, stuck) = taken.lines
    assert "amqp_durable_queues or rabbit_quorum_queue and is used unchanged" in otherwise[1]
    assert stuck[1].startswith("The queue q is on an unavailable node of RabbitMQ")


def test_an_error_in_handling_is_one_line_and_its_traceback_is_debug(taken, caplog):
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("oslo_messaging.rpc.server")
    for _ in range(2):
        try:
            raise KeyError("x")
        except KeyError:
            log.exception("Exception during message handling")
    logged = [each for each in caplog.records if each.levelno > logging.DEBUG]
    (line,) = logged
    assert line.getMessage().endswith("Exception during message handling: KeyError: 'x'")
    assert line.exc_info is None
    assert "Traceback" in caplog.text


def test_an_unknown_message_is_one_line_at_its_level(taken):
    logging.getLogger("amqp").error("Something %s", "else\nentirely")
    DRIVER.info("[%s] Something new", "x")
    assert taken.lines == [
        ("ERROR", r"amqp: Something else\nentirely"),
        ("INFO", "oslo.messaging._drivers.impl_rabbit: [x] Something new"),
    ]


def test_the_debug_log_of_the_driver_is_written_on_request(taken, caplog):
    caplog.set_level(logging.DEBUG)
    DRIVER.setLevel(logging.DEBUG)
    try:
        DRIVER.debug("Received recoverable error from kombu:", exc_info=raised(OSError("x")))
    finally:
        DRIVER.setLevel(logging.NOTSET)
    (record,) = caplog.records
    assert (record.name, record.levelname) == (DRIVER.name, "DEBUG")


def test_a_logger_that_is_no_longer_handled_logs_as_before(caplog):
    caplog.set_level(logging.INFO)
    first, second = DriverLog(), DriverLog()
    for log in (first, second):
        log.install()
    first.remove()
    DRIVER.error("Failed to publish message to topic '%s'", "x")
    logged = len(caplog.records)
    second.remove()
    DRIVER.error("Failed to publish message to topic '%s'", "x")
    assert (logged, len(caplog.records)) == (0, 1)


def verification(message):
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_message = message
    return error


@pytest.mark.parametrize(
    ("error", "kind", "of_connection", "words"),
    [
        (ConnectionRefusedError(111, "x"), UNREACHABLE, True, "is RabbitMQ running"),
        (ConnectionResetError(104, "x"), UNREACHABLE, True, "was lost"),
        (TimeoutError("timed out"), UNREACHABLE, True, "no answer in time"),
        (OSError("Socket closed"), UNREACHABLE, True, "was lost"),
        (amqp.RecoverableConnectionError("x"), UNREACHABLE, True, "was lost"),
        (amqp.ConnectionForced("by me", (0, 0), "", 320), UNREACHABLE, True, "closed .*by me"),
        (__import__("socket").gaierror(-2, "x"), "name", True, "host name can't be resolved"),
        (LOGIN, "login", True, "user or the password"),
        (amqp.NotAllowed("vhost v not found", (10, 40), "", 530), "access", True, "v not found"),
        (REFUSED, "permission", False, "kongming.compute-1.*permissions in this vhost"),
        (amqp.NotFound("no exchange 'x'", (40, 10), "", 404), "missing", False, "no exchange"),
        (amqp.ResourceLocked("x", (50, 10), "", 405), "locked", False, "exclusively"),
        (
            amqp.PreconditionFailed("inequivalent arg 'durable'", (50, 10), "", 406),
            "precondition",
            False,
            "amqp_durable_queues and rabbit_quorum_queue as they were when it was declared",
        ),
        (
            amqp.InternalError("x", (50, 10), "", 541),
            "internal",
            False,
            "internal error; see its log",
        ),
        (
            amqp.InternalError(TRANSIENT, (50, 10), "", 541),
            "not_durable",
            False,
            "accepts only durable queues: .* rabbit_quorum_queue = true",
        ),
        (verification("self-signed certificate"), "certificate", True, "self-signed.*ssl_ca_file"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x"), "tls", True, "the TLS handshake fails"),
        (FileNotFoundError(2, "No such file"), "tls_file", True, "ssl_ca_file"),
        (
            PermissionError(13, "No"),
            "tls_file",
            True,
            "run 'kongming-status upgrade check' as this user",
        ),
        (MessageNacked(), "rejected", False, "accepts no more messages.*reject-publish"),
        (ValueError("two\nlines"), UNKNOWN, True, "ValueError: two lines"),
    ],
)
def test_each_error_has_our_words(error, kind, of_connection, words):
    reason = explain(error)
    assert (reason.kind, reason.of_connection) == (kind, of_connection)
    assert __import__("re").search(words, reason.words)


@pytest.mark.parametrize(
    ("argument", "what", "hint"),
    [
        ("type", "exchange 'nova'", "another service declared it"),
        ("durable", "exchange 'nova'", "amqp_durable_queues and rabbit_quorum_queue as they"),
        ("durable", "queue 'kongming.h1'", "amqp_durable_queues and rabbit_quorum_queue as they"),
        ("auto_delete", "exchange 'nova'", "amqp_auto_delete as they"),
        ("type", "queue 'kongming.h1'", "amqp_durable_queues and rabbit_quorum_queue as they"),
        ("x-queue-type", "queue 'kongming.h1'", "rabbit_transient_quorum_queue"),
        ("x-expires", "queue 'reply_h1'", "rabbit_transient_queues_ttl as they were"),
    ],
)
def test_a_conflicting_declaration_is_logged_with_the_option_that_decides_it(argument, what, hint):
    text = (
        f"inequivalent arg '{argument}' for {what} in vhost '/': received 'a' but current is 'b'"
    )
    words = explain(amqp.PreconditionFailed(text, (40, 10), "", 406)).words
    assert text[:60] in words
    assert hint in words


def test_the_most_specific_error_of_a_chain_counts():
    outer = oslo.MessageDeliveryFailure("Unable to connect after inf tries")
    outer.__context__ = amqp.RecoverableConnectionError("x")
    assert explain(outer).kind == UNREACHABLE
    outer.__context__.__cause__ = REFUSED
    assert explain(outer).kind == "permission"
    # oslo.messaging hides it in an attribute.
    assert explain(server.ServerListenError("target", LOGIN)).kind == "login"
    REFUSED.__cause__ = outer
    assert explain(outer).kind == "permission"
    REFUSED.__cause__ = None


def test_only_the_acknowledgement_timeout_is_recognized_as_such():
    assert not_acknowledged(TIMED_OUT) == 5.0
    assert not_acknowledged(REFUSED) is None
    other = amqp.PreconditionFailed("inequivalent arg", (0, 0), "", 406)
    assert not_acknowledged(other) is None
    no_value = Exception("delivery acknowledgement on channel 7 timed out")
    assert not_acknowledged(no_value) == 0.0


def test_reasons_are_short_and_on_one_line():
    text = "x" * 5_000 + "\n"
    assert len(explain(Exception(text)).words) < 300
    assert reasons.explain(Exception("a\n\n b")).words == "Exception: a b"
