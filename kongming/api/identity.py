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
"""Who asks, and whether they may: Keystone's token, or nothing at all on this machine."""

from __future__ import annotations

from collections.abc import Iterable
import ipaddress
from typing import TYPE_CHECKING, Any

import falcon
from keystonemiddleware import auth_token
from oslo_config import cfg
from oslo_context import context as oslo_context
from oslo_policy import policy

from kongming.api import errors
from kongming.conf.api import NOAUTH

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_CONFIRMED = "Confirmed"
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_VIA")
# What a project is called that is not known: no token's project is.
_NOBODYS = ""


class Identity:
    """Falcon middleware: settles who asks, unless everybody may."""

    def __init__(self, *, noauth: bool) -> None:
        self._noauth = noauth

    def process_resource(
        self,
        req: falcon.Request,
        _resp: falcon.Response,
        resource: Any,
        _params: dict[str, Any],
    ) -> None:
        """Settle it.

        :raises Unauthenticated: if nobody knows.
        :raises NotLocal: if nobody is to know, and it is not from this machine.
        """
        operation = getattr(resource, "operations", {}).get(req.method.replace("HEAD", "GET"))
        if operation is None or operation.public:
            return
        if self._noauth:
            _check_local(req.env)
            user = oslo_context.RequestContext(user_id="noauth", roles=["admin", "reader"])
        elif req.env.get("HTTP_X_IDENTITY_STATUS") != _CONFIRMED:
            raise errors.Unauthenticated(
                "a valid token is needed: get one from Keystone and send it as X-Auth-Token"
            )
        else:
            user = oslo_context.RequestContext.from_environ(req.env)
        req.context.user = user


class Rights:
    """Says who may do what."""

    def __init__(self, enforcer: policy.Enforcer) -> None:
        self._enforcer = enforcer

    def require(self, req: falcon.Request, rule: str) -> None:
        """Let pass only who may do this whosever it is.

        :raises Forbidden: else.
        """
        if not self._may(req, rule, _NOBODYS):
            raise _forbidden(rule)

    def may_see(self, req: falcon.Request, rule: str, project_id: str | None) -> bool:
        """Tell whether somebody may do this with what is a project's.

        :raises Forbidden: if they may do it with nothing at all.
        """
        if self._may(req, rule, project_id or _NOBODYS):
            return True
        self.own_project(req, rule)
        return False

    def own_project(self, req: falcon.Request, rule: str) -> str | None:
        """Say to which project somebody is confined; None if to none.

        :raises Forbidden: if they may do this with nothing at all.
        """
        if self._may(req, rule, _NOBODYS):
            return None
        own: str | None = req.context.user.project_id
        if own and self._may(req, rule, own):
            return own
        raise _forbidden(rule)

    def _may(self, req: falcon.Request, rule: str, project_id: str) -> bool:
        target = {"project_id": project_id}
        return bool(self._enforcer.authorize(rule, target, req.context.user, do_raise=False))


def asked_by(req: falcon.Request) -> str:
    """Say who asks, for the history."""
    user = req.context.user
    return f"user {user.user_id}" if user.project_id else str(user.user_id)


def request_id(req: falcon.Request) -> str:
    """Give the id of the request."""
    return str(req.env.get(errors.REQUEST_ID, ""))


def wrap(application: WSGIApplication, conf: cfg.ConfigOpts) -> WSGIApplication:
    """Have Keystone say whose tokens they are, if it is to be asked."""
    if conf.api.auth_strategy == NOAUTH:
        return application
    # The decision is left to us, who know what everybody may see.
    settings = {"oslo_config_config": conf, "delay_auth_decision": True}
    return _InOurWords(auth_token.AuthProtocol(application, settings))


class _InOurWords:
    """Tells that Keystone is away as all errors are told."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started: list[tuple[str, list[tuple[str, str]], Any]] = []

        def keep(status: str, headers: list[tuple[str, str]], info: Any = None) -> Any:
            started.append((status, headers, info))
            return lambda _data: None

        answer = self._application(environ, keep)
        status, headers, info = started[-1]
        kinds = [value for name, value in headers if name.lower() == "content-type"]
        if status.startswith("503") and errors.CONTENT_TYPE not in "".join(kinds):
            return errors.answer_wsgi(_keystone_away(), environ, start_response)
        if info is None:
            start_response(status, headers)
        else:
            start_response(status, headers, info)
        return answer


def _keystone_away() -> errors.IdentityUnavailable:
    return errors.IdentityUnavailable(
        "Keystone can't be asked whose token this is: try again later; the operator finds more "
        "in the log of the API and checks [keystone_authtoken]"
    )


def _check_local(environ: WSGIEnvironment) -> None:
    if any(header in environ for header in _FORWARDED) or not _is_loopback(
        environ.get("REMOTE_ADDR", "")
    ):
        raise errors.NotLocal(
            "[api] auth_strategy is noauth: only this machine itself is answered, and not through "
            "a proxy; set it to keystone to serve others"
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _forbidden(rule: str) -> errors.Forbidden:
    return errors.Forbidden(f"your roles do not allow {rule}; policy.yaml says who may")
