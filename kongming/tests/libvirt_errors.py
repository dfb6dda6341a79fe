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

"""Errors as libvirt-python raises them."""

import libvirt


def error(code: int, said: str = "no", number: int = -1) -> libvirt.libvirtError:
    """Return an error of a code.

    :param said: what libvirt says.
    :param number: of the system, where the code is that of a system error.
    """
    raised = libvirt.libvirtError(said)
    raised.err = (code, 0, said, 2, "", None, None, number, 0)
    return raised
