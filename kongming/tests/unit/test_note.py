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

"""Our note in a domain: written to the live domain, and taken out of the definition again."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import libvirt
import pytest

from kongming import exception
from kongming.allocation import target
from kongming.allocation.cpuset import CpuSet
from kongming.allocation.target import Quota
from kongming.hypervisor import baseline_element, definition, occupancy
from kongming.hypervisor.host import Host
from kongming.tests.libvirt_errors import error
from kongming.tests.unit.domains import Domain, guest_of

HOST = Host(CpuSet(range(4)), CpuSet(range(4)), CpuSet([0, 1]))
LIVE, DEFINED = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
BASELINE = {
    target.vcpu(0): CpuSet(range(4)),
    target.EMULATOR: CpuSet([0, 1]),
    target.iothread(1): CpuSet([2]),
    target.MEMORY: CpuSet([0, 1]),
    target.SHARES: 100,
    target.QUOTA: Quota(None),
}


class Noting(Domain):
    """A domain that notes what is done to it, with all arguments."""

    def __init__(self, **answers):
        self.done = []
        super().__init__(**answers)

    def __getattr__(self, name):
        answer = super().__getattr__(name)

        def call(*arguments):
            self.done.append((name, arguments))
            return answer(*arguments)

        return call


def xml(baseline, store="a-store"):
    written = definition.baseline_xml(baseline, store) if baseline else ""
    kept = written.replace("<baseline", f'<k:baseline xmlns:k="{definition.BASELINE_URI}"')
    kept = kept.replace("</baseline>", "</k:baseline>")
    return (
        f"<domain><uuid>u</uuid><name>n</name><metadata>{kept}</metadata><vcpu>2</vcpu></domain>"
    )


def changes(domain):
    return [each for each in domain.done if each[0] not in ("isPersistent", "XMLDesc")]


def test_the_store_that_wrote_a_note_is_named_in_the_note():
    domain = Noting()
    baseline_element.write(domain, {target.SHARES: 100}, "a-store", replace(HOST, uuid="a-host"))
    ((name, (kind, written, prefix, uri, flags)),) = domain.done
    assert name == "setMetadata"
    assert (kind, prefix, uri, flags) == (
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        definition.BASELINE_PREFIX,
        definition.BASELINE_URI,
        LIVE,
    )
    assert written == '<baseline store="a-store" host="a-host"><shares value="100" /></baseline>'
    assert definition.parse(xml(BASELINE), HOST).baseline_store == "a-store"
    assert definition.parse(xml(BASELINE, ""), HOST).baseline_store == ""
    assert definition.parse(xml({}), HOST).baseline_store == ""
    assert occupancy.parse(xml(BASELINE)).touched_by == "a-store"
    assert occupancy.parse(xml(BASELINE)).touched
    assert not occupancy.parse(xml({})).touched


def test_a_released_value_is_recorded_beside_the_baseline():
    domain = Noting()
    released = {target.vcpu(1): CpuSet([0, 1]), target.MEMORY: CpuSet([1])}
    baseline_element.write_released(domain, released, replace(HOST, uuid="a-host"))
    baseline_element.write_released(domain, {}, HOST)
    (_, (kind, written, prefix, uri, flags)), (_, (_kind, removed, *_rest)) = domain.done
    assert kind == libvirt.VIR_DOMAIN_METADATA_ELEMENT
    assert (prefix, uri, flags) == (definition.RELEASED_PREFIX, definition.RELEASED_URI, LIVE)
    assert written.startswith('<released host="a-host"><vcpupin vcpu="1" cpuset="0-1" />')
    assert definition.read_element(ET.fromstring(written)) == released
    assert removed is None


def test_an_empty_note_removes_the_note():
    domain = Noting()
    baseline_element.write(domain, {}, "a-store", HOST)
    ((_name, (_kind, written, *_rest)),) = domain.done
    assert written is None


def test_a_definition_returns_to_its_noted_baseline_and_the_note_is_removed_last():
    domain = Noting(isPersistent=1, XMLDesc=xml(BASELINE))
    baseline_element.clean(domain, HOST, baseline_element.in_definition(domain, HOST))
    assert ("XMLDesc", (libvirt.VIR_DOMAIN_XML_INACTIVE,)) in domain.done
    done = changes(domain)
    metadata = [each for each in done if each[0] == "setMetadata"]
    assert {name: arguments for name, arguments in done if name != "setMetadata"} == {
        "pinVcpuFlags": (0, (True,) * 4, DEFINED),
        "pinEmulator": ((True, True, False, False), DEFINED),
        "pinIOThread": (1, (False, False, True, False), DEFINED),
        "setNumaParameters": ({"numa_mode": 3, "numa_nodeset": "0-1"}, DEFINED),
        "setSchedulerParametersFlags": ({"vcpu_quota": -1, "vcpu_period": 100_000}, DEFINED),
    }
    assert ("setSchedulerParametersFlags", ({"cpu_shares": 100}, DEFINED)) in done
    # Its pins are still there, and named: they would not do on another host.
    (_released, (_kind, written, *_rest)), (_note, taken_out) = metadata
    assert definition.read_element(ET.fromstring(written)) == definition.outlasting(BASELINE)
    assert taken_out[1:] == (None, definition.BASELINE_PREFIX, definition.BASELINE_URI, DEFINED)
    assert metadata[-1] == done[-1]


@pytest.mark.parametrize(
    "answers",
    [{"isPersistent": 0, "XMLDesc": xml(BASELINE)}, {"isPersistent": 1, "XMLDesc": xml({})}],
)
def test_a_definition_without_a_note_is_not_changed(answers):
    domain = Noting(**answers)
    assert baseline_element.in_definition(domain, HOST) is None
    assert not changes(domain)


def test_a_guest_passes_on_the_message_of_libvirt():
    answers = {"isPersistent": 1, "XMLDesc": xml(BASELINE)}
    assert guest_of(Domain(**answers)).clean_definition()
    assert not guest_of(Domain()).clean_definition()
    refusing = Domain(**answers, pinEmulator=error(libvirt.VIR_ERR_INTERNAL_ERROR))
    with pytest.raises(exception.StepFailed, match="cleaning the definition"):
        guest_of(refusing).clean_definition()
    assert "setMetadata" not in refusing.calls


def test_a_definition_is_not_cleaned_while_the_guest_is_busy():
    job = [libvirt.VIR_DOMAIN_JOB_UNBOUNDED] * 12
    busy = Domain(isPersistent=1, XMLDesc=xml(BASELINE), jobInfo=job)
    with pytest.raises(exception.GuestBusy):
        guest_of(busy).clean_definition()
    assert not {"pinEmulator", "setMetadata"} & set(busy.calls)
    assert not guest_of(Domain(isPersistent=1, XMLDesc=xml({}), jobInfo=job)).clean_definition()
