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

from collections.abc import Sequence
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
        self.wait_whole()

    def handle_partitions(self, how: str) -> None:
        """Set cluster_partition_handling."""
        setting = f"application, set_env, [rabbit, cluster_partition_handling, {how}]"
        self.nodes[0].evaluate(_on(self.nodes, setting))

    def cut_off(self, island: Broker) -> None:
        """Cut one node off from the others, which stay together."""
        others = [node for node in self.nodes if node is not island]
        others[0].evaluate(_on(others, f"erlang, set_cookie, ['{island.name}', one_side]"))
        island.evaluate(
            f"[begin erlang:set_cookie(N, other_side), erlang:disconnect_node(N) end "
            f"|| N <- {_names(others)}]"
        )
        wait_until(lambda: self._running(others) == {_SIZE - 1}, _TIMEOUT_S, "it is cut off")

    def heal(self, island: Broker) -> None:
        """Let a node that was cut off speak with the others again."""
        others = [node for node in self.nodes if node is not island]
        back = f"[erlang:set_cookie(N, erlang:get_cookie()) || N <- {_names(others)}]"
        island.evaluate(back)
        cookie = f"['{island.name}', erlang:get_cookie()]"
        others[0].evaluate(
            _on(others, f"erlang, set_cookie, {cookie}"),
            _on(others, f"net_adm, ping, ['{island.name}']"),
        )

    def restart_app(self, node: Broker) -> None:
        """Restart RabbitMQ on one node, as is done by hand after a partition."""
        node.run("rabbitmqctl stop_app")
        node.run("rabbitmqctl start_app")

    def wait_whole(self) -> None:
        """Wait until each node runs, and knows that the others do."""
        wait_until(lambda: self._running(self.nodes) == {_SIZE}, _TIMEOUT_S, "all nodes run")

    def _running(self, nodes: Sequence[Broker]) -> set[int]:
        """Return how many nodes run, as some of them see it; at the cost of one command."""
        output = nodes[-1].evaluate(
            f"[catch length(rpc:call(N, rabbit_mnesia, cluster_nodes, [running])) "
            f"|| N <- {_names(nodes)}]"
        )
        counted = output.strip().strip("[]").split(",")
        return {int(each) if each.strip().isdigit() else 0 for each in counted}

    def _end(self) -> None:
        self._started.close()


def _names(nodes: Sequence[Broker]) -> str:
    return f"[{', '.join(repr(node.name) for node in nodes)}]"


def _on(nodes: Sequence[Broker], call: str) -> str:
    return f"[rpc:call(N, {call}) || N <- {_names(nodes)}]"
