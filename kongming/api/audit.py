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

"""CADF audit events of requests, by keystonemiddleware."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import falcon
from keystonemiddleware import audit
from oslo_config import cfg
from oslo_context import context
from oslo_messaging.notify import notifier
import webob

from kongming import exception

_NOTIFICATIONS = "oslo_messaging_notifications"
_CONTEXT, _EVENT = "audit.context", "cadf_event"


class Audit:
    """Falcon middleware that emits two events for each authenticated request: before, and after.

    The middleware of keystonemiddleware would surround the application, which authenticates only
    inside.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Read the map of ``[api] audit_map_file``.

        :raises ConfigInvalid: if it can't be read.
        """
        path = conf.api.audit_map_file
        conf.register_opts(notifier._notifier_opts, group=_NOTIFICATIONS)
        # A request must not wait without a limit for a message broker that is unavailable.
        conf.set_default("retry", 0, group=_NOTIFICATIONS)
        try:
            self._audit = audit.AuditMiddleware(
                None, audit_map_file=path, oslo_config_config=conf, log_name=__name__
            )
        except (OSError, audit.PycadfAuditApiConfigError) as error:
            raise exception.ConfigInvalid(
                f"[api] audit_map_file: {path} can't be read ({type(error).__name__})"
            ) from None

    def process_resource(
        self, req: falcon.Request, _resp: falcon.Response, _resource: Any, _params: dict[str, Any]
    ) -> None:
        """Emit the event of a request that was authenticated."""
        if hasattr(req.context, "user"):
            req.env[_CONTEXT] = context.get_admin_context().to_dict()
            self._audit._process_request(webob.Request(req.env))

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool
    ) -> None:
        """Emit the event with the outcome."""
        if _EVENT in req.env:
            response = SimpleNamespace(status_int=resp.status_code)
            self._audit._process_response(webob.Request(req.env), response)
