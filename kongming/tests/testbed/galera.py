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

"""A private Galera cluster: MariaDB servers on the loopback interface that write at once."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pymysql

from kongming.tests.testbed.mariadb import PASSWORD, USER, MariaDB
from kongming.tests.testbed.process import Service, free_port, wait_until

PACKAGE = "galera-4"
LIBRARY = Path("/usr/lib/galera/libgalera_smm.so")
TIMEOUT = 60


class Galera(Service):
    """Some nodes of one cluster; a context manager.

    :ivar nodes: its servers; what is made in one is made in all
    """

    def __init__(self, root: Path, number: int = 2) -> None:
        if not LIBRARY.exists():
            raise FileNotFoundError(f"{LIBRARY} is not there: apt-get install {PACKAGE}")
        self.nodes: list[MariaDB] = []
        self._root = root
        self._number = number
        self._running = ExitStack()

    def start(self) -> None:
        """Return when all nodes are synchronized."""
        ports = [free_port() for _ in range(2 * self._number)]
        members = ",".join(f"127.0.0.1:{port}" for port in ports[: self._number])
        for place in range(self._number):
            options = _options(f"node-{place}", ports[place], ports[self._number + place])
            options.append(f"--wsrep-cluster-address=gcomm://{members if place else ''}")
            node = MariaDB(self._root / f"node-{place}", options=options)
            if place:
                node.prepare()
                state = _status(self.nodes[0])
                # All begin alike, so that there is nothing to hand over.
                (node.data / "grastate.dat").write_text(
                    "# GALERA saved state\nversion: 2.1\nsafe_to_bootstrap: 0\n"
                    f"uuid: {state['wsrep_local_state_uuid']}\n"
                    f"seqno: {state['wsrep_last_committed']}\n"
                )
            self.nodes.append(self._running.enter_context(node))
        wait_until(self._is_whole, TIMEOUT, "all nodes are members of the cluster")

    def _is_whole(self) -> bool:
        needed = {
            "wsrep_cluster_size": str(len(self.nodes)),
            "wsrep_local_state_comment": "Synced",
        }
        return all(needed.items() <= _status(node).items() for node in self.nodes)

    def _end(self) -> None:
        self._running.close()


def _options(name: str, port: int, transfer_port: int) -> list[str]:
    provider = f"gmcast.listen_addr=tcp://127.0.0.1:{port};ist.recv_addr=127.0.0.1:{transfer_port}"
    return [
        "--wsrep-on=ON",
        f"--wsrep-provider={LIBRARY}",
        f"--wsrep-provider-options={provider};gcache.size=16M",
        "--wsrep-cluster-name=kongming",
        f"--wsrep-node-name={name}",
        f"--wsrep-node-address=127.0.0.1:{port}",
        "--wsrep-sst-method=skip",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--default-storage-engine=InnoDB",
    ]


def _status(node: MariaDB) -> dict[str, str]:
    with (
        closing(
            pymysql.connect(host="127.0.0.1", port=node.port, user=USER, password=PASSWORD)
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SHOW STATUS LIKE 'wsrep_%'")
        return dict(cursor.fetchall())
