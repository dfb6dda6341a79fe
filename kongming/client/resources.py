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

"""The resources of the API, as openstacksdk's.

Their fields are those of the API's JSON: times in UTC as ISO 8601, ages in seconds, memory in KiB,
CPUs and NUMA nodes as ids of the host.
"""

from __future__ import annotations

from openstack import resource

from kongming.client import progress


class _Resource(resource.Resource):
    # Fields of newer microversions.
    _allow_unknown_attrs_in_body = True


class Allocation(_Resource):
    """The desired allocation of an instance, and its outcome; ``id`` is the instance's UUID."""

    instance_uuid = resource.Body("instance_uuid", alternate_id=True)
    #: It grows with each change.
    generation = resource.Body("generation", type=int)
    #: The desired allocation as a dict; None if it is being released, or can't be read.
    allocation = resource.Body("allocation")
    #: ``pending``, ``applied``, ``elsewhere``, ``drifted``, ``refused``, ``failed``, ``absent`` or
    #: ``releasing``.
    status = resource.Body("status")
    #: The reason code of the status; empty if there is none.
    reason = resource.Body("reason")
    #: The explanation of the reason, for people.
    message = resource.Body("message")
    #: The source of the request in force on the host: ``api``, ``operator``, ``metadata``.
    source = resource.Body("source")
    #: The name of its allocation map; None if it has none.
    map = resource.Body("map")
    project_id = resource.Body("project_id")
    #: The host of the instance; None if unknown.
    host = resource.Body("host")
    #: ``up``, ``unresponsive`` or ``unknown``.
    host_state = resource.Body("host_state")
    #: The host that reported the status.
    reported_by = resource.Body("reported_by")
    reported_at = resource.Body("reported_at")
    #: The age of the host's last confirmation of the status, in seconds.
    report_age_s = resource.Body("report_age_s")
    last_drift = resource.Body("last_drift")
    last_drift_at = resource.Body("last_drift_at")
    #: The applied parts that the host can't observe; empty if it observes all of them.
    unobserved = resource.Body("unobserved")
    #: The time window in force; only of a single allocation, not in lists.
    window = resource.Body("window")
    #: The time of the next possible window transition; only of a single allocation.
    next_change = resource.Body("next_change")
    created_at = resource.Body("created_at")
    updated_at = resource.Body("updated_at")

    @property
    def is_in_force(self) -> bool:
        """Whether the guest has all of it, and no request of the host's operator overrides it."""
        return progress.is_in_force(self)


class AllocationMap(_Resource):
    """The allocations of instances that are changed together.

    Lists, and the answers to changes, have neither ``counts`` nor ``allocations``.
    """

    name = resource.Body("name", alternate_id=True)
    #: It grows with each change of the map or of an allocation in it.
    generation = resource.Body("generation", type=int)
    #: Whether the map is being deleted: its instances are ``releasing``.
    deleting = resource.Body("deleting", type=bool)
    #: The number of its instances.
    instances = resource.Body("instances", type=int)
    #: The number of allocations of each status.
    counts = resource.Body("counts")
    #: A list of :class:`Allocation`.
    allocations = resource.Body("allocations")
    created_at = resource.Body("created_at")
    updated_at = resource.Body("updated_at")
    #: The requested allocations by instance; None for a map of a list.
    requested = resource.Body("requested")
    #: The UUIDs of the instances that this request releases, because they left the map.
    dropped = resource.Body("dropped", default=())


class HistoryEntry(_Resource):
    """A request for an instance, or a later change of its status."""

    id = resource.Body("id")
    generation = resource.Body("generation", type=int)
    #: The requested allocation; None: its release, or it can't be read.
    allocation = resource.Body("allocation")
    map = resource.Body("map")
    #: The user; empty for a change of the status, and for users of other projects.
    requested_by = resource.Body("requested_by")
    request_id = resource.Body("request_id")
    requested_at = resource.Body("requested_at")
    #: As of :class:`Allocation`; also ``released``, and ``gone``: the server was deleted in Nova.
    status = resource.Body("status")
    reason = resource.Body("reason")
    message = resource.Body("message")
    host = resource.Body("host")
    changed_at = resource.Body("changed_at")


class Host(_Resource):
    """A host with an executor."""

    name = resource.Body("name", alternate_id=True)
    #: ``up`` or ``unresponsive``.
    state = resource.Body("state")
    heartbeat_at = resource.Body("heartbeat_at")
    #: The age of the last heartbeat in seconds.
    heartbeat_age_s = resource.Body("heartbeat_age_s")
    started_at = resource.Body("started_at")
    version = resource.Body("version")
    #: The number of guests.
    guests = resource.Body("guests", type=int)
    #: The number of violations of the operator's rules.
    violations = resource.Body("violations", type=int)
    #: ``cells``, ``unassigned_cpus``, ``guests``, ``rules`` and ``violations``; only of a single
    #: host, and None until the host has sent it.
    snapshot = resource.Body("snapshot")
    snapshot_at = resource.Body("snapshot_at")


class Plan(_Resource):
    """The result of a dry run."""

    instance_uuid = resource.Body("instance_uuid", alternate_id=True)
    host = resource.Body("host")
    #: ``planned``, ``refused``, ``failed`` or ``absent``; of a map also ``unresponsive``.
    outcome = resource.Body("outcome")
    reason = resource.Body("reason")
    message = resource.Body("message")
    #: Texts for people, which do not prevent the allocation.
    warnings = resource.Body("warnings")
    #: Dicts with ``target``, ``from`` and ``to``; empty if the guest already has it.
    steps = resource.Body("steps")


class AllocationMapPlan(_Resource):
    """The result of a dry run of an allocation map."""

    name = resource.Body("name", alternate_id=True)
    #: The number of instances of each outcome.
    counts = resource.Body("counts")
    #: A :class:`Plan` of each instance, also of those that would leave the map.
    plans = resource.Body("plans", type=list)
