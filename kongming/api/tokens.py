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

"""Validation of tokens by Keystone or a cache, with time limits for both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from keystoneauth1 import exceptions as keystone_exceptions
from keystonemiddleware import auth_token
from oslo_config import cfg

from kongming import exception
from kongming.api import errors
from kongming.api.microversion import SERVICE_TYPE
from kongming.api.waiting import Waiting
from kongming.conf import keystone
from kongming.runtime.availability import Availability
from kongming.runtime.cleaning import clean

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOG = logging.getLogger(__name__)

#: The time limit of Keystone, which may take several calls for one token.
KEYSTONE_S = 10.0
#: The time limit of memcached, which usually answers within a millisecond; and the pause after it.
MEMCACHED_S, MEMCACHED_AGAIN_S = 0.25, 10.0
# A difference of clocks of at least _CLOCK_S is logged once an hour.
_CLOCK_AGAIN_S, _CLOCK_S = 3600.0, 60.0
# Each takes some 5 KB.
_TOKENS_MAX = 5_000
_LENGTH_MAX = 300

_CONFIRMED = "Confirmed"
_SERVICE_STATUS = "HTTP_X_SERVICE_IDENTITY_STATUS"
_PROBLEM = "kongming.keystone_problem"


class TokenCheck:
    """The check of tokens. Thread-safe."""

    def __init__(self, conf: cfg.ConfigOpts, waiting: Waiting) -> None:
        """Read the options of [keystone_authtoken], without connecting yet.

        :raises ConfigInvalid: if they can't be used.
        """
        keystone.register_opts(conf, SERVICE_TYPE)
        try:
            self._middleware = _Middleware(conf, waiting)
        except (auth_token.ConfigurationError, keystone_exceptions.AuthPluginException) as error:
            raise exception.ConfigInvalid(
                f"[{keystone.GROUP}] can't be used: {clean(str(error), _LENGTH_MAX)}"
            ) from error

    def check(self, environ: WSGIEnvironment) -> None:
        """Add the identity of the client to a request.

        :raises Unauthenticated: if it has no valid token.
        :raises IdentityUnavailable: if the token can't be validated.
        :raises ThreadsBusy: if too many requests wait for Keystone.
        """
        self._middleware(environ, _start)
        problem = environ.get(_PROBLEM)
        if isinstance(problem, exception.ThreadsBusy):
            raise problem
        if problem is not None:
            raise errors.IdentityUnavailable(
                "Keystone is unavailable, so the token can't be validated: retry later; operators "
                f"find the cause in the API's log and check [{keystone.GROUP}]"
            )
        # A service token is optional, but must be valid.
        status = (environ.get("HTTP_X_IDENTITY_STATUS"), environ.get(_SERVICE_STATUS, _CONFIRMED))
        if status != (_CONFIRMED, _CONFIRMED):
            raise errors.Unauthenticated(
                "a valid token is required: get one from Keystone and send it as X-Auth-Token"
            )

    def uri(self) -> str:
        """Return the address for getting a token; empty if unknown."""
        try:
            return self._middleware.find_uri()
        except keystone_exceptions.ClientException as error:
            why = _why(error)
        LOG.warning(
            "The address for getting a token is unknown, set [%s] www_authenticate_uri: %s",
            keystone.GROUP,
            why,
        )
        return ""


class _Middleware(auth_token.AuthProtocol):  # type: ignore[misc]
    """The check of tokens by keystonemiddleware, without its responses to errors.

    The API has its own form of errors. The library's option ``delay_auth_decision`` would treat an
    unavailable Keystone as an invalid token.
    """

    def __init__(self, conf: cfg.ConfigOpts, waiting: Waiting) -> None:
        super().__init__(_answer, {"oslo_config_config": conf})
        server: Any = self._identity_server  # type: ignore[has-type]
        self._identity_server = _Keystone(server, waiting)
        cache: Any = self._token_cache  # type: ignore[has-type]
        if conf[keystone.GROUP].memcached_servers:
            self._token_cache = _Memcached(cache, waiting)
            self._token_cache.initialize({})
        else:
            # The library's own cache in a process is about one for each thread.
            cache.initialize({conf[keystone.GROUP].cache: _Tokens()})

    @property
    def www_authenticate_uri(self) -> str:
        """The option of this name or an empty text, for the library's own 401."""
        return self._www_authenticate_uri or ""

    def find_uri(self) -> str:
        """Return the address for getting a token: of the option, or of this service's tokens."""
        return str(super().www_authenticate_uri)

    def process_request(self, request: Any) -> None:
        """Add the identity of the client to the request, or the problem."""
        problem = self._try_to_check(request)
        if getattr(problem, "status_int", None) == HTTPStatus.UNAUTHORIZED:
            return
        if problem is not None:
            request.environ[_PROBLEM] = problem
            self._identity_server.lost(problem)

    def _try_to_check(self, request: Any) -> Exception | None:
        try:
            super().process_request(request)
        except Exception as error:  # noqa: BLE001
            # Not logged here, because the line would also have the library's text.
            return error
        return None


