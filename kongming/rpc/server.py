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

"""The server's side of calls: it dispatches messages to methods, and returns their answers.

oslo.messaging's own dispatcher passes arguments on unchecked. For any that does not fit it logs a
traceback, and returns it. This one passes on typed messages, and survives all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
from typing import Any, NamedTuple

from oslo_messaging import dispatcher

from kongming import exception
from kongming.rpc.messages import Message
from kongming.rpc.refusals import Refusals
from kongming.rpc.signing import SIGNATURE, Signature, Signer

LOG = logging.getLogger(__name__)

# The prefix of the supported versions, as oslo.messaging writes them.
_VERSION = "1."
#: The kind of calls to unknown methods.
OTHER = "other"


class Method(NamedTuple):
    """A method that can be called.

    :ivar message: the type of its arguments.
    :ivar work: returns the answer; None if the call has none.
    :ivar by_host: whether compute hosts call it, which name themselves in ``host``; otherwise API
        and conductors do.
    """

    message: type[Message]
    work: Callable[[Any], Message | None]
    by_host: bool = False


class Server(dispatcher.DispatcherBase):  # type: ignore[misc]
    """The dispatcher of the calls to one service.

    :param signer: None without signatures.
    """

    def __init__(
        self, methods: Mapping[str, Method], signer: Signer | None, refusals: Refusals
    ) -> None:
        self._methods = methods
        self._signer = signer
        self._refusals = refusals

    def dispatch(self, incoming: Any) -> dict[str, Any]:
        """Return the answer to a received call, which may be an error."""
        method, arguments = incoming.message.get("method"), incoming.message.get("args")
        kind = method if isinstance(method, str) and method in self._methods else OTHER
        signature = None
        try:
            self._check_form(kind, incoming.message)
            signature = self._check_signature(kind, incoming.ctxt, arguments)
            answer = self._call(self._methods[kind], kind, arguments, signature)
        except exception.MessageRefused as error:
            self._refusals.note(_sender(arguments), kind, error)
            answer = _error(error)
        except RecursionError:
            nested = exception.MessageInvalid("it is nested deeper than any message of Kongming")
            self._refusals.note(_sender(arguments), kind, nested)
            answer = _error(nested)
        except exception.KongmingError as error:
            answer = _error(error)
        except Exception as error:
            LOG.exception("A fault of Kongming in answering %s", kind)
            answer = _error(
                exception.KongmingError(f"a fault of Kongming ({type(error).__name__})")
            )
        if signature is not None and self._signer is not None:
            answer[SIGNATURE] = self._signer.sign_answer(signature, answer)
        return answer

    def _check_form(self, kind: str, message: Mapping[str, Any]) -> None:
        if kind == OTHER:
            raise exception.MessageInvalid("there is no such method")
        version = message.get("version", "1.0")
        if not isinstance(version, str) or not version.startswith(_VERSION):
            raise exception.MessageInvalid("the version of the call is not 1.x")

    def _check_signature(self, kind: str, context: Any, arguments: Any) -> Signature | None:
        if self._signer is None:
            return None
        found = context.get(SIGNATURE) if isinstance(context, dict) else None
        return self._signer.check(found, kind, arguments)

    def _call(
        self, method: Method, kind: str, arguments: Any, signature: Signature | None
    ) -> dict[str, Any]:
        message = method.message.from_json(arguments)
        host = getattr(message, "host", None) if method.by_host else None
        if signature is not None and signature.by != host:
            raise exception.SignatureInvalid(
                f"{signature.by or 'a controller'} signed a message that only "
                f"{host or 'controllers'} may send"
            )
        self._refusals.note_left_out(host or "a controller", kind, message)
        answer = method.work(message)
        return {} if answer is None else answer.to_json()


def _sender(arguments: Any) -> str:
    host = arguments.get("host") if isinstance(arguments, dict) else None
    return host if isinstance(host, str) else ""


def _error(error: exception.KongmingError) -> dict[str, Any]:
    return {"error": {"reason": error.reason, "message": error.for_clients}}
