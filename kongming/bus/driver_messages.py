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

"""The log messages of oslo.messaging and the libraries below it, with their meanings.

All messages from INFO on are listed; a test compares them with the sources. An unlisted message
is logged in one line, without a traceback.
"""

from __future__ import annotations

import enum


class Meaning(enum.Enum):
    """The meaning of a message of the driver."""

    UNDECODABLE = "a message that could not be decoded, and was dropped"
    TROUBLE = "the error that keeps the driver from listening or sending"
    BLOCKED = "RabbitMQ accepts no messages"
    UNBLOCKED = "RabbitMQ accepts messages again"
    DECLARED_OTHERWISE = "an exchange or queue is used although it was declared with other values"
    STUCK = "a queue is deleted and declared again"
    FAULT = "an error in handling a message"
    NO_NEWS = "nothing that an operator must know"
    ONE_LINE = "something else"


_T, _N, _L = Meaning.TROUBLE, Meaning.NO_NEWS, Meaning.ONE_LINE

#: The beginning of a message, before its arguments are formatted, and its meaning.
MEANINGS: dict[str, Meaning] = {
    # Connections; a sender gets an exception.
    "[%(connection_id)s] AMQP server on %(hostname)s:%(port)s is unreachable": _T,
    "[%(connection_id)s] AMQP server %(hostname)s:%(port)s closed the connection": _T,
    "Failed to consume message from queue": _T,
    "Failed to declare consumer for topic": _T,
    "Failed to publish message to topic": _N,
    "Unable to connect to AMQP server on": _N,
    "Connection failed": _T,
    "Internal amqp error (541) during queue declare": _T,
    "Unexpected exception occurred": _T,
    # The subscription checks by itself whether it listens again.
    "[%(connection_id)s] Reconnected to AMQP server on": _N,
    # The heartbeat's thread, which finds the same errors as the others.
    "A recoverable connection/channel error occurred, trying to reconnect": _N,
    "Unexpected error during heartbeat thread processing, retrying": _N,
    "Heartbeat support requested but it is not supported": _L,
    "The broker has blocked the connection": Meaning.BLOCKED,
    "The broker has unblocked the connection": Meaning.UNBLOCKED,
    "Process forked after connection established": _L,
    "Selecting the kombu transport through the transport url": _L,
    # Declaring.
    "[%s] Retrying to declare the exchange": _N,
    "[%s] Queue %s could not be declared probably because": Meaning.DECLARED_OTHERWISE,
    "Force creating a non durable exchange": Meaning.DECLARED_OTHERWISE,
    "Queue %s is stuck on unresponsive node": Meaning.STUCK,
    "During cleanup of stuck queue deletion another exception": _N,
    # Streams, which are not used.
    "Reset consumer for queue": _N,
    "[%s] Stream Queue.declare": _N,
    "[%s] Basic.cancel received": _N,
    # Messages: unacknowledged ones are delivered again.
    "Failed to process message": Meaning.UNDECODABLE,
    "Failed to acknowledge received message": _N,
    "Failed to requeue received message": _N,
    "Fail to ack/requeue message": _N,
    "Discarding RPC request due to failed acknowledge": _N,
    "Can not acknowledge message. Skip processing": _N,
    "ignoring duplicate message": _N,
    "Couldn't ack %r": _N,
    "Couldn't reject %r": _N,
    # Answers: the caller gets an error if none arrives.
    "The reply %(msg_id)s failed to send": _N,
    "%(reply_queue)s doesn't exist, drop reply": _N,
    "MessageUndeliverable error": _N,
    "Can not send reply for message": _N,
    "No calling threads waiting for msg_id": _N,
    "Failed to process incoming message, retrying": _N,
    "Failed to rebuild remote exception": _L,
    "Number of call queues is": _L,
    "Connection pool limit exceeded": _L,
    "Fail to reset the connection, drop it": _N,
    # Handling: Kongming's dispatchers let no error through.
    "Exception during message handling": Meaning.FAULT,
    "Exception during messages handling": Meaning.FAULT,
    "Callback raised an exception": Meaning.FAULT,
    'Unknown priority "%s"': _L,
    # The services limit the time to stop.
    "Possible hang": _N,
    "The server has already been started": _L,
    "Using notification transport for RPC": _L,
    "Using RPC transport for notifications": _L,
    # Wrong configuration, and wrong calls.
    "All hosts must be set with username/password or not at the same time": _L,
    "Using RPCClient manually": _L,
    "Client provided an invalid timeout": _L,
    "rpc_ping_enabled": _L,
    "Exception in string format operation": _L,
    "%s: %s": _L,
    # kombu and amqp themselves.
    "Connection error": _N,
    "QoS: Disabled": _L,
    "Received method %s during closing channel": _N,
    "Rejecting message with delivery tag": _N,
    "Secure redis scheme specified": _L,
    "No hostname was supplied": _L,
}


def meaning(template: str) -> Meaning:
    """Return the meaning of a message, by its text before its arguments are formatted."""
    found = [start for start in MEANINGS if template.startswith(start)]
    return MEANINGS[max(found, key=len)] if found else Meaning.ONE_LINE
