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
from typing import Any

import falcon
from oslo_context import context as oslo_context
from oslo_policy import policy

from kongming.api import errors, local
from kongming.api.tokens import TokenCheck

# What a project is called that is not known: no token's project is, not even an empty one.
NOBODYS = "(unknown)"


class Identity:
    """Falcon middleware: settles who asks, unless everybody may.

    :param tokens: checks tokens; None if nobody is asked who they are.
    """

    def __init__(self, tokens: TokenCheck | None) -> None:
        self._tokens = tokens

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
        if self._tokens is None:
            local.check(req.env)
            user = oslo_context.RequestContext(
                user_id="noauth", roles=["admin", "reader"], request_id=request_id(req)
            )
        else:
            self._tokens.check(req.env)
            user = oslo_context.RequestContext.from_environ(req.env)
        req.context.user = user

    def process_response(
        self,
        _req: falcon.Request,
        resp: falcon.Response,
        _resource: object,
        _req_succeeded: bool,
    ) -> None:
        """Say in a 401 where to get a token, if that is known."""
        uri = (
            self._tokens.uri()
            if resp.status_code == HTTPStatus.UNAUTHORIZED and self._tokens
            else ""
        )
        if uri:
            resp.set_header("WWW-Authenticate", f'Keystone uri="{uri}"')


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


def _forbidden(rule: str) -> errors.Forbidden:
    return errors.Forbidden(f"your roles do not allow {rule}; policy.yaml defines who may")
