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

"""Serves metrics to Prometheus over HTTP, from a registry of its own.

This imports prometheus_client and an HTTP server: import it only to serve metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http.server import ThreadingHTTPServer
import logging
import socket
import socketserver
import sys
import threading
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import InfoMetricFamily
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from kongming import exception, version

LOG = logging.getLogger(__name__)

_CLIENT_TIMEOUT_S = 10.0


class Endpoint:
    """The port that Prometheus scrapes.

    :param collectors: what it serves, besides the process and the version.
    """

    def __init__(self, address: str, port: int, collectors: Iterable[Collector]) -> None:
        """Bind the port; nothing is served yet.

        :raises ConfigInvalid: if the port is unavailable.
        """
        registry = CollectorRegistry()
        for collector in (_BuildCollector(), *collectors):
            registry.register(collector)
        # It includes the time of the start.
        ProcessCollector(registry=registry)
        try:
            self._server = _server(address, port, registry)
        except OSError as error:
            raise exception.ConfigInvalid(
                f"[metrics] listen_address {address}, listen_port {port}: "
                f"{error.strerror or error}; choose an address of this host and a free port, or "
                "set enabled to false"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def start(self) -> None:
        """Serve, in threads of its own; returns at once."""
        self._thread.start()
        LOG.info("Serving metrics for Prometheus at %s port %d", *self._server.server_address[:2])

    def stop(self) -> None:
        """Stop serving and release the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _BuildCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "kongming_build", "The running version.", {"version": version.release()}
        )


class _Server(ThreadingHTTPServer):
    def __init__(self, family: int, where: Any, handler: type[MetricsHandler]) -> None:
        self.address_family = family
        super().__init__(where, handler)

    def server_bind(self) -> None:
        # HTTPServer's own method would wait for a name server to resolve this host.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            LOG.debug("A scrape from %s was interrupted: %s", client_address, error)
        else:
            LOG.error("A fault of Kongming in answering a scrape", exc_info=error)


def _server(address: str, port: int, registry: CollectorRegistry) -> _Server:
    family, *_, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    handler = type("Handler", (MetricsHandler.factory(registry),), {"timeout": _CLIENT_TIMEOUT_S})
    return _Server(family, where, handler)
