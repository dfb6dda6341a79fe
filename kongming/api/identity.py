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
"""Authentication of clients, by Keystone's token or as localhost, and their rights."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import falcon
from oslo_context import context as oslo_context
from oslo_policy import policy

from kongming.api import errors, local
from kongming.api.tokens import TokenCheck

# Stands for an unknown project; no token's project has this name, nor the empty name.
UNKNOWN_PROJECT = "(unknown)"


class Identity:
    """Falcon middleware that authenticates the client of each request.

    :param tokens: checks tokens; None without authentication.
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
        """Authenticate the client, except for public operations.

        :raises Unauthenticated: if the request has no valid token.
        :raises IdentityUnavailable: if the token can't be validated.
        :raises NotLocal: without authentication, if the request is not from localhost.
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
        """Add the address for getting a token to a 401."""
        uri = (
            self._tokens.uri()
            if resp.status_code == HTTPStatus.UNAUTHORIZED and self._tokens
            else ""
        )
        if uri:
            resp.set_header("WWW-Authenticate", f'Keystone uri="{uri}"')


class Rights:
    """The rights of clients by policy.yaml."""

    def __init__(self, enforcer: policy.Enforcer) -> None:
        self._enforcer = enforcer

    def require(self, req: falcon.Request, rule: str) -> None:
        """Require the rule for resources of any project.

        :raises Forbidden: otherwise.
        """
        if not self._may(req, rule, UNKNOWN_PROJECT):
            raise _forbidden(rule)

    def may_see(self, req: falcon.Request, rule: str, project_id: str | None) -> bool:
        """Return whether the rule allows a resource of a project.

        :raises Forbidden: if it allows none at all.
        """
        if self._may(req, rule, project_id or UNKNOWN_PROJECT):
            return True
        self.own_project(req, rule)
        return False

    def own_project(self, req: falcon.Request, rule: str) -> str | None:
        """Return the only project whose resources the rule allows; None if it allows all.

        :raises Forbidden: if it allows none at all.
        """
        if self._may(req, rule, UNKNOWN_PROJECT):
            return None
        own: str | None = req.context.user.project_id
        if own and self._may(req, rule, own):
            return own
        raise _forbidden(rule)

    def _may(self, req: falcon.Request, rule: str, project_id: str) -> bool:
        target = {"project_id": project_id}
        return bool(self._enforcer.authorize(rule, target, req.context.user, do_raise=False))


def requested_by(req: falcon.Request) -> str:
    """Return the name of the requester, for the history."""
    user = req.context.user
    return f"user {user.user_id}" if user.project_id else str(user.user_id)


def request_id(req: falcon.Request) -> str:
    """Return the id of the request."""
    return str(req.env.get(errors.REQUEST_ID, ""))


def _forbidden(rule: str) -> errors.Forbidden:
    return errors.Forbidden(f"your roles do not allow {rule}; policy.yaml defines who may")
