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

"""Three RabbitMQ nodes that are one cluster, and what comes between them.

Their distribution of Erlang is cut by cookies that do not match: no packet filter is needed, and
each node can still be spoken to.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.process import Service, wait_until

_SIZE = 3
_TIMEOUT_S = 120


class BrokerCluster(Service):
    """A cluster of its own: epmd, cookie and ports; a context manager."""

    def __init__(self, root: Path) -> None:
        settings: dict[str, object] = {
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_formation.randomized_startup_delay_range.max": 1,
        }
        first = Broker(root / "1", settings=settings)
        others = [
            Broker(root / str(number), settings=settings, beside=first)
            for number in range(2, _SIZE + 1)
        ]
        self.nodes = [first, *others]
        for number, node in enumerate(self.nodes, 1):
            settings[f"cluster_formation.classic_config.nodes.{number}"] = node.name
        self._started = ExitStack()

    def start(self) -> None:
        """Return when all are one cluster."""
        for node in self.nodes:
            self._started.enter_context(node)
        self._wait_running(self.nodes[0], _SIZE)

    def handle_partitions(self, how: str) -> None:
        """Set cluster_partition_handling."""
        for node in self.nodes:
            node.evaluate(f"application:set_env(rabbit, cluster_partition_handling, {how})")

    def cut_off(self, island: Broker) -> None:
        """Cut one node off from the others, which stay together."""
        others = [node for node in self.nodes if node is not island]
        for node in others:
            node.evaluate(f"erlang:set_cookie('{island.name}', one_side)")
        names = ", ".join(f"'{node.name}'" for node in others)
        island.evaluate(
            f"[begin erlang:set_cookie(N, other_side), erlang:disconnect_node(N) end "
            f"|| N <- [{names}]]"
        )
        self._wait_running(others[0], _SIZE - 1)

    def heal(self) -> None:
        """Let all speak with each other again."""
        for node in self.nodes:
            names = ", ".join(f"'{each.name}'" for each in self.nodes if each is not node)
            node.evaluate(
                f"[erlang:set_cookie(N, erlang:get_cookie()) || N <- [{names}]]",
            )
        for node in self.nodes[1:]:
            self.nodes[0].evaluate(f"net_adm:ping('{node.name}')")

    def restart_app(self, node: Broker) -> None:
        """Restart RabbitMQ on one node, as is done by hand after a partition."""
        node.run("rabbitmqctl stop_app")
        node.run("rabbitmqctl start_app")

    def wait_whole(self) -> None:
        """Wait until each node runs, and knows that the others do."""
        for node in self.nodes:
            self._wait_running(node, _SIZE)

    def _wait_running(self, node: Broker, number: int) -> None:
        def running() -> bool:
            counted = node.evaluate("length(rabbit_mnesia:cluster_nodes(running))")
            return counted.strip() == str(number)

        wait_until(running, _TIMEOUT_S, f"{number} nodes run")

    def _end(self) -> None:
        self._started.close()
