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

"""The dry run of a map over the bus: API, conductor and hosts, each with its own connection."""

from collections import Counter
import json
from types import SimpleNamespace
import uuid

import pytest

from kongming.allocation.allocation import Allocation
from kongming.cmd import launch
from kongming.conductor.dry_runs import DryRuns
from kongming.rpc.bus import CONDUCTOR, EXECUTOR, open_bus, subscription
from kongming.rpc.client import ConductorClient, ExecutorClient
from kongming.rpc.messages import Plan, PlanAnswer, Plans, PlansAnswer
from kongming.rpc.server import Method, Server
from kongming.tests.databases import instance
from kongming.tests.functional.cloud import wait_for

HOSTS = [f"compute-{number}" for number in range(10)]
WHERE = {instance(number): HOSTS[number % 10] for number in range(1, 1001)}
REQUESTED = {"vcpu_pinning": {str(vcpu): str(vcpu + 8) for vcpu in range(16)}}
#: What RabbitMQ accepts as one message.
MESSAGE_MAX = 16 * 2**20


class Bus:
    """The services of a bus; counts the calls, and keeps the size of the largest answer."""

    def __init__(self, path):
        config = path / "kongming.conf"
        url = f"fake:///{uuid.uuid4()}"
        config.write_text(f"[DEFAULT]\nstate_path = {path}\ntransport_url = {url}\n")
        self.conf = launch.configure(["--config-file", str(config)])
        self.calls, self.largest, self._served = Counter(), 0, []

    def serve(self, target, host, methods):
        listening, bus = [], open_bus(self.conf)
        counted = {name: Method(of, self._counted(name, work)) for name, (of, work) in methods}
        server = Server(counted, None, bus.refusals)
        taking = subscription(bus, target, host, server, lambda: listening.append(True), "")
        taking.start()
        self._served.append(taking)
        wait_for(lambda: listening)

    def _counted(self, name, work):
        def call(message):
            self.calls[name] += 1
            answer = work(message)
            # The driver quotes a message twice.
            sizes = [len(json.dumps(json.dumps(each.to_json()))) for each in (message, answer)]
            self.largest = max(self.largest, *sizes)
            return answer

        return call

    def stop(self):
        for each in self._served:
            each.stop(5)


def plan_of(host):
    steps = [
        {"target": f"vCPU {vcpu}", "from": "0-63", "to": str(vcpu + 8), "grant": ""}
        for vcpu in range(16)
    ]
    return PlanAnswer("planned", host, steps=tuple(steps))


def executor(host, *, old=False):
    def plan_all(plans):
        return PlansAnswer.limited(dict.fromkeys(plans.instances, plan_of(host)))

    yield "plan", (Plan, lambda _plan: plan_of(host))
    if not old:
        yield "plan_all", (Plans, plan_all)


@pytest.fixture
def bus(tmp_path):
    served = Bus(tmp_path)
    served.executors = ExecutorClient(open_bus(served.conf), 10.0)
    planning = DryRuns(served.executors, SimpleNamespace(hosts_of=lambda _uuids: WHERE))
    served.serve(CONDUCTOR, "controller", [("plan_all", (Plans, planning.plan_all))])
    yield served
    served.stop()


def dry_run(bus, number):
    allocation = Allocation.from_json(REQUESTED)
    uuids = [instance(each) for each in range(1, number + 1)]
    return ConductorClient(bus.conf).plan_all(dict.fromkeys(uuids, allocation))


def test_1000_instances_on_10_hosts_take_11_calls_of_bounded_size(bus):
    for host in HOSTS:
        bus.serve(EXECUTOR, host, executor(host))
    plans = dry_run(bus, 1000)
    assert {uuid: plan["host"] for uuid, plan in plans.items()} == WHERE
    assert {plan["outcome"] for plan in plans.values()} == {"planned"}
    assert sum(len(plan["steps"]) for plan in plans.values()) == 16_000
    assert bus.calls == {"plan_all": 11}
    assert bus.largest < MESSAGE_MAX / 4


def test_a_host_of_an_older_version_and_one_that_is_down_do_not_affect_the_others(bus):
    for host in HOSTS[1:]:
        bus.serve(EXECUTOR, host, executor(host, old=host == HOSTS[1]))
    bus.executors.set_host_timeout(2.0)
    plans = dry_run(bus, 20)
    outcomes = Counter((plan["host"], plan["outcome"], plan["reason"]) for plan in plans.values())
    down = (HOSTS[0], "unresponsive", "host_unresponsive")
    assert outcomes == dict.fromkeys([(host, "planned", "") for host in HOSTS[1:]], 2) | {down: 2}
    assert "does not consider the other instances" in plans[instance(1)]["warnings"][0]
    assert bus.calls == {"plan_all": 9, "plan": 2}
