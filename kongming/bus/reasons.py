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

"""The reasons why RabbitMQ can't be used, in words that name the way out.

The texts of the libraries name their operation, seldom the cause, and never the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import re
import socket
import ssl

import amqp
from amqp.exceptions import MessageNacked  # type: ignore[import-untyped]

#: RabbitMQ can't be reached; the service waits for it.
UNREACHABLE = "unreachable"
#: A file of TLS can't be read.
TLS_FILE = "tls_file"
#: A queue has reached its length limit.
REJECTED = "rejected"
#: The cause is unknown.
UNKNOWN = "unknown"

_TIMED_OUT = re.compile(r"delivery acknowledgement on channel .* timed out", re.DOTALL)
_MILLISECONDS = re.compile(r"Timeout value used: ([0-9]{1,12}) ms")
_TEXT = 200

_INEQUIVALENT = re.compile(r"inequivalent arg '([\w-]+)' for (exchange|queue)")
# The options that set an argument of a queue or an exchange.
_DECLARED_BY = {
    "durable": "amqp_durable_queues and rabbit_quorum_queue",
    "auto_delete": "amqp_auto_delete",
    "x-": "rabbit_quorum_queue, rabbit_transient_quorum_queue and rabbit_transient_queues_ttl",
}
_USER = "check user, password and vhost in transport_url"
# By the reply code of AMQP: kind, words, and whether the connection fails.
_BY_CODE = {
    320: (UNREACHABLE, "it closed the connection", True),
    402: ("access", "it rejects connections of this user", True),
    403: ("permission", "a permission is missing", False),
    404: ("missing", "the exchange, queue or vhost does not exist", False),
    405: ("locked", "another connection uses the queue exclusively", False),
    406: ("precondition", "the exchange or queue exists with other properties", False),
    530: ("access", "it rejects connections of this user", True),
    541: ("internal", "it reports an internal error; see its log", False),
}


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why RabbitMQ can't be used.

    :ivar kind: equal for reasons with the same way out.
    :ivar words: the problem and the way out, for the operator.
    :ivar of_connection: whether the connection fails; else an operation on it is refused.
    """

    kind: str
    words: str
    of_connection: bool = True


# The name of RabbitMQ's feature, which its refusal quotes.
_TRANSIENT = "transient_nonexcl_queues"
_NOT_DURABLE = Reason(
    "not_durable",
    "it accepts only durable queues: set [oslo_messaging_rabbit] rabbit_quorum_queue = true or, "
    "for notifications of a Nova without quorum queues, amqp_durable_queues = true; and do not "
    "set rabbit_transient_quorum_queue = false",
    of_connection=False,
)


def explain(error: BaseException) -> Reason:
    """Return the reason of an error, by the most specific one of its chain."""
    found = [reason for each in _chain(error) if (reason := _known(each))]
    # All others end with a lost connection.
    specific = [reason for reason in found if reason.kind != UNREACHABLE]
    if specific or found:
        return (specific or found)[0]
    return Reason(UNKNOWN, f"{type(error).__name__}: {_short(str(error))}")


def not_acknowledged(error: BaseException) -> float | None:
    """Return RabbitMQ's consumer_timeout in seconds if it has passed; None for other errors."""
    for each in _chain(error):
        if _TIMED_OUT.search(str(each)):
            milliseconds = _MILLISECONDS.search(str(each))
            return int(milliseconds[1]) / 1000 if milliseconds else 0.0
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the first cause last."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        # oslo.messaging keeps the cause in this attribute.
        inner = getattr(following, "ex", None)
        following = following.__cause__ or following.__context__ or inner


def _known(error: BaseException) -> Reason | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Reason(
            "certificate",
            f"its certificate is not trusted ({_short(error.verify_message)}): check "
            "[oslo_messaging_rabbit] ssl_ca_file, and the name in transport_url",
        )
    if isinstance(error, ssl.SSLError):
        return Reason(
            "tls",
            f"the TLS handshake fails ({_short(str(error))}): check the port in transport_url, "
            "and the ssl options of [oslo_messaging_rabbit]",
        )
    if isinstance(error, amqp.AMQPError) and _TRANSIENT in str(error):
        return _NOT_DURABLE
    if isinstance(error, amqp.AMQPError) and error.code in _BY_CODE:
        return _of_code(error)
    if isinstance(error, MessageNacked):
        return Reason(
            REJECTED,
            "the queue accepts no more messages: it has reached its length limit (a policy with "
            "overflow reject-publish); does its consumer run?",
            of_connection=False,
        )
    if isinstance(error, FileNotFoundError | PermissionError):
        return Reason(
            TLS_FILE,
            "a file that [oslo_messaging_rabbit] names for TLS (ssl_ca_file, ssl_cert_file or "
            "ssl_key_file) does not exist, or this user may not read it: run 'kongming-status "
            "upgrade check' as this user to see which one",
        )
    return _of_network(error)


def _of_code(error: amqp.AMQPError) -> Reason:
    kind, words, of_connection = _BY_CODE[error.code]
    if "Login was refused" in str(error):
        return Reason("login", f"it rejects the user or the password: {_USER}")
    problem = f"{words} ({_short(error.reply_text or str(error))})"
    hint = {
        403: "; give the user its permissions in this vhost",
        404: "; do Nova and the conductor use this exchange and vhost?",
        406: f"; {_redeclare_hint(str(error))}",
        530: f"; {_USER}, and that the vhost exists",
    }.get(error.code, "")
    return Reason(kind, problem + hint, of_connection)


def _redeclare_hint(text: str) -> str:
    """Return the way out if an exchange or queue exists with other properties."""
    found = _INEQUIVALENT.search(text)
    argument, kind = found.groups() if found else ("durable", "queue")
    if (argument, kind) == ("type", "exchange"):
        return (
            "another service declared it: is it Nova's control_exchange? Configure another name, "
            "or delete it"
        )
    options = _DECLARED_BY.get("x-" if argument.startswith("x-") else argument)
    return (
        f"set [oslo_messaging_rabbit] {options or _DECLARED_BY['durable']} as they were when it "
        "was declared, or delete it"
    )


def _of_network(error: BaseException) -> Reason | None:
    if isinstance(error, ConnectionRefusedError):
        return Reason(UNREACHABLE, "nothing listens on its port: is RabbitMQ running?")
    if isinstance(error, socket.gaierror):
        return Reason("name", "the host name can't be resolved: check transport_url")
    if isinstance(error, TimeoutError):
        return Reason(UNREACHABLE, "no answer in time")
    # The AMQP library's errors are not subclasses of OSError.
    if isinstance(error, OSError | amqp.ConnectionError):
        return Reason(UNREACHABLE, "the connection was lost")
    return None


def _short(text: str) -> str:
    return " ".join(text.split())[:_TEXT]
