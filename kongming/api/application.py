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

import atexit
from collections.abc import Iterable
import json
from typing import TYPE_CHECKING, Any

import falcon
from oslo_config import cfg
from oslo_context.context import RequestContext
from oslo_middleware import cors, healthcheck, http_proxy_to_wsgi
from oslo_middleware import request_id as request_ids
from oslo_middleware.healthcheck import opts

from kongming import exception, policies
from kongming.allocation.cpuset import shown
from kongming.api import documents, errors, headers, identity, openapi
from kongming.api.allocations import Parts
from kongming.api.body import BodyReader
from kongming.api.microversion import Microversion
from kongming.api.resources import OF_PARTS, PUBLIC, RESOURCES
from kongming.api.tokens import TokenCheck
from kongming.api.waiting import Waiting
from kongming.conf.api import CORS, CORS_DEFAULTS, HEALTHCHECK, HEALTHCHECK_OPTS, NOAUTH
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.rpc.client import ConductorClient
from kongming.runtime.server_threads import ServerThreads

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# The time at the end to send the last hints to the conductors.
_FLUSH_S = 1.0


def make_application(
    conf: cfg.ConfigOpts, database: Database | None = None, conductor: Any = None
) -> WSGIApplication:
    """Return the WSGI application; it connects at the first request.

    :param database: an existing database to use instead.
    :param conductor: an existing :class:`ConductorClient`, likewise.
    :raises ConfigInvalid: if options can't be used.
    """
    threads = ServerThreads(conf.api.server_threads)
    database = database or Database(conf, threads=threads)
    waiting = Waiting(threads)
    parts = Parts(
        Allocations(database),
        Hosts(database),
        conductor or _conductor(conf),
        identity.Rights(policies.make_enforcer(conf)),
        waiting,
        BodyReader(conf.api.max_body_size),
        conf.api.max_limit,
        conf.api.max_map_instances,
    )
    tokens = None if conf.api.auth_strategy == NOAUTH else TokenCheck(conf, waiting)
    middleware: list[Any] = [Microversion(), identity.Identity(tokens)]
    if conf.api.audit_map_file:
        middleware.append(_audit(conf))
    app: falcon.App[Any, Any] = falcon.App(middleware=middleware)
    app.req_options.strip_url_path_trailing_slash = True
    handler = falcon.media.JSONHandler(dumps=json.dumps)
    app.resp_options.media_handlers["application/json"] = handler
    errors.install(app)
    document = openapi.build(RESOURCES)
    for kind in PUBLIC:
        app.add_route(kind.path, kind())
    app.add_route(documents.OpenApi.path, documents.OpenApi(document))
    for resource in OF_PARTS:
        app.add_route(resource.path, resource(parts))
    return _wrapped(app, conf)


def _audit(conf: cfg.ConfigOpts) -> Any:
    # Imported here, as its import takes long.
    from kongming.api.audit import Audit

    return Audit(conf)


def _conductor(conf: cfg.ConfigOpts) -> ConductorClient:
    made = ConductorClient(conf)
    atexit.register(made.outbox.flush, _FLUSH_S)
    return made


def _wrapped(app: Any, conf: cfg.ConfigOpts) -> WSGIApplication:
    """Return the application inside the usual middleware of OpenStack."""
    wrapped = app
    if conf.api.auth_strategy != NOAUTH:
        # Otherwise a client could forge its address.
        wrapped = headers.first_of_forwarded(http_proxy_to_wsgi.HTTPProxyToWSGI(wrapped, conf))
    wrapped = _for_browsers(wrapped, conf)
    health, health_path = _health(conf)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # This must come first: the thread still has the context of its previous request.
        RequestContext.from_environ(_only_ids(environ))
        chosen = health if environ.get("PATH_INFO") == health_path else wrapped
        answer: Iterable[bytes] = chosen(environ, start_response)
        return answer

    return headers.on_all_answers(request_ids.RequestId(application, conf))


def _for_browsers(app: WSGIApplication, conf: cfg.ConfigOpts) -> WSGIApplication:
    """Return the application for pages of the origins in ``[cors] allowed_origin``, too."""
    conf.register_opts(cors.OPTS, group=CORS)
    for name, value in CORS_DEFAULTS.items():
        conf.set_default(name, value, group=CORS)
    return cors.CORS(app, conf) if conf[CORS].allowed_origin else app


def _only_ids(environ: WSGIEnvironment) -> dict[str, Any]:
    """Return only the ids of a request, without claims of the client."""
    names = (request_ids.ENV_REQUEST_ID, request_ids.GLOBAL_REQ_ID)
    return {name: environ[name] for name in names if name in environ}


def _health(conf: cfg.ConfigOpts) -> tuple[WSGIApplication, str]:
    """Return the health check and its path."""
    registered = {option.dest for option in opts.HEALTHCHECK_OPTS}
    # Older versions of the library have an option for the path.
    ours = [] if "path" in registered else HEALTHCHECK_OPTS
    conf.register_opts([*opts.HEALTHCHECK_OPTS, *ours], group=HEALTHCHECK)
    conf.set_default("backends", ["kongming_database"], group=HEALTHCHECK)
    path: str = conf[HEALTHCHECK].path
    if path == "/" or not path.startswith("/") or path in {kind.path for kind in RESOURCES}:
        raise exception.ConfigInvalid(
            f"[{HEALTHCHECK}] path {shown(path)} can't be used: it must begin with / and must not "
            "be a path of the API, for example /healthcheck"
        )
    return healthcheck.Healthcheck(None, conf), path