class _Keystone:
    """Keystone, for tokens that are not in the cache.

    :param server: the middleware's own client.
    """

    def __init__(self, server: Any, waiting: Waiting) -> None:
        self._server = server
        self._waiting = waiting
        self._availability = Availability("Keystone", LOG)
        self._clock_logged_at = -_CLOCK_AGAIN_S

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def verify_token(self, token: str, *, allow_expired: bool = False) -> Any:
        """Return Keystone's data of a token.

        :raises InvalidToken: if it is invalid.
        """
        try:
            answer = self._waiting.wait_for(
                lambda: self._server.verify_token(token, allow_expired=allow_expired), KEYSTONE_S
            )
        except auth_token.InvalidToken:
            self._availability.restored()
            raise
        self._availability.restored()
        if not allow_expired:
            self._compare_clocks(answer["token"])
        return answer

    def lost(self, error: Exception) -> None:
        """Log that Keystone is unavailable."""
        if not isinstance(error, exception.ThreadsBusy):
            self._availability.lost(
                f"Keystone can't validate tokens ({_why(error)}): check that it runs, and check "
                f"[{keystone.GROUP}]; until it responds, only cached tokens are accepted"
            )

    def _compare_clocks(self, token: Any) -> None:
        """Log a warning if a valid token is not valid by this machine's clock."""
        now = datetime.now(UTC)
        ahead = (now - datetime.fromisoformat(token["expires_at"])).total_seconds()
        behind = (datetime.fromisoformat(token["issued_at"]) - now).total_seconds()
        is_ahead = ahead >= behind
        off = ahead if is_ahead else behind
        if off < (0 if is_ahead else _CLOCK_S):
            return
        if monotonic() - self._clock_logged_at < _CLOCK_AGAIN_S:
            return
        self._clock_logged_at = monotonic()
        LOG.warning(
            "This machine's clock is %s of Keystone's by %d s or more%s: correct both (NTP)",
            "ahead" if is_ahead else "behind",
            off,
            ", and tokens that are valid for Keystone get 401" if is_ahead else "",
        )


_PACKAGES = {"memcache": "python-memcached", "bmemcached": "python-binary-memcached"}


class _Memcached:
    """The cache of tokens in memcached, which is not used for a while after a failure.

    :param cache: the middleware's own client.
    """

    def __init__(self, cache: Any, waiting: Waiting) -> None:
        self._cache = cache
        self._waiting = waiting
        self._availability = Availability("memcached", LOG)
        self._again_at = 0.0

    def initialize(self, environ: WSGIEnvironment) -> None:
        """Load the client library.

        :raises ConfigInvalid: if it is not installed.
        """
        try:
            self._cache.initialize(environ)
        except ImportError as error:
            package = _PACKAGES.get(error.name or "", error.name)
            raise exception.ConfigInvalid(
                f"[{keystone.GROUP}] memcached_servers: the Python module {error.name} is not "
                f"installed; pip install {package}, or remove the option"
            ) from error

    def get(self, token: str) -> Any:
        """Return the data of a token, or None."""
        return self._try(lambda: self._cache.get(token))

    def set(self, token: str, data: Any) -> None:
        """Store the data of a token, if memcached is available."""
        self._try(lambda: self._cache.set(token, data))

    def _try(self, work: Callable[[], Any]) -> Any:
        if monotonic() < self._again_at:
            return None
        problem: Exception | None = None
        try:
            found = self._waiting.wait_for(work, MEMCACHED_S)
        except Exception as error:  # noqa: BLE001, the client raises many kinds
            problem = error
        if problem is None:
            self._availability.restored()
            return found
        self._again_at = monotonic() + MEMCACHED_AGAIN_S
        self._availability.lost(
            f"memcached can't be used ({_why(problem)}): check that it runs, and check "
            f"[{keystone.GROUP}] memcached_servers; until then Keystone validates each token"
        )
        return None


class _Tokens:
    """The cache of tokens in this process, without memcached."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, bytes]] = {}

    def get(self, key: str) -> bytes | None:
        """Return the data of a token, or None."""
        until, value = self._kept.get(key, (0.0, b""))
        return value if monotonic() < until else None

    def set(self, key: str, value: bytes, time: float) -> None:
        """Store the data of a token for some seconds."""
        now = monotonic()
        with self._lock:
            if len(self._kept) >= _TOKENS_MAX:
                self._kept = {k: kept for k, kept in self._kept.items() if now < kept[0]}
            if len(self._kept) < _TOKENS_MAX:
                self._kept[key] = (now + time, value)


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "it does not respond"),
    (keystone_exceptions.ConnectTimeout, "it does not respond"),
    (keystone_exceptions.RequestTimeout, "it does not respond"),
    (keystone_exceptions.SSLError, "the TLS handshake fails"),
    (keystone_exceptions.ConnectFailure, "the connection fails"),
    (keystone_exceptions.DiscoveryFailure, "auth_url is not an endpoint of Keystone"),
    (keystone_exceptions.Unauthorized, "it refuses the service user's name or password"),
    (keystone_exceptions.MissingAuthPlugin, "auth_type is not set"),
)


def _why(error: BaseException) -> str:
    """Return the reason of a failure, by its innermost known cause."""
    found = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        found = next((reason for kind, reason in _REASONS if isinstance(cause, kind)), found)
        cause = cause.__cause__ or cause.__context__
    return found


def _start(*_: object) -> Callable[[bytes], object]:
    return len


def _answer(_environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("204 No Content", [])
    return []
