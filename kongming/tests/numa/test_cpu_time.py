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

"""Shares, quota and period of a running guest, by libvirt's own means.

libvirt reads them from the control groups: what is read back is in force.
"""

import libvirt
import pytest

MOST = 17592186044415
"""The greatest quota that libvirt takes."""
PERIOD = 100_000


@pytest.fixture
def unlimited(shape):
    """How libvirt reads "no quota" back."""
    return MOST if shape.cgroup == "v2" else -1


@pytest.fixture
def default_shares(shape):
    return 100 if shape.cgroup == "v2" else 1024


@pytest.fixture
def guest(plain, default_shares):
    """A guest without any limit."""
    plain.set_cpu_time(cpu_shares=default_shares, vcpu_quota=-1, vcpu_period=PERIOD)
    return plain


def refused(guest, **parameters):
    with pytest.raises(libvirt.libvirtError) as refusal:
        guest.set_cpu_time(**parameters)
    return refusal.value.get_error_code()


def test_no_limit(guest, default_shares, unlimited):
    assert guest.cpu_time() == (default_shares, unlimited, PERIOD)


def test_a_quota(guest, default_shares):
    guest.set_cpu_time(vcpu_quota=20_000)
    assert guest.cpu_time() == (default_shares, 20_000, PERIOD)
    guest.set_cpu_time(vcpu_quota=200_000, vcpu_period=50_000)
    assert guest.cpu_time() == (default_shares, 200_000, 50_000)


def test_minus_one_lifts_a_quota(guest, unlimited):
    guest.set_cpu_time(vcpu_quota=20_000)
    guest.set_cpu_time(vcpu_quota=-1)
    assert guest.cpu_time()[1] == unlimited


def test_the_greatest_quota_is_none(guest):
    guest.set_cpu_time(vcpu_quota=20_000)
    guest.set_cpu_time(vcpu_quota=MOST)
    # On v1 it is a quota as any other, though it limits nobody.
    assert guest.cpu_time()[1] == MOST


def test_zero_changes_nothing(guest):
    guest.set_cpu_time(vcpu_quota=20_000, vcpu_period=50_000)
    before = guest.cpu_time()
    guest.set_cpu_time(vcpu_quota=0)
    guest.set_cpu_time(vcpu_period=0)
    assert guest.cpu_time() == before


@pytest.mark.parametrize(
    "parameter",
    [
        {"vcpu_quota": 999},
        {"vcpu_quota": MOST + 1},
        {"vcpu_period": 999},
        {"vcpu_period": 1_000_001},
        {"cpu_shares": 1},
        {"cpu_shares": 262_145},
    ],
    ids=str,
)
def test_out_of_range(guest, parameter):
    before = guest.cpu_time()
    assert refused(guest, **parameter) == libvirt.VIR_ERR_INVALID_ARG
    assert guest.cpu_time() == before


@pytest.mark.parametrize("parameter", [{"vcpu_quota": 1000}, {"vcpu_period": 1000}], ids=str)
def test_the_least(guest, parameter):
    guest.set_cpu_time(**parameter)
    assert next(iter(parameter.values())) in guest.cpu_time()


def test_shares(guest, shape):
    for shares in (2, 10_000):
        guest.set_cpu_time(cpu_shares=shares)
        assert guest.cpu_time()[0] == shares
    # v2's weights end there.
    if shape.cgroup == "v2":
        assert refused(guest, cpu_shares=10_001) == libvirt.VIR_ERR_SYSTEM_ERROR
        assert guest.cpu_time()[0] == 10_000
    else:
        guest.set_cpu_time(cpu_shares=262_144)
        assert guest.cpu_time()[0] == 262_144


def test_a_refused_change_may_be_half_done(guest, unlimited):
    assert refused(guest, cpu_shares=300, vcpu_quota=5) == libvirt.VIR_ERR_INVALID_ARG
    assert guest.cpu_time() == (300, unlimited, PERIOD)


def test_a_single_threaded_guest_takes_a_quota_without_effect(single_threaded, shape, unlimited):
    guest = single_threaded
    before = guest.cpu_time()
    guest.set_cpu_time(vcpu_quota=20_000, vcpu_period=50_000)
    assert guest.cpu_time() == before
    # Without groups for the vCPUs, libvirt shares out the quota of the whole guest.
    vcpus = guest.domain.maxVcpus()
    assert before[1] == (MOST // vcpus if shape.cgroup == "v2" else unlimited)
    guest.set_cpu_time(cpu_shares=300)
    assert guest.cpu_time()[0] == 300
