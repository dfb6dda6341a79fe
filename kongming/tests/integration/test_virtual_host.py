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

"""Kongming on hosts of several NUMA nodes: boots them and runs kongming/tests/numa there."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
import sys

import pytest

from kongming.tests.testbed.broker import Broker
from kongming.tests.testbed.virtual_host import SERVER, Shape, VirtualHost

TESTS = Path(__file__).parents[1] / "numa"
TIMEOUT = 3600
VHOST = "virtual-host"
STORY = "test_service.py::test_all_parts_of_a_guest_move_from_node_to_node_and_back"
ALL = ("",)
# Those to which it makes a difference that there are more than two nodes.
MANY_NODES = ("test_topology.py", "test_memory.py", STORY, "test_service.py::test_host_show")


@pytest.fixture(scope="module", autouse=True)
def vhost(broker: Broker) -> None:
    # Of the machine's broker: in the virtual host one would take minutes to start.
    broker.add_vhost(VHOST)


@pytest.fixture(scope="module")
def small(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualHost]:
    """A host that is as small as it can be: each of its CPUs takes time."""
    root = tmp_path_factory.mktemp("small")
    with VirtualHost(root, Shape(cpus=4), reaches=broker.port) as host:
        process = Path(f"/proc/{host.pid}")
        yield host
        assert process.exists()
    assert not process.exists()


def run_inside(host: VirtualHost, broker: Broker, *tests: str) -> int:
    here, there = f"127.0.0.1:{broker.port}", "{}:{}".format(*SERVER)
    pytest_inside = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = host.run(
        [*pytest_inside, "--durations=5", *(str(TESTS / test) for test in tests)],
        TIMEOUT,
        cwd=TESTS.parents[2],
        env={
            "KONGMING_TEST_TRANSPORT_URL": broker.transport_url(VHOST).replace(here, there),
            # Plugins that are not needed there take half a minute.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        # What pytest here shows if the tests there fail.
        echo=partial(print, end=""),
    )
    return done.returncode


def test_a_guest_moves_from_node_to_node(broker: Broker, small: VirtualHost) -> None:
    assert run_inside(small, broker, STORY) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "tests"),
    [
        pytest.param(Shape(nodes=2, cgroup="v2"), ALL, id="2-nodes-v2"),
        pytest.param(Shape(nodes=2, cgroup="v1"), ALL, id="2-nodes-v1"),
        pytest.param(Shape(nodes=4, cgroup="v2"), MANY_NODES, id="4-nodes-v2"),
    ],
)
def test_on_a_virtual_host(
    broker: Broker, tmp_path: Path, shape: Shape, tests: tuple[str, ...]
) -> None:
    with VirtualHost(tmp_path, shape, reaches=broker.port) as host:
        assert run_inside(host, broker, *tests) == 0


def test_the_machine_is_unreachable(small: VirtualHost, tmp_path: Path) -> None:
    """What a host of its own changes stays with it, but for its share."""
    beside = tmp_path / "beside"
    beside.touch()
    done = small.run(["sh", "-c", f"rm {beside}; touch {small.share}/made; exit 3"], TIMEOUT)
    assert done.returncode == 3
    missing = small.run(["no-such-program"], TIMEOUT)
    assert missing.returncode == 127
    assert "no-such-program" in missing.stdout
    assert beside.exists()
    assert (small.share / "made").exists()
