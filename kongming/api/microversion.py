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

"""Microversions of the API."""

from __future__ import annotations

from typing import Any

import falcon
import microversion_parse

from kongming.api import errors

SERVICE_TYPE = "kongming"
HEADER = "OpenStack-API-Version"
VERSIONS = ("1.0",)
MIN_VERSION, MAX_VERSION = VERSIONS[0], VERSIONS[-1]


class Microversion:
    """Falcon middleware that reads the version of each request, and adds it to the response."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Read the version.

        :raises VersionUnsupported: if it is not supported.
        """
        req.context.version = MIN_VERSION
        headers = microversion_parse.headers_from_wsgi_environ(req.env)
        try:
            found = microversion_parse.extract_version(headers, SERVICE_TYPE, VERSIONS)
        except (TypeError, ValueError):
            raise errors.VersionUnsupported(
                f"no such version; the header {HEADER} accepts {SERVICE_TYPE} {MIN_VERSION} to "
                f"{MAX_VERSION}, or latest"
            ) from None
        req.context.version = str(found)

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        _resource: object,
        _req_succeeded: bool,
    ) -> None:
        """Add the version."""
        version: Any = getattr(req.context, "version", MIN_VERSION)
        resp.set_header(HEADER, f"{SERVICE_TYPE} {version}")
        resp.append_header("Vary", HEADER)
