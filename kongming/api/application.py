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
"""The whole API as one WSGI application: its parts, assembled."""

from __future__ import annotations

from collections.abc import Iterable
import json
from typing import TYPE_CHECKING, Any

import falcon
from oslo_config import cfg
from oslo_middleware import healthcheck, http_proxy_to_wsgi
from oslo_middleware import request_id as request_ids
from oslo_middleware.healthcheck import opts

from kongming import policies
from kongming.api import documents, errors, headers, identity, openapi
from kongming.api.allocation_maps import MapItem, MapList
from kongming.api.allocations import (
    AllocationHistory,
    AllocationItem,
    AllocationList,
    Parts,
)
from kongming.api.body import BodyReader
from kongming.api.hosts import HostItem, HostList
from kongming.api.microversion import Microversion
from kongming.conf.api import NOAUTH
from kongming.db.allocations import Allocations
from kongming.db.connecting import HURRIED
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.rpc.client import ConductorClient

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OF_PARTS = (
    AllocationList,
    AllocationItem,
    AllocationHistory,
    MapList,
    MapItem,
    HostList,
    HostItem,
)
_PUBLIC = (documents.Versions, documents.Version, documents.AllocationSchema)

_HEALTH = "healthcheck"
_HEALTH_PATH = f"/{_HEALTH}"

#: All that has a path; the OpenAPI document is made of them.
RESOURCES = (*_PUBLIC, documents.OpenApi, *_OF_PARTS)


def make_application(
    conf: cfg.ConfigOpts, database: Database | None = None, conductor: Any = None
) -> WSGIApplication:
    """Give the WSGI application; nothing is connected to yet.

    :param database: one that is there already.
    :param conductor: likewise, as :class:`ConductorClient`.
    :raises ConfigInvalid: if options can't be used.
    """
    database = database or Database(conf, HURRIED)
    parts = Parts(
        Allocations(database),
        Hosts(database),
        conductor or ConductorClient(conf),
        identity.Rights(policies.make_enforcer(conf)),
        BodyReader(conf.api.max_body_size),
        conf.api.max_limit,
        conf.api.max_map_instances,
    )
    app: falcon.App[Any, Any] = falcon.App(
        middleware=[
            Microversion(),
            identity.Identity(noauth=conf.api.auth_strategy == NOAUTH),
        ]
    )
    app.req_options.strip_url_path_trailing_slash = True
    handler = falcon.media.JSONHandler(dumps=json.dumps)
    app.resp_options.media_handlers["application/json"] = handler
    errors.install(app)
    document = openapi.build(RESOURCES)
    for kind in _PUBLIC:
        app.add_route(kind.path, kind())
    app.add_route(documents.OpenApi.path, documents.OpenApi(document))
    for resource in _OF_PARTS:
        app.add_route(resource.path, resource(parts))
    return _wrapped(app, conf)


def _wrapped(app: Any, conf: cfg.ConfigOpts) -> WSGIApplication:
    """Put around it what OpenStack's services have around theirs."""
    wrapped = identity.wrap(app, conf)
    if conf.api.auth_strategy != NOAUTH:
        # Else who asks from where could be made up.
        wrapped = http_proxy_to_wsgi.HTTPProxyToWSGI(wrapped, conf)
    conf.register_opts(opts.HEALTHCHECK_OPTS, group=_HEALTH)
    conf.set_default("backends", ["kongming_database"], group=_HEALTH)
    health = healthcheck.Healthcheck(None, conf)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        chosen = health if environ.get("PATH_INFO") == _HEALTH_PATH else wrapped
        answer: Iterable[bytes] = chosen(environ, start_response)
        return answer

    return headers.on_all_answers(request_ids.RequestId(application, conf))
