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

"""Leftovers of a placement that outlive the guest: in saved images and persistent definitions."""

from __future__ import annotations

import logging

from kongming import exception
from kongming.hypervisor.guest import Guest
from kongming.hypervisor.hypervisor import Hypervisor

LOG = logging.getLogger(__name__)


def release_saved(instance_uuid: str, hypervisor: Hypervisor) -> None:
    """Remove the placement from a suspended guest's image; it is placed again once it runs."""
    if hypervisor.release_saved(instance_uuid):
        LOG.info(
            "Instance %s: suspended; its placement was removed from the saved image, so that it "
            "can resume on any CPUs; it is placed again then",
            instance_uuid,
        )


def clean_definition(instance_uuid: str, guest: Guest) -> None:
    """Remove the placement from the persistent definition, so that the next start has none.

    :raises GuestBusy: if a job of libvirt's occupies the guest now.
    """
    try:
        if guest.clean_definition():
            LOG.info("Instance %s: its persistent definition was cleaned, too", instance_uuid)
    except (exception.Failed, exception.Refused) as error:
        LOG.warning(
            "Instance %s: its persistent definition still has the former placement (%s); it is "
            "released again after its next start",
            instance_uuid,
            error,
        )
