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

from http import HTTPStatus
import logging
from typing import TYPE_CHECKING, Any

import falcon
from keystonemiddleware import auth_token
from oslo_config import cfg
from oslo_context import context as oslo_context
from oslo_policy import policy

from kongming.api import errors, local
from kongming.api.microversion import SERVICE_TYPE
from kongming.conf.api import NOAUTH

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

_CONFIRMED = "Confirmed"
_SERVICE_STATUS = "HTTP_X_SERVICE_IDENTITY_STATUS"
_AWAY = "kongming.keystone_away"
# What a project is called that is not known: no token's project is, not even an empty one.
NOBODYS = "(unknown)"


class Identity:
    """Falcon middleware: settles who asks, unless everybody may."""

    def __init__(self, *, noauth: bool) -> None:
        self._noauth = noauth

    def process_resource(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: Any,
        _params: dict[str, Any],
    ) -> None:
        """Settle it.

        :raises Unauthenticated: if nobody knows.
        :raises IdentityUnavailable: if Keystone can't be asked.
        :raises NotLocal: if nobody is to know, and it is not from this machine.
        """
        operation = getattr(resource, "operations", {}).get(req.method.replace("HEAD", "GET"))
        if operation is None or operation.public:
            return
        resp.append_header("Vary", "X-Auth-Token")
        if self._noauth:
            local.check(req.env)
            user = oslo_context.RequestContext(user_id="noauth", roles=["admin", "reader"])
        else:
            _check_token(req.env)
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
        if not self._may(req, rule, NOBODYS):
            raise _forbidden(rule)

    def may_see(self, req: falcon.Request, rule: str, project_id: str | None) -> bool:
        """Tell whether somebody may do this with what is a project's.

        :raises Forbidden: if they may do it with nothing at all.
        """
        if self._may(req, rule, project_id or NOBODYS):
            return True
        self.own_project(req, rule)
        return False

    def own_project(self, req: falcon.Request, rule: str) -> str | None:
        """Say to which project somebody is confined; None if to none.

        :raises Forbidden: if they may do this with nothing at all.
        """
        if self._may(req, rule, NOBODYS):
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
    checked: WSGIApplication = _TokenCheck(application, {"oslo_config_config": conf})
    # By this, Keystone's access rules of application credentials name us.
    conf.set_default("service_type", SERVICE_TYPE, group="keystone_authtoken")
    return checked


class _TokenCheck(auth_token.AuthProtocol):  # type: ignore[misc]
    """keystonemiddleware's check of tokens, which leaves all answers to us.

    We know what everybody may see, and tell errors in one form. Its own way to
    leave them to us, ``delay_auth_decision``, takes a Keystone that is away
    for a token that is wrong.
    """

    def process_request(self, request: Any) -> None:
        """Note in the request whose it is, or why nobody knows."""
        try:
            super().process_request(request)
        except Exception as error:  # noqa: BLE001
            if getattr(error, "status_int", None) != HTTPStatus.UNAUTHORIZED:
                LOG.error("Keystone can't be asked whose token it is: %s", error)
                request.environ[_AWAY] = True

    def process_response(self, response: Any) -> Any:
        """Say in a 401 where to get a token, if that can be found out now."""
        try:
            return super().process_response(response)
        except Exception as error:  # noqa: BLE001
            LOG.warning(
                "Where to get a token is not known, set [keystone_authtoken] "
                "www_authenticate_uri: %s",
                error,
            )
            return response


def _check_token(environ: WSGIEnvironment) -> None:
    if environ.get(_AWAY):
        raise errors.IdentityUnavailable(
            "Keystone can't be asked whose token this is: try again later; the operator finds "
            "more in the log of the API and checks [keystone_authtoken]"
        )
    # A service token is not needed, but one that is sent must be valid.
    status = (environ.get("HTTP_X_IDENTITY_STATUS"), environ.get(_SERVICE_STATUS, _CONFIRMED))
    if status != (_CONFIRMED, _CONFIRMED):
        raise errors.Unauthenticated(
            "a valid token is needed: get one from Keystone and send it as X-Auth-Token"
        )


def _forbidden(rule: str) -> errors.Forbidden:
    return errors.Forbidden(f"your roles do not allow {rule}; policy.yaml says who may")
