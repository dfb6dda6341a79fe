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

"""Nova's definitions of guests, as libvirt gives them back."""

import libvirt
import pytest

from kongming.hypervisor import definition
from kongming.tests import domains
from kongming.tests.domains import HOST


@pytest.fixture(scope="module")
def connection():
    return libvirt.open("test:///default")


@pytest.mark.parametrize("name", domains.NAMES)
def test_a_definition_is_read_alike_in_the_form_of_libvirt(connection, name):
    xml = domains.xml(name)
    domain = connection.defineXML(xml.replace('type="kvm"', 'type="test"'))
    try:
        domain.create()
        live = domain.XMLDesc()
        persistent = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        domain.destroy()
    finally:
        domain.undefine()
    assert definition.parse(live, HOST, lambda: persistent) == definition.parse(xml, HOST)
