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
"""The stand-alone API at a glance: API, conductor and executor, all in this process.

fake:// messaging, SQLite, libvirt's embedded QEMU driver; the API over real HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
import json
import os
from pathlib import Path
import threading
from typing import Any
import urllib.request
import uuid
from wsgiref import simple_server

from oslo_log import log
from story import explain, introduce, judged, running_guest, say

from kongming.allocation.cpuset import CpuSet
from kongming.api.application import make_application
from kongming.cmd import launch
from kongming.conductor.service import ConductorService
from kongming.db import migration
from kongming.db.database import Database
from kongming.hypervisor.connection import run_event_loop
from kongming.standalone.service import ExecutorService
from kongming.tests.testbed import threads
from kongming.tests.testbed.abilities import abilities, left_out
from kongming.tests.testbed.embedded import embedded_uri
from kongming.tests.testbed.process import free_port, wait_until

HOST = "demo-host"
VCPUS = 2
MAP = "demo-map"
# The window is to end while somebody looks, but not before it was seen to hold.
LEFT_S = 15

TITLE = (
    "An orchestrator hands Kongming's own HTTP API an allocation map; the host carries it out, "
    "and moves the vCPUs by itself when a time window ends."
)

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class _Quiet(simple_server.WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: what is asked is shown by who asks."""


