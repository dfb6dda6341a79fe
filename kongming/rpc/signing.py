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

"""Signatures: a call and its answer prove who sent them, to whom, when, and what.

A signature is an HMAC with a key of :mod:`kongming.rpc.keys`. That of a call travels in the call's
context, which a peer that knows nothing of it leaves alone; that of an answer is a field of it,
and covers the signature of the call, so that it fits no other one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
import hashlib
import hmac
import json
import secrets
import threading
import time
from typing import Any

from kongming import exception
from kongming.rpc import fields as form
from kongming.rpc.keys import Keys
from kongming.rpc.messages import Message, wire

#: Where the signature is, in a context and in an answer.
SIGNATURE = "kongming_signature"

#: By so many seconds the clocks of two machines may differ.
WINDOW_S = 300.0

_NONCES_MAX = 50_000
_SAME = "were both keys derived from the same master key?"

_party = form.maybe(form.host_name)
_hex = form.word(r"[0-9a-f]{32,64}", "a hexadecimal number")


@dataclass(frozen=True, slots=True)
class Signature(Message):
    """What proves a call.

    :ivar by: the host that called; None: API or conductor.
    :ivar to: the host that is called; None: a conductor.
    :ivar at: when, by the caller's clock.
    :ivar nonce: tells the call from all others.
    :ivar mac: of all that and the call itself.
    """

    by: str | None = wire(_party)
    to: str | None = wire(_party)
    at: float = wire(form.number(0.0, 2.0**40))
    nonce: str = wire(_hex)
    mac: str = wire(_hex)


class Signer:
    """Signs what one service sends, and checks what it gets. Any thread may call any method.

    :param host: the name of the compute host; None on controllers.
    :param required: whether what is not signed is refused.
    """

    def __init__(self, keys: Keys, host: str | None, *, required: bool = True) -> None:
        self._keys = keys
        self._host = host
        self._required = required
        self._lock = threading.Lock()
        self._nonces: defaultdict[str | None, _Nonces] = defaultdict(_Nonces)

    def sign(self, to: str | None, method: str, arguments: Mapping[str, Any]) -> Signature:
        """Sign a call.

        :param to: the host that is called; None: a conductor.
        """
        told = (self._host, to, time.time(), secrets.token_hex(16))
        key = self._keys.of(to if self._host is None else self._host)[0]
        return Signature(*told, _mac(key, "call", *told, method, arguments))

    def check(
        self, signature: object, method: str, arguments: Mapping[str, Any]
    ) -> Signature | None:
        """Check a call.

        :param signature: as it came; None if none did.
        :returns: the signature; None if there is none, and none is required.
        :raises SignatureInvalid: if the call is not proven to be what it says.
        """
        if signature is None and not self._required:
            return None
        found = _read(signature)
        by = found.by or "a controller"
        if found.to != self._host or (self._host is not None and found.by is not None):
            raise exception.SignatureInvalid(
                f"{by} signed it for {found.to or 'a conductor'}, not for this service"
            )
        told = (found.by, found.to, found.at, found.nonce)
        keys = self._keys.of(found.by if self._host is None else self._host)
        if not any(_fits(found.mac, _mac(key, "call", *told, method, arguments)) for key in keys):
            raise exception.SignatureInvalid(f"its signature is not that of {by}: {_SAME}")
        late = time.time() - found.at
        if abs(late) > WINDOW_S:
            raise exception.SignatureInvalid(
                f"it was signed {abs(late):.0f} s {('ago' if late > 0 else 'ahead')} by the clock "
                f"of {by}; at most {WINDOW_S:.0f} s are allowed: synchronize the clocks (NTP)"
            )
        with self._lock:
            # Of each sender by itself: none can have others' forgotten by sending a lot.
            is_new = self._nonces[found.by].is_new(found.nonce)
        if not is_new:
            raise exception.SignatureInvalid("it was received before (replayed)")
        return found

    def sign_answer(self, question: Signature, answer: Mapping[str, Any]) -> str:
        """Sign the answer to a call whose signature was checked."""
        return _mac(self._shared(question)[0], "answer", question.mac, answer)

    def check_answer(self, question: Signature, answer: Mapping[str, Any]) -> None:
        """Check the answer to a call that was signed.

        :raises SignatureInvalid: if it is not proven to be that.
        """
        given = answer.get(SIGNATURE)
        if given is None and not self._required:
            return
        body = {name: value for name, value in answer.items() if name != SIGNATURE}
        keys = self._shared(question)
        if not any(_fits(given, _mac(key, "answer", question.mac, body)) for key in keys):
            raise exception.SignatureInvalid(
                "the answer is not signed"
                if given is None
                else f"the signature of the answer is wrong: {_SAME}"
            )

    def _shared(self, question: Signature) -> tuple[bytes, ...]:
        return self._keys.of(question.by or question.to)


class _Nonces:
    """Remembers what was taken of one sender for as long as it could be repeated."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._new: set[str] = set()
        self._old: set[str] = set()

    def is_new(self, nonce: str) -> bool:
        # One that was signed ahead of our clock can be repeated for twice the window.
        if time.monotonic() - self._began > 2 * WINDOW_S or len(self._new) > _NONCES_MAX:
            self._began, self._new, self._old = time.monotonic(), set(), self._new
        new = nonce not in self._new and nonce not in self._old
        self._new.add(nonce)
        return new


def _read(signature: object) -> Signature:
    if signature is None:
        raise exception.SignatureInvalid(
            "it is not signed: does its sender have a [rpc] key_file?"
        )
    try:
        return Signature.from_json(signature)
    except exception.MessageInvalid as error:
        raise exception.SignatureInvalid(f"its signature can't be read: {error}") from error


def _mac(key: bytes, *parts: Any) -> str:
    # A text of ASCII that is the same on both sides, whatever JSON was between them.
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def _fits(given: object, mac: str) -> bool:
    return isinstance(given, str) and given.isascii() and hmac.compare_digest(given, mac)
