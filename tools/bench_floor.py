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

"""The floors of bench_standalone.py: the least that could take requests, and calls.

Run by gunicorn as ``bench_floor:application``, and as a script with ``--floor``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import json
import os
from pathlib import Path
import sys
import threading
from typing import Any

import pymysql

DATABASE = "KONGMING_BENCH_DATABASE"
TABLE = "CREATE TABLE floor (name VARCHAR(36) PRIMARY KEY, told TEXT)"
_WRITE = (
    "INSERT INTO floor (name, told) VALUES (%s, %s) ON DUPLICATE KEY UPDATE told = VALUES(told)"
)
_READ = "SELECT told FROM floor WHERE name = %s"

_of_thread = threading.local()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read a row of the database and answer with it, or write what comes, and commit."""
    if not hasattr(_of_thread, "connection"):
        _of_thread.connection = pymysql.connect(**json.loads(os.environ[DATABASE]))
    connection = _of_thread.connection
    answer = b"{}"
    with connection.cursor() as cursor:
        if environ["REQUEST_METHOD"] == "GET":
            cursor.execute(_READ, environ["PATH_INFO"].rpartition("/")[2])
            answer = cursor.fetchone()[0].encode()
        else:
            body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            several = body.get("allocations") or {environ["PATH_INFO"].rpartition("/")[2]: body}
            rows = [(name, json.dumps(told)) for name, told in several.items()]
            cursor.executemany(_WRITE, rows)
    connection.commit()
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    )
    return [answer]


def answer_calls(transport_url: str, out: str) -> None:
    """Answer what executors call with what says nothing."""
    from kongming.cmd import launch
    from kongming.rpc.bus import CONDUCTOR, open_bus, subscription
    from kongming.rpc.messages import Exchange, ExchangeAnswer
    from kongming.rpc.server import Method, Server

    def exchange(_told: Exchange) -> ExchangeAnswer:
        return ExchangeAnswer({}, ())

    conf_file = Path(out).with_suffix(".conf")
    conf_file.write_text(f"[DEFAULT]\ntransport_url = {transport_url}\n")
    bus = open_bus(launch.configure(["--config-file", str(conf_file)]))
    server = Server({"exchange": Method(Exchange, exchange, by_host=True)}, None, bus.refusals)
    subscription(bus, CONDUCTOR, Path(out).name, server, Path(out).touch, "").start()
    threading.Event().wait()


if __name__ == "__main__":
    import kongming.cmd.backend  # noqa: F401  (chooses oslo.service's backend)

    answer_calls(*sys.argv[3:])