class Api:
    """The API, asked over HTTP; each request is shown."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, method: str, path: str, body: Any = None, *, show: bool = True) -> Any:
        """Send a request and give the JSON of the answer."""
        if show:
            print(f"   {method} {path}")
            if body is not None:
                explain(json.dumps(body), indent=6)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with _opener.open(request, timeout=30) as response:
            text = response.read()
        return json.loads(text) if text else None


@contextmanager
def stage(root: Path) -> Iterator[tuple[Api, str]]:
    """Run the three services; give the API and libvirt's URI."""
    run_event_loop()
    uri = embedded_uri(root / "libvirt")
    config = root / "kongming.conf"
    config.write_text(
        f"[DEFAULT]\nhost = {HOST}\nstate_path = {root / 'state'}\nlog_file = {root / 'log'}\n"
        f"transport_url = fake://\n[libvirt]\nconnection_uri = {uri}\n"
        f"[database]\nconnection = sqlite:///{root / 'kongming.sqlite'}\n"
        "[api]\nauth_strategy = noauth\n[executor]\npull_interval = 2\n"
    )
    conf = launch.configure(["--config-file", str(config)])
    log.setup(conf, "kongming")
    migration.sync(Database(conf))
    services = [ConductorService(conf), ExecutorService(conf)]
    for service in services:
        service.start()
        if not service.ready.wait(60):
            raise TimeoutError("a service is not ready after 60 s")
    port = free_port()
    server = simple_server.make_server(
        "127.0.0.1", port, make_application(conf), handler_class=_Quiet
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Api(f"http://127.0.0.1:{port}"), uri
    finally:
        server.shutdown()
        for service in reversed(services):
            service.stop()


class Story:
    """One guest, an allocation map with a window, and what the threads do."""

    def __init__(self, api: Api, instance_uuid: str) -> None:
        self._api = api
        self._uuid = instance_uuid
        self.failed = False

    def tell(self) -> None:
        """Tell it from the map's arrival to the return to the baseline."""
        cpus = sorted(os.sched_getaffinity(0))
        day, night = {0: cpus[0], 1: cpus[-1]}, {0: cpus[-1], 1: cpus[0]}
        before = self._affinity()
        print(f"   /proc, at the start: {_shown(before)}")

        asked = {"vcpu_pinning": _written(day)}
        say("Ask for a dry run: what would be done?")
        explain("The host that runs the guest answers, and changes nothing.")
        plan = self._planned(f"/v1/allocations/{self._uuid}?dry_run=true", asked)
        for step in plan["steps"]:
            print(f"     {step['target']}: from {step['from']} to {step['to']}")
        self._expect(before, "after the dry run")

        window, ends = _window_that_ends_soon()
        say(f"Put an allocation map with a time window, which ends at {ends:%H:%M:%S} UTC")
        explain("In the window the two vCPUs change places.")
        windows = [{**window, "vcpu_pinning": _written(night)}]
        wanted = {self._uuid: {**asked, "windows": windows}}
        self._api.send("PUT", f"/v1/allocation-maps/{MAP}", {"allocations": wanted})
        self._show_status(self._settled())
        self._expect(_sets(night), "in the window")

        say(f"Wait for the window to end, {LEFT_S} s at most")
        explain("Nobody asks for anything: the host knows the window.")
        wait_until(lambda: self._affinity() == _sets(day), 90, "the base is back by itself")
        self._show_status(self._api.send("GET", f"/v1/allocations/{self._uuid}"))
        self._expect(_sets(day), "after the window")

        say("Look at the host")
        host = self._api.send("GET", f"/v1/hosts/{HOST}")
        print(
            f"   {HOST}: {host['state']}, {host['guests']} guest, "
            f"{host['violations']} violations of placement"
        )

        say("Delete the map")
        explain("The guest returns to its baseline: what it had before Kongming touched it.")
        self._api.send("DELETE", f"/v1/allocation-maps/{MAP}")
        wait_until(lambda: self._affinity() == before, 60, "the baseline is back")
        self._expect(before, "at the end")

    def _planned(self, path: str, asked: dict[str, Any]) -> Any:
        def planned() -> Any:
            answer = self._api.send("PUT", path, {"allocation": asked}, show=False)
            return answer if answer["outcome"] == "planned" else None

        print(f"   PUT {path}")
        return wait_until(planned, 60, "the host is known and plans")

    def _settled(self) -> Any:
        def settled() -> Any:
            told = self._api.send("GET", f"/v1/allocations/{self._uuid}", show=False)
            return None if told["status"] in ("pending", "absent") else told

        return wait_until(settled, 60, "an outcome")

    def _show_status(self, told: Any) -> None:
        print(
            f"   status {told['status']}, window {told['window'] or 'none'}, "
            f"next change {told['next_change']}"
        )

    def _affinity(self) -> dict[int, frozenset[int]]:
        return threads.vcpu_affinity(self._uuid)

    def _expect(self, wanted: dict[int, frozenset[int]], when: str) -> None:
        now = self._affinity()
        right = now == wanted
        self.failed |= not right
        print(f"   /proc, {when}: {_shown(now)}  {judged(right)}")


def _window_that_ends_soon() -> tuple[dict[str, Any], datetime]:
    """Return a window that has begun already, at a full minute, and when it ends."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LEFT_S)
    # The shortest window has a minute.
    begin = (ends - timedelta(minutes=1)).replace(second=0)
    window = {
        "name": "night-shift",
        "start": f"{begin.minute} {begin.hour} * * *",
        "duration_s": int((ends - begin).total_seconds()),
        "timezone": "UTC",
    }
    return window, ends


def _written(pins: dict[int, int]) -> dict[str, str]:
    return {str(vcpu): str(cpu) for vcpu, cpu in pins.items()}


def _sets(pins: dict[int, int]) -> dict[int, frozenset[int]]:
    return {vcpu: frozenset([cpu]) for vcpu, cpu in pins.items()}


def _shown(affinity: dict[int, frozenset[int]]) -> str:
    return ", ".join(f"vCPU {vcpu} on {CpuSet(cpus)}" for vcpu, cpus in affinity.items())


def show(root: Path) -> bool:
    """Run the story on a guest of its own; tell whether all came as asked."""
    introduce(TITLE, left_out(abilities(), embedded=True))
    say("Start API, conductor and executor in this process: SQLite, embedded QEMU driver")
    with stage(root) as (api, uri):
        instance_uuid = str(uuid.uuid4())
        say(f"Start a guest with {VCPUS} vCPUs: instance {instance_uuid}")
        with running_guest(uri, instance_uuid, vcpus=VCPUS):
            story = Story(api, instance_uuid)
            story.tell()
    return not story.failed
