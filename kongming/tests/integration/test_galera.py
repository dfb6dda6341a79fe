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

"""Two nodes of a Galera cluster that are written at once: none sees the other's locks."""

from contextlib import ExitStack, closing
import functools
import itertools
from pathlib import Path
import subprocess
import sys

import pymysql
import pytest
import sqlalchemy

from kongming import exception
from kongming.db import migration, models
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.leases import Leases
from kongming.tests.databases import BY, asking, configuration, instance, report
from kongming.tests.integration.crowd import THREADS, Crowd, at_once
from kongming.tests.testbed.galera import Galera
from kongming.tests.testbed.mariadb import PASSWORD, USER
from kongming.tests.testbed.process import wait_until

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).with_name("kongming-manage")
UUID = instance()
ROUNDS = 60

_names = (f"kongming_{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Galera(tmp_path_factory.mktemp("galera")) as galera:
        yield galera


@pytest.fixture
def urls(cluster):
    """The addresses of one database, at each node."""
    name = next(_names)
    made = [cluster.nodes[0].create(name)]
    server, _, rest = made[0].rpartition(":")
    made += [f"{server}:{node.port}/{rest.partition('/')[2]}" for node in cluster.nodes[1:]]
    wait_until(lambda: all(map(reaches, made)), 30, "all nodes have the database")
    return made


def reaches(url):
    with closing(Database(configuration(url))) as db:
        try:
            migration.version(db)
        except exception.DatabaseUnavailable:
            return False
        return True


@pytest.fixture
def both(urls):
    """The database as it is at each node."""
    with ExitStack() as stack:
        made = [stack.enter_context(closing(Database(configuration(url)))) for url in urls]
        migration.sync(made[0])
        settled(*made)
        yield made


def settled(*databases):
    """Wait until all nodes have what was written last at any of them."""

    def is_settled(db):
        try:
            db.check_schema()
        except exception.DatabaseUnavailable:
            return False
        with db.reader() as session:
            session.execute(sqlalchemy.text("SET SESSION wsrep_sync_wait = 1"))
            session.execute(models.LEASE.select()).all()
            session.execute(sqlalchemy.text("SET SESSION wsrep_sync_wait = 0"))
        return True

    for db in databases:
        wait_until(functools.partial(is_settled, db), 30, "the node has all")


def test_a_map_goes_with_its_last_two_instances_that_leave_at_the_same_moment(both):
    nodes = [Allocations(db) for db in both]
    hosts = ("one", "two")
    for number in range(ROUNDS):
        uuids = [instance(2 * number), instance(2 * number + 1)]
        nodes[0].put_map("map", dict.fromkeys(uuids, asking(1)), generation=0, **BY)
        for uuid, host in zip(uuids, hosts, strict=True):
            nodes[0].report(host, [report(uuid)], 1.0)
        nodes[0].delete_map("map", generation=None, **BY)
        settled(*both)
        at_once(
            *(
                functools.partial(node.report, host, [report(uuid, 2, "released")], 2.0)
                for node, host, uuid in zip(nodes, hosts, uuids, strict=True)
            )
        )
        settled(*both)
        assert [node.maps() for node in nodes] == [[], []], f"in round {number}"
        assert nodes[0].instance_uuids() == []


def test_a_map_whose_last_instances_two_nodes_remove_is_deleted(both):
    nodes = [Allocations(db) for db in both]
    for number in range(ROUNDS):
        uuids = [instance(2 * number), instance(2 * number + 1)]
        nodes[0].put_map("map", dict.fromkeys(uuids, asking(1)), generation=0, **BY)
        for uuid in uuids:
            nodes[0].report("here", [report(uuid)], 1.0)
        nodes[0].delete_map("map", generation=None, **BY)
        settled(*both)
        at_once(
            lambda uuids=uuids: nodes[0].forget(uuids[:1], 2.0),
            lambda uuids=uuids: nodes[1].report("here", [report(uuids[1], 2, "released")], 2.0),
        )
        settled(*both)
        assert [node.maps() for node in nodes] == [[], []], f"in round {number}"


def test_a_map_that_remains_empty_is_deleted_once(both):
    nodes = [Allocations(db) for db in both]
    nodes[0].put_map("map", {}, generation=0, **BY)
    with both[0].writer() as session:
        session.execute(models.ALLOCATION_MAP.update().values(deleting=True))
    settled(*both)
    at_once(*(node.sweep for node in nodes))
    settled(*both)
    assert [node.maps() for node in nodes] == [[], []]


def test_one_of_many_concurrent_changes_at_both_nodes_succeeds(both):
    nodes = [Allocations(db) for db in both]
    nodes[0].put(UUID, asking(0), generation=0, **BY)
    for generation in range(1, 11):
        settled(*both)

        def change(value, generation=generation):
            node = nodes[value % 2]
            return node.put(UUID, asking(value), generation=generation, **BY)[0]

        first = generation * THREADS
        results = at_once(*(functools.partial(change, first + each) for each in range(THREADS)))
        (won,) = [each for each in results if not isinstance(each, exception.GenerationConflict)]
        assert won.generation == generation + 1


def test_maps_single_changes_and_reports_at_both_nodes_end_in_one_of_the_orders(both):
    crowds = [Crowd(Allocations(db)) for db in both]
    results = at_once(
        lambda: crowds[0].map("left", crowds[0].uuids[:20]),
        lambda: crowds[1].map("right", crowds[1].uuids[10:]),
        lambda: crowds[0].single(range(0, 30, 3)),
        lambda: crowds[1].single(range(29, -1, -3)),
        crowds[0].hosts,
        crowds[1].hosts,
    )
    assert results == [None] * 6
    settled(*both)
    crowds[1].leave()
    settled(*both)
    for crowd in crowds:
        assert crowd._allocations.instance_uuids() == []
        assert crowd._allocations.maps() == []


def test_a_lease_has_one_holder_at_all_nodes(both):
    nodes = [Leases(db) for db in both]
    for number in range(20):
        name = f"task-{number}"
        results = at_once(*(functools.partial(node.take, name, str(node), 30.0) for node in nodes))
        assert sorted(results) == [False, True]


def test_tables_that_are_created_at_both_nodes_are_created_once(urls, tmp_path):
    files = []
    for place, url in enumerate(urls):
        files.append(tmp_path / f"{place}.conf")
        files[-1].write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n[database]\nconnection={url}\n")

    def manage(*words):
        return [[str(COMMAND), f"--config-file={file}", "db", *words] for file in files]

    for _ in range(3):
        both = [subprocess.Popen(each, stderr=subprocess.PIPE) for each in manage("sync")]
        assert [(each.communicate()[1], each.returncode) for each in both] == [(b"", 0)] * 2
        for url in urls:
            with closing(Database(configuration(url))) as db:
                settled(db)
                Allocations(db).instance_uuids()
        subprocess.run(manage("sync", "base")[1], check=True)


def test_an_isolated_node_reports_it_and_serves_again_when_the_others_are_back(both, cluster):
    Allocations(both[0]).put(UUID, asking(1), generation=0, **BY)
    cluster.nodes[1].kill()

    def is_reported():
        try:
            both[0].check_writes()
        except exception.DatabaseUnavailable as error:
            return "check the state of the cluster" in str(error)
        return False

    wait_until(is_reported, 60, "the node has noticed that it is alone")
    # As an operator does it.
    port = cluster.nodes[0].port
    with (
        closing(
            pymysql.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD)
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=yes'")
    wait_until(lambda: not is_reported(), 30, "it serves")
    Allocations(both[0]).put(UUID, asking(2), generation=1, **BY)
