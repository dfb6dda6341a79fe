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
STORY = ("test_service.py::test_all_parts_of_a_guest_move_from_node_to_node_and_back",)
ALL = ("",)
# Those to which it makes a difference that there are more than two nodes.
MANY_NODES = (
    "test_topology.py",
    "test_memory.py",
    "test_service.py::test_all_parts_of_a_guest_move_from_node_to_node_and_back",
    "test_service.py::test_host_show",
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    # Not in the virtual host, where it takes minutes to start.
    with Broker(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.mark.parametrize(
    ("shape", "tests"),
    [
        pytest.param(Shape(nodes=2, cgroup="v2"), STORY, id="a-story"),
        pytest.param(Shape(nodes=2, cgroup="v2"), ALL, id="2-nodes-v2", marks=pytest.mark.slow),
        pytest.param(Shape(nodes=2, cgroup="v1"), ALL, id="2-nodes-v1", marks=pytest.mark.slow),
        pytest.param(
            Shape(nodes=4, cgroup="v2"), MANY_NODES, id="4-nodes-v2", marks=pytest.mark.slow
        ),
    ],
)
def test_on_a_virtual_host(
    broker: Broker, tmp_path: Path, shape: Shape, tests: tuple[str, ...]
) -> None:
    pytest_inside = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    with VirtualHost(tmp_path, shape, reaches=broker.port) as host:
        done = host.run(
            [*pytest_inside, "--durations=5", *(str(TESTS / test) for test in tests)],
            TIMEOUT,
            cwd=TESTS.parents[2],
            env={"KONGMING_TEST_TRANSPORT_URL": "rabbit://guest:guest@{}:{}/".format(*SERVER)},
            # What pytest here shows if the tests there fail.
            echo=partial(print, end=""),
        )
    assert done.returncode == 0


def test_the_machine_is_unreachable(tmp_path: Path) -> None:
    """What a host of its own changes stays with it, but for its share."""
    beside = tmp_path / "beside"
    beside.touch()
    with VirtualHost(tmp_path, Shape()) as host:
        done = host.run(["sh", "-c", f"rm {beside}; touch {host.share}/made; exit 3"], TIMEOUT)
        assert done.returncode == 3
        missing = host.run(["no-such-program"], TIMEOUT)
        assert missing.returncode == 127
        assert "no-such-program" in missing.stdout
        process = Path(f"/proc/{host.pid}")
        assert process.exists()
    assert beside.exists()
    assert (host.share / "made").exists()
    assert not process.exists()
