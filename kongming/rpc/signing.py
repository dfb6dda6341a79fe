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

"""Signatures of calls and answers: they prove sender, receiver, time and content.

A signature is an HMAC with a key of :mod:`kongming.rpc.keys`. The signature of a call is in the
call's context, which peers without signatures ignore. The signature of an answer is one of its
fields. It covers the signature of the call, so it is valid for no other call.
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

#: The field of the signature, in a context and in an answer.
SIGNATURE = "kongming_signature"

#: The greatest allowed difference between the clocks of two machines.
WINDOW_S = 300.0

_NONCES_MAX = 50_000
_SAME = "were both keys derived from the same master key?"

_party = form.nullable(form.host_name)
_hex = form.matching(r"[0-9a-f]{32,64}", "a hexadecimal number")


@dataclass(frozen=True, slots=True)
class Signature(Message):
    """The signature of a call.

    :ivar by: the calling host; None: API or conductor.
    :ivar to: the called host; None: a conductor.
    :ivar at: the time of the call, by the caller's clock.
    :ivar nonce: unique to the call.
    :ivar mac: the HMAC of the other fields and the call.
    """

    by: str | None = wire(_party)
    to: str | None = wire(_party)
    at: float = wire(form.number(0.0, 2.0**40))
    nonce: str = wire(_hex)
    mac: str = wire(_hex)


class Signer:
    """Signs and checks the calls and answers of one service. Thread-safe.

    :param host: the name of the compute host; None on controllers.
    :param required: whether to refuse unsigned messages.
    """

    def __init__(self, keys: Keys, host: str | None, *, required: bool = True) -> None:
        self._keys = keys
        self._host = host
        self._required = required
        self._lock = threading.Lock()
        self._nonces: defaultdict[str | None, _Nonces] = defaultdict(_Nonces)

    def sign(self, to: str | None, method: str, arguments: Mapping[str, Any]) -> Signature:
        """Return the signature of a call.

        :param to: the called host; None: a conductor.
        """
        signed = (self._host, to, time.time(), secrets.token_hex(16))
        key = self._keys.of(to if self._host is None else self._host)[0]
        return Signature(*signed, _mac(key, "call", *signed, method, arguments))

    def check(
        self, signature: object, method: str, arguments: Mapping[str, Any]
    ) -> Signature | None:
        """Check the signature of a call.

        :param signature: as received; None if there is none.
        :returns: the signature; None if there is none, and none is required.
        :raises SignatureInvalid: if the call is not authentic.
        """
        if signature is None and not self._required:
            return None
        found = _read(signature)
        by = found.by or "a controller"
        if found.to != self._host or (self._host is not None and found.by is not None):
            raise exception.SignatureInvalid(
                f"{by} signed it for {found.to or 'a conductor'}, not for this service"
            )
        signed = (found.by, found.to, found.at, found.nonce)
        keys = self._keys.of(found.by if self._host is None else self._host)
        macs = (_mac(key, "call", *signed, method, arguments) for key in keys)
        if not any(_is_equal(found.mac, mac) for mac in macs):
            raise exception.SignatureInvalid(f"its signature is not that of {by}: {_SAME}")
        late = time.time() - found.at
        if abs(late) > WINDOW_S:
            raise exception.SignatureInvalid(
                f"it was signed {abs(late):.0f} s {('ago' if late > 0 else 'ahead')} by the clock "
                f"of {by}; at most {WINDOW_S:.0f} s are allowed: synchronize the clocks (NTP)"
            )
        with self._lock:
            # Per sender: none can displace the nonces of others by sending a lot.
            is_new = self._nonces[found.by].is_new(found.nonce)
        if not is_new:
            raise exception.SignatureInvalid("it was received before (replayed)")
        return found

    def sign_answer(self, call: Signature, answer: Mapping[str, Any]) -> str:
        """Return the signature of the answer to a call, whose own signature is valid."""
        return _mac(self._shared(call)[0], "answer", call.mac, answer)

    def check_answer(self, call: Signature, answer: Mapping[str, Any]) -> None:
        """Check the signature of the answer to a signed call.

        :raises SignatureInvalid: if the answer is not authentic.
        """
        received = answer.get(SIGNATURE)
        if received is None and not self._required:
            return
        body = {name: value for name, value in answer.items() if name != SIGNATURE}
        macs = (_mac(key, "answer", call.mac, body) for key in self._shared(call))
        if not any(_is_equal(received, mac) for mac in macs):
            raise exception.SignatureInvalid(
                "the answer is not signed"
                if received is None
                else f"the signature of the answer is wrong: {_SAME}"
            )

    def _shared(self, call: Signature) -> tuple[bytes, ...]:
        return self._keys.of(call.by or call.to)


class _Nonces:
    """The nonces of one sender, kept for as long as a call could be replayed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._new: set[str] = set()
        self._old: set[str] = set()

    def is_new(self, nonce: str) -> bool:
        # A call that was signed ahead of this clock can be replayed for twice the window.
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
    # ASCII text that is the same on both sides, however the JSON was written in between.
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def _is_equal(received: object, mac: str) -> bool:
    return isinstance(received, str) and received.isascii() and hmac.compare_digest(received, mac)
