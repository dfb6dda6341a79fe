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

"""kongming-manage: what is shown of a guest that can't be read as a whole."""

from contextlib import contextmanager, nullcontext
import logging
from types import SimpleNamespace

import libvirt
import pytest

from kongming import exception
from kongming.executor.store.residence import Hint, Place
from kongming.manage import state
from kongming.manage.allocation import AllocationShow, NovaReports
from kongming.tests.libvirt_errors import error
from kongming.tests.unit.domains import Domain, guest_of

LOG = logging.getLogger("manage")


@pytest.fixture
def placement_of(monkeypatch, caplog):
    """Return what is shown of a guest, and the warnings."""

    def placement_of(found):
        hypervisor = SimpleNamespace(guest=lambda _uuid: found)
        monkeypatch.setattr(state, "hypervisor", lambda _command: nullcontext(hypervisor))
        command = AllocationShow(SimpleNamespace(LOG=LOG), None)
        shown = command._placement(SimpleNamespace(instance_uuid="x"))
        return {name: column.machine_readable() for name, column in shown.items()}, caplog.messages

    return placement_of


def test_what_can_be_read_of_a_guest_is_shown(placement_of):
    guest = guest_of(Domain(schedulerParametersFlags=error(libvirt.VIR_ERR_INTERNAL_ERROR)))
    shown, warnings = placement_of(nullcontext(guest))
    assert shown["observed"]["vcpu_pinning"]
    assert "cpu_shares" not in shown["observed"]
    assert [each.partition(": ")[0] for each in warnings] == ["not observed"] * 2


def test_a_guest_that_does_not_run_has_no_placement(placement_of):
    @contextmanager
    def absent():
        raise exception.GuestAbsent("it does not run")
        yield

    shown, warnings = placement_of(absent())
    assert not any(shown.values())
    assert warnings == ["the current placement of the guest is unknown: it does not run"]


def test_novas_report_is_text_for_people_and_fields_for_programs():
    cell = NovaReports(Hint(Place.ELSEWHERE, "c2", "instance.update of nova-api", 0.0))
    assert cell.human_readable() == "it is on c2 (instance.update of nova-api)"
    assert cell.machine_readable() == {
        "place": "elsewhere",
        "host": "c2",
        "reported_by": "instance.update of nova-api",
        "reported_at": "1970-01-01T00:00:00Z",
        "uncertain": False,
    }
    assert (NovaReports(None).human_readable(), NovaReports(None).machine_readable()) == ("", None)
