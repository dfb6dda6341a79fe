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

"""The allocations, kept in each of the databases: a file, and real servers."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
import dataclasses
import functools
import itertools
import threading
import time
import uuid

from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
import pytest
import sqlalchemy

from kongming import exception
from kongming.allocation.statuses import Status
from kongming.db import migration, models
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.db.leases import Leases
from kongming.db.purge import purge
from kongming.db.reports import LATE_S
from kongming.db.values import Location
from kongming.tests.databases import BY, asking, configuration, database, instance, report
from kongming.tests.integration.crowd import THREADS, Crowd, at_once
from kongming.tests.testbed.mariadb import PASSWORD
from kongming.tests.testbed.process import wait_until
from kongming.tests.thorough import stories

KINDS = ("sqlite", "mariadb", "postgresql")
UUID = instance()
OTHER = instance(2)

_names = (f"kongming_{number}" for number in itertools.count())


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def url(kind, servers, tmp_path):
    """The address of an empty database."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/kongming.sqlite"
    return servers[kind].create(next(_names))


@pytest.fixture
def db(url):
    with closing(database(url)) as made:
        yield made


@pytest.fixture
def allocations(db):
    return Allocations(db)


def execute(url, statement):
    """Carry out a statement, with the name of the database in it."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(statement.format(engine.url.database)))
    engine.dispose()


def statements(db, work):
    before = db.statements
    work()
    return db.statements - before


def test_the_migrations_create_the_tables_of_the_models(db):
    with db.engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, models.Base.metadata) == []


def test_the_tables_can_be_created_dropped_and_created_again(url):
    with closing(Database(configuration(url))) as db:
        with pytest.raises(exception.DatabaseUnavailable, match="no tables.*db sync"):
            db.check_schema()
        assert migration.sync(db) == (None, models.VERSION)
        db.check_schema()
        assert migration.sync(db) == (models.VERSION, models.VERSION)
        Allocations(db).put(UUID, asking(1), generation=0, **BY)
        assert migration.sync(db, "base") == (models.VERSION, None)
        with db.engine().connect() as connection:
            assert sqlalchemy.inspect(connection).get_table_names() == ["alembic_version"]
        with pytest.raises(exception.DatabaseUnavailable, match="run 'kongming-manage db sync'"):
            Allocations(db).get(UUID)
        assert migration.sync(db) == (None, models.VERSION)
        assert Allocations(db).get(UUID) is None


def test_the_second_of_two_migrations_waits(url):
    def sync():
        with closing(Database(configuration(url))) as db:
            return migration.sync(db)

    for _ in range(3):
        results = at_once(*[sync] * 4)
        assert results.count((None, models.VERSION)) == 1
        assert results.count((models.VERSION, models.VERSION)) == 3
        with closing(Database(configuration(url))) as db:
            db.check_schema()
            migration.sync(db, "base")


def test_concurrent_creation_and_removal_of_the_tables_do_not_fail(url):
    def sync(revision):
        with closing(Database(configuration(url))) as db:
            return migration.sync(db, revision)

    results = at_once(*[functools.partial(sync, revision) for revision in ("head", "base") * 3])
    assert not [each for each in results if isinstance(each, exception.KongmingError)]
    sync("head")
    with closing(Database(configuration(url))) as db:
        Allocations(db).put(UUID, asking(1), generation=0, **BY)


class Killed(BaseException):
    pass


def interrupted(monkeypatch, step, after):
    """Have a step of migrations that is carried out so often be the last one."""
    works = itertools.count()
    real = getattr(op, step)

    def one(*arguments, **named):
        if next(works) == after:
            raise Killed
        return real(*arguments, **named)

    monkeypatch.setattr(op, step, one)


# The others keep all of it or nothing.
@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
@pytest.mark.parametrize("revision", ["head", "base"])
@stories(
    ("begun", "step", "after"),
    [
        ("head", "create_table", 3),
        ("head", "create_index", 2),
        ("head", "add_column", 0),
        ("0001", "drop_column", 0),
        ("base", "drop_table", 1),
        ("base", "drop_table", 5),
    ],
    usual=2,
)
def test_an_interrupted_migration_is_completed(url, monkeypatch, begun, step, after, revision):
    with closing(Database(configuration(url))) as db:
        if begun != "head":
            migration.sync(db)
        with monkeypatch.context() as patch:
            interrupted(patch, step, after)
            with pytest.raises(Killed):
                migration.sync(db, begun)
        migration.sync(db, revision)
        with db.engine().connect() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            if revision == "base":
                assert [name for name in names if name != "alembic_version"] == []
                return
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, models.Base.metadata) == []
        Allocations(db).put(UUID, asking(1), generation=0, **BY)


@stories("revision", ["head", "base"])
def test_a_table_of_another_program_is_unchanged(url, revision):
    with closing(Database(configuration(url))) as db:
        with db.writer() as session:
            session.execute(sqlalchemy.text("CREATE TABLE host (theirs INTEGER)"))
        with pytest.raises(exception.DatabaseUnavailable, match="table host.*not Kongming's"):
            migration.sync(db, revision)
        with db.reader() as session:
            assert session.execute(sqlalchemy.text("SELECT theirs FROM host")).all() == []


def test_tables_of_another_version_are_refused(db):
    with db.writer() as session:
        session.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(exception.DatabaseUnavailable, match="9999.*db sync"):
        db.check_schema()
    with pytest.raises(exception.DatabaseUnavailable, match="9999"):
        migration.sync(db)


def test_the_life_of_an_allocation(allocations):
    entry, created = allocations.put(UUID, asking(1), generation=0, **BY)
    assert (created, entry.generation, entry.status) == (True, 1, Status.PENDING)
    assert allocations.without_project() == [UUID]
    assert allocations.locate({UUID: Location("project", "here")}) == [UUID]
    assert allocations.locate({UUID: Location("project", "here")}) == []
    allocations.report("here", [report(UUID)], 20.0)
    assert allocations.get(UUID).status == Status.APPLIED

    entry, created = allocations.put(UUID, asking(2), generation=1, **BY)
    assert (created, entry.generation, entry.status) == (False, 2, Status.PENDING)
    allocations.report("here", [report(UUID, 2, "refused", "cpu_offline", "CPU 2 ☹")], 30.0)
    entry = allocations.get(UUID)
    assert (entry.project_id, entry.host, entry.status) == ("project", "here", Status.REFUSED)
    assert (entry.outcome.reason, entry.outcome.message) == ("cpu_offline", "CPU 2 ☹")

    entry = allocations.delete(UUID, generation=2, **BY)
    assert (entry.allocation, entry.generation, entry.status) == (None, 3, Status.RELEASING)
    assert allocations.desired_on("here") == {UUID: entry}
    allocations.report("here", [report(UUID, 3, "released")], 40.0)
    assert allocations.get(UUID) is None
    assert allocations.instance_uuids() == []
    assert [(e.generation, e.status, e.host) for e in allocations.history(UUID)] == [
        (1, "applied", "here"),
        (2, "refused", "here"),
        (3, "released", "here"),
    ]


def test_names_are_compared_byte_by_byte(allocations, db):
    for name in ("b", "A", "a", "B", "a-b", "ab"):
        allocations.put_map(name, {}, generation=0, **BY)
        Hosts(db).heartbeat(name, started_at=1.0, version="1", interval_s=60.0, now=2.0)
    in_order = ["A", "B", "a", "a-b", "ab", "b"]
    assert [each.name for each in allocations.maps()] == in_order
    assert [each.name for each in allocations.maps(2, "B")] == ["a", "a-b"]
    assert [host.name for host in Hosts(db).list()] == in_order


def test_large_texts_are_kept_whole(allocations, db):
    text = "ü" * 200_000
    allocations.put(UUID, asking(1), generation=0, **BY)
    allocations.report("here", [report(UUID, 1, "failed", "failed", text)], 1.0)
    assert allocations.get(UUID).outcome.message == text
    hosts = Hosts(db)
    assert hosts.heartbeat("here", started_at=1.0, version="1", interval_s=60.0, now=2.0) == ""
    hosts.keep_snapshot("here", {"text": text}, "digest", 3.0)
    assert (
        hosts.heartbeat("here", started_at=1.0, version="1", interval_s=60.0, now=4.0) == "digest"
    )
    assert hosts.get("here").snapshot == {"text": text}
    assert hosts.list(snapshots=False)[0].snapshot is None


def test_characters_that_no_database_accepts_are_left_out(allocations):
    allocations.put(UUID, asking(1), generation=0, requested_by="a\0b" * 200, request_id="\udcff")
    allocations.report("here", [report(UUID, 1, "failed", "r" * 100, "\0 and \udcff")], 1.0)
    assert allocations.get(UUID).outcome.message == "\N{REPLACEMENT CHARACTER} and ?"


def test_one_of_many_concurrent_changes_of_an_allocation_succeeds(allocations):
    allocations.put(UUID, asking(0), generation=0, **BY)
    for generation in range(1, 11):

        def change(value, generation=generation):
            return allocations.put(UUID, asking(value), generation=generation, **BY)[0]

        first = generation * THREADS
        results = at_once(*(functools.partial(change, first + each) for each in range(THREADS)))
        (won,) = [each for each in results if not isinstance(each, exception.GenerationConflict)]
        assert won.generation == generation + 1
        assert allocations.get(UUID) == won


def test_one_of_many_concurrent_creations_of_an_allocation_succeeds(allocations):
    results = at_once(
        *(
            lambda value=value: allocations.put(UUID, asking(value), generation=0, **BY)
            for value in range(THREADS)
        )
    )
    (won,) = [each for each in results if not isinstance(each, exception.GenerationConflict)]
    assert won[1] is True
    assert allocations.get(UUID) == won[0]
    assert len(allocations.history(UUID)) == 1


def test_a_change_without_a_generation_follows_the_other(allocations):
    values = range(THREADS)
    at_once(
        *(
            lambda value=value: allocations.put(UUID, asking(value), generation=None, **BY)
            for value in values
        )
    )
    entry = allocations.get(UUID)
    changes = allocations.history(UUID)
    assert entry.generation == THREADS
    assert [each.generation for each in changes] == list(range(1, THREADS + 1))
    assert changes[-1].allocation == entry.allocation


def test_one_of_many_concurrent_puts_of_a_map_succeeds_whole(allocations):
    uuids = [instance(number) for number in range(50)]
    for generation in range(4):

        def put(value, generation=generation):
            # Each in an order of its own.
            of_mine = dict.fromkeys(uuids if value % 2 else reversed(uuids), asking(value))
            return allocations.put_map("map", of_mine, generation=generation, **BY)

        first = generation * THREADS
        results = at_once(
            *(lambda value=value: put(value) for value in range(first, first + THREADS))
        )
        (won,) = [each for each in results if not isinstance(each, exception.GenerationConflict)]
        assert won[0].generation == generation + 1
        entries = allocations.list(map_name="map")
        assert {entry.generation for entry in entries} == {generation + 1}
        assert len({entry.allocation for entry in entries}) == 1


def test_concurrent_maps_single_changes_and_reports_end_in_one_of_the_orders(allocations):
    crowd = Crowd(allocations)
    results = at_once(
        lambda: crowd.map("left", crowd.uuids[:20]),
        lambda: crowd.map("right", crowd.uuids[10:]),
        lambda: crowd.single(range(0, 30, 3)),
        lambda: crowd.single(range(29, -1, -3)),
        crowd.hosts,
        crowd.hosts,
    )
    assert results == [None] * 6
    for each in crowd.uuids:
        generations = [change.generation for change in allocations.history(each)]
        assert generations == sorted(generations)
    crowd.leave()
    assert allocations.instance_uuids() == []
    assert allocations.maps() == []


def test_a_lost_conflict_is_retried(allocations, db, kind):
    """Two who lock the same two rows the other way round: one of them has to give way."""
    for each in (UUID, OTHER):
        allocations.put(each, asking(0), generation=0, **BY)
    first = threading.Barrier(2)
    turns = []

    def work(session, mine, others):
        turns.append(mine)
        for each in (mine, others):
            session.execute(
                sqlalchemy.update(models.ALLOCATION)
                .where(models.ALLOCATION.c.instance_uuid == each)
                .values(generation=models.ALLOCATION.c.generation + 1)
            )
            # In an SQLite file there is only one who writes.
            if each == mine and turns.count(mine) == 1 and kind != "sqlite":
                first.wait()

    at_once(
        lambda: db.write(lambda session: work(session, UUID, OTHER)),
        lambda: db.write(lambda session: work(session, OTHER, UUID)),
    )
    assert [allocations.get(each).generation for each in (UUID, OTHER)] == [3, 3]
    assert len(turns) == (2 if kind == "sqlite" else 3)


@stories("kind", KINDS, indirect=True)
def test_the_number_of_statements_of_a_call_is_independent_of_the_number_of_instances(
    allocations, db
):
    counted = {}
    for size in (1, 100, 1000):
        name = f"map-{size}"
        uuids = [str(uuid.UUID(int=size * 10_000 + number)) for number in range(size)]
        half = uuids[: size // 2 + 1]

        def put(those, value, name=name):
            return lambda: allocations.put_map(
                name, dict.fromkeys(those, asking(value)), generation=None, **BY
            )

        def report_all(generation, status, uuids=uuids):
            reports = [report(each, generation, status) for each in uuids]
            return lambda: allocations.report("here", reports, 1.0)

        def place(host, uuids=uuids):
            there = Location("project", host)
            return lambda: allocations.locate(dict.fromkeys(uuids, there))

        works = {
            "put": put(uuids, 1),
            "locate": place("here"),
            "report": report_all(1, "applied"),
            "report again": report_all(1, "applied"),
            "report another": report_all(1, "failed"),
            "change": put(uuids, 2),
            "list": lambda name=name: allocations.list(map_name=name),
            "desired": lambda uuids=uuids: allocations.desired(uuids),
            "desired_on": lambda: allocations.desired_on("here"),
            "move": place("there"),
            "delete": lambda name=name: allocations.delete_map(name, generation=None, **BY),
            "released": report_all(3, "released"),
            "put again": put(uuids, 1),
            "adopt": put(half, 1),
            "forget": lambda uuids=uuids: allocations.forget(uuids, 2.0),
        }
        counted[size] = {what: statements(db, work) for what, work in works.items()}
        assert allocations.instance_uuids() == []
    # All of a map of one is half of it.
    del counted[1]["adopt"], counted[100]["adopt"], counted[1000]["adopt"]
    assert counted[1] == counted[100] == counted[1000]
    assert counted[1]["report again"] <= 2
    assert counted[1]["desired_on"] <= 2


@pytest.mark.slow
def test_a_map_of_5000(allocations):
    uuids = [instance(number) for number in range(5000)]
    made, created, changed = allocations.put_map(
        "map", dict.fromkeys(uuids, asking(1)), generation=0, **BY
    )
    assert (created, made.instances, len(changed)) == (True, 5000, 5000)
    allocations.report("here", [report(each) for each in uuids], 1.0)
    assert len(allocations.desired(uuids)) == 5000
    assert len(allocations.list(map_name="map", status="applied")) == 5000
    others = [instance(number) for number in range(5000, 10_000)]
    allocations.put_map("map", dict.fromkeys(others, asking(1)), generation=1, **BY)
    assert len(allocations.list(status="releasing")) == 5000
    assert len(allocations.list(map_name="map", limit=10, marker=others[-3])) == 2


def test_a_lease_has_one_holder(db):
    leases = Leases(db)
    results = at_once(
        *(
            lambda name=name: leases.acquire("task", name, 10.0, 100.0)
            for name in map(str, range(THREADS))
        )
    )
    assert sorted(results) == [False] * (THREADS - 1) + [True]
    holder = str(results.index(True))
    assert leases.acquire("task", holder, 10.0, 105.0)
    assert not leases.acquire("task", "another", 10.0, 114.0)
    assert leases.acquire("task", "another", 10.0, 115.0)
    assert not leases.acquire("task", holder, 10.0, 116.0)


def test_a_lease_from_a_clock_that_is_ahead_expires(db):
    leases = Leases(db)
    assert leases.acquire("task", "ahead", 30.0, time.time() + 8 * 3600)
    assert leases.acquire("task", "another", 30.0)
    assert not leases.acquire("task", "ahead", 30.0)


def test_a_lease_goes_by_the_databases_clock(db):
    leases = Leases(db)
    assert leases.acquire("task", "holder", 30.0)
    with db.reader() as session:
        (end,) = session.execute(sqlalchemy.select(models.LEASE.c.expires_at)).one()
    # The database runs on this machine.
    assert leases.acquire("task", "another", 30.0, end)
    assert not leases.acquire("task", "holder", 30.0, end - 1)
    assert abs(end - 30.0 - time.time()) < 600


def test_a_late_report_replaces_no_newer_one(allocations, db):
    allocations.put(UUID, asking(1), generation=0, **BY)
    statuses = [("pending", 1.0), ("applied", 10.0), ("failed", 20.0)]
    for status, at in statuses:
        allocations.report("here", [report(UUID, 1, status, changed_at=at)], 25.0)
    for status, at in statuses:
        allocations.report("here", [report(UUID, 1, status, changed_at=at)], 30.0)
        assert allocations.get(UUID).status == "failed"
    # So does a drift that was found earlier, and a time of a host's clock that was set back
    # counts after a while.
    allocations.report("here", [report(UUID, 1, "applied", changed_at=5.0)], 25.0 + LATE_S + 1)
    assert allocations.get(UUID).status == "applied"


def test_an_older_drift_replaces_no_newer_one(allocations):
    allocations.put(UUID, asking(1), generation=0, **BY)
    for drift, at in (("first", 5.0), ("second", 9.0), ("first", 5.0)):
        sent = dataclasses.replace(report(UUID, drift=drift), drift_at=at)
        allocations.report("here", [sent], 10.0)
    assert allocations.get(UUID).outcome.drift == "second"


def test_another_host_is_not_late(allocations):
    allocations.put(UUID, asking(1), generation=0, **BY)
    allocations.locate({UUID: Location("project", "here")})
    allocations.report("here", [report(UUID, 1, "applied", changed_at=20.0)], 25.0)
    allocations.locate({UUID: Location("project", "there")})
    allocations.report("there", [report(UUID, 1, "failed", changed_at=10.0)], 26.0)
    assert allocations.get(UUID).status == "failed"


def test_a_late_heartbeat_replaces_no_newer_one(db):
    hosts = Hosts(db)
    about = {"version": "1", "interval_s": 60.0}
    hosts.heartbeat("here", started_at=2.0, now=100.0, **about)
    hosts.heartbeat("here", started_at=1.0, now=90.0, **about)
    assert (hosts.get("here").heartbeat_at, hosts.get("here").started_at) == (100.0, 2.0)
    # The clock of another controller was wrong.
    hosts.heartbeat("here", started_at=3.0, now=100.0 - LATE_S - 1, **about)
    assert hosts.get("here").started_at == 3.0


def test_an_empty_map_in_release_is_deleted(allocations, db):
    for name in ("empty", "kept", "going"):
        allocations.put_map(name, {}, generation=0, **BY)
    allocations.put_map("going", {UUID: asking(1)}, generation=1, **BY)
    allocations.report("here", [report(UUID)], 1.0)
    allocations.delete_map("going", generation=None, **BY)
    with db.writer() as session:
        session.execute(
            sqlalchemy.update(models.ALLOCATION_MAP)
            .where(models.ALLOCATION_MAP.c.name == "empty")
            .values(deleting=True)
        )
    assert allocations.sweep() == 1
    assert allocations.sweep() == 0
    assert [each.name for each in allocations.maps()] == ["going", "kept"]


def test_an_instance_that_leaves_a_map_in_release_writes_the_row_of_the_map(allocations):
    """By that, nodes of a cluster that don't see each other's locks notice each other."""
    allocations.put_map("map", dict.fromkeys((UUID, OTHER), asking(1)), generation=0, **BY)
    allocations.report("here", [report(UUID), report(OTHER)], 1.0)
    allocations.delete_map("map", generation=None, **BY)
    before = allocations.get_map("map").generation
    allocations.report("here", [report(UUID, 2, "released")], 2.0)
    assert allocations.get_map("map").generation == before + 1
    allocations.forget([OTHER], 3.0)
    assert allocations.get_map("map") is None


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
@stories("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_another_default_isolation_of_a_server_causes_no_refusal(kind, url, level):
    execute(url, f"ALTER DATABASE {{}} SET default_transaction_isolation = '{level}'")
    with closing(database(url)) as db:
        allocations = Allocations(db)

        def put(value):
            return allocations.put(UUID, asking(value), generation=None, **BY)

        values = range(4 * THREADS)
        results = at_once(*(functools.partial(put, value) for value in values))
        assert not [each for each in results if isinstance(each, exception.KongmingError)]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_transaction_that_cannot_be_serialized_is_done_again(kind, db):
    tried = []
    add = models.LEASE.insert().values(name="task", holder="me", expires_at=1.0)
    change = models.LEASE.update().values(holder=models.LEASE.c.holder + "!")
    db.write(lambda session: session.execute(add))

    def work(session):
        tried.append(session)
        if len(tried) == 1:
            session.execute(sqlalchemy.text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
            session.execute(models.LEASE.select()).all()
            db.write(lambda other: other.execute(change))
        session.execute(change)

    db.write(work)
    assert len(tried) == 2
    with db.reader() as session:
        assert session.execute(models.LEASE.select()).one().holder == "me!!"


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"], indirect=True)
@stories("given", ["url", "parameters"])
def test_all_characters_are_kept_with_every_character_set(kind, url, given):
    written = "charset=utf8" if kind == "mariadb" else "client_encoding=latin1"
    conf = configuration(f"{url}?{written}" if given == "url" else url)
    if given == "parameters":
        conf.set_override("connection_parameters", written, group="database")
    with closing(Database(conf)) as db:
        migration.sync(db)
        allocations = Allocations(db)
        allocations.put(UUID, asking(1), generation=0, **BY)
        allocations.report(
            "here", [report(UUID, 1, "failed", "failed", "no \U0001f40b here")], 1.0
        )
        assert allocations.get(UUID).outcome.message == "no \U0001f40b here"


def test_old_rows_are_purged(allocations, db):
    for number in range(5):
        allocations.put(instance(number), asking(1), generation=0, **BY)
        allocations.report("here", [report(instance(number), changed_at=number)], 1.0)
        Hosts(db).heartbeat(str(number), started_at=1.0, version="", interval_s=60.0, now=number)
    assert purge(db, 3.0) == {"history": 3, "hosts": 3}
    assert purge(db, 3.0) == {"history": 0, "hosts": 0}
    assert [host.name for host in Hosts(db).list()] == ["3", "4"]
    assert [len(allocations.history(instance(number))) for number in range(5)] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"], indirect=True)
def test_a_killed_server_is_used_again_when_it_is_back(kind, servers, allocations):
    entry, _ = allocations.put(UUID, asking(1), generation=0, **BY)
    stop = threading.Event()
    failures = []

    def use():
        while not stop.is_set():
            try:
                allocations.get(UUID)
                allocations.put(OTHER, asking(len(failures) % 8), generation=None, **BY)
            except exception.DatabaseUnavailable as error:
                failures.append(str(error))

    with ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use) for _ in range(4)]
        try:
            wait_until(lambda: allocations.get(OTHER), 30, "the database is used")
            servers[kind].kill()
            wait_until(lambda: failures, 30, "it is noticed")
        finally:
            servers[kind].start()
            stop.set()
        for user in users:
            user.result()
    assert allocations.get(UUID) == entry
    assert not [message for message in failures if PASSWORD in message]
    assert all("can't be used" in message for message in failures)


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"], indirect=True)
def test_an_error_is_reported_without_the_password(kind, url):
    wrong = url.replace("100%25", "wrong%2F100%25")
    nowhere = url.rpartition("/")[0] + "/nowhere"
    for each in (wrong, nowhere):
        with (
            closing(Database(configuration(each))) as db,
            pytest.raises(exception.DatabaseUnavailable) as raised,
        ):
            db.check_schema()
        message = str(raised.value)
        assert "check [database] connection" in message
        assert "se:cr@t" not in message
        assert "100%" not in message
