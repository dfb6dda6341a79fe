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

"""What all tests have in common."""

import gc

import pytest

# Chooses oslo.service's backend before a test imports oslo.messaging.
import kongming.cmd.backend  # noqa: F401
from kongming.tests.testbed.abilities import FIXTURES, abilities
from kongming.tests.testbed.virtual_host import Shape
from kongming.tests.thorough import examples

# Nearly all that a collection of tests makes stays until the end: there is no garbage to look for.
gc.disable()

if Shape.of_this_host() is None:
    # There it is not used, and takes ten seconds to load.
    import hypothesis

    # On a machine that is busy an example may take any time.
    hypothesis.settings.register_profile("kongming", deadline=None, max_examples=examples(100))
    hypothesis.settings.load_profile("kongming")

# Named on the command line it reports itself why it refuses.
collect_ignore = [] if Shape.of_this_host() else ["numa"]

_LEFT_OUT = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what a plain container can't run; on a machine all tests are run."""
    left_out = {item: None for item in items if _needs_mounts(item)}
    if left_out and abilities().no_mounts is not None:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
        config.stash[_LEFT_OUT] = True


def _needs_mounts(item: pytest.Item) -> bool:
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    return item.get_closest_marker("needs_mounts") is not None or not FIXTURES.isdisjoint(fixtures)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a run of which all is left out pass: nothing has failed."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and _LEFT_OUT in session.config.stash:
        session.exitstatus = pytest.ExitCode.OK


def pytest_collection_finish() -> None:
    """Let garbage collections during the tests skip what was imported and collected before."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    gc.enable()
