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

"""What libvirt has of an instance, and what its events say of that."""

from contextlib import nullcontext

import libvirt
import pytest

from kongming import exception
from kongming.hypervisor import hypervisor
from kongming.hypervisor.hypervisor import Hypervisor
from kongming.tests.unit.test_guest import UUID, Domain, error

STOPPED, UNDEFINED = libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED
STARTED, RESUMED = libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_RESUMED
MIGRATED, DESTROYED = (
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED,
)


class Connection:
    """A libvirt with one domain, or none."""

    def __init__(self, domain=None):
        self._domain = domain

    def lookupByUUIDString(self, _uuid):  # noqa: N802
        if self._domain is None:
            raise error(libvirt.VIR_ERR_NO_DOMAIN)
        return self._domain

    def isAlive(self):  # noqa: N802
        return True

    def getInfo(self):  # noqa: N802
        return ["x86_64", 2048, 4, 2000, 1, 1, 4, 1]

    def getCPUMap(self):  # noqa: N802
        return 4, [True] * 4, 4

    def getCapabilities(self):  # noqa: N802
        return "<capabilities><host/></capabilities>"


def look(domain=None):
    connection = Connection(domain)
    return Hypervisor("test:///default", lambda: nullcontext(connection))


def happen(found, event, detail=0, uuid=UUID):
    found._lifecycle(None, Domain(UUIDString=uuid), event, detail, None)


def absent(found, uuid=UUID):
    with pytest.raises(exception.GuestAbsent) as raised, found.guest(uuid):
        pass
    return raised.value


def test_a_domain_that_is_off_is_told_from_one_that_is_not_there():
    assert isinstance(absent(look(Domain(ID=-1))), exception.DomainOff)
    gone = absent(look())
    assert isinstance(gone, exception.DomainGone)
    assert not gone.migrated
    assert gone.reason == "guest_absent"


@pytest.mark.parametrize(
    ("happened", "migrated"),
    [
        ([(STOPPED, MIGRATED)], True),
        ([(STOPPED, MIGRATED), (UNDEFINED, 0)], True),
        ([(STOPPED, DESTROYED)], False),
        ([(UNDEFINED, 0)], False),
        # It has come back since.
        ([(STOPPED, MIGRATED), (STARTED, 0), (STOPPED, DESTROYED)], False),
        ([(STOPPED, MIGRATED), (RESUMED, 0)], False),
    ],
)
def test_that_a_guest_was_migrated_away_is_known_by_libvirts_events(happened, migrated):
    found = look()
    for event, detail in happened:
        happen(found, event, detail)
    assert absent(found).migrated is migrated
    assert not absent(found, UUID[:-1] + "0").migrated


def test_that_a_guest_was_migrated_away_counts_once():
    found = look()
    happen(found, STOPPED, MIGRATED)
    assert absent(found).migrated
    assert absent(found).migrated
    found.forget_migrated(UUID)
    assert not absent(found).migrated


def test_those_that_were_migrated_away_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(hypervisor, "_MIGRATED_MAX", 2)
    found = look()
    for number in range(3):
        happen(found, STOPPED, MIGRATED, uuid=f"{UUID[:-1]}{number}")
    told = [absent(found, f"{UUID[:-1]}{number}").migrated for number in range(3)]
    assert told == [False, True, True]


class Suspended(Domain):
    """A suspended guest; what is done with its image fails, and then it is as it is ``then``."""

    def __init__(self, fails, then):
        super().__init__(
            isActive=0,
            hasManagedSaveImage=1,
            managedSaveGetXMLDesc=error(fails),
        )
        self._then = then

    def managedSaveGetXMLDesc(self, _flags):  # noqa: N802
        self._answers |= self._then
        raise self._answers["managedSaveGetXMLDesc"]


@pytest.mark.parametrize(
    "then",
    [
        {"isActive": 1},
        {"hasManagedSaveImage": 0},
        {"isActive": error(libvirt.VIR_ERR_NO_DOMAIN)},
        {"hasManagedSaveImage": error(libvirt.VIR_ERR_NO_DOMAIN)},
    ],
    ids=["resumed", "its image discarded", "deleted", "deleted a moment later"],
)
def test_a_suspended_guest_that_is_no_more_meanwhile_has_nothing_to_release(then):
    domain = Suspended(libvirt.VIR_ERR_NO_DOMAIN, then)
    assert look(domain).release_saved(UUID) is False


def test_an_image_that_cannot_be_changed_is_a_failure():
    with pytest.raises(exception.Failed, match="changing the saved image"):
        look(Suspended(libvirt.VIR_ERR_INTERNAL_ERROR, {})).release_saved(UUID)
