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

"""A database that answers no more, or that can't do its work: everybody is told, and goes on.

What is silent is a way to a real server; that a wait ends is what the tests wait for.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
import itertools
import threading

import pytest
import sqlalchemy

from kongming import exception
from kongming.db import connecting, models
from kongming.db import database as database_module
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.tests.databases import BY, asking, configuration, database, instance
from kongming.tests.testbed.control_plane import Api
from kongming.tests.testbed.forwarder import Forwarder
from kongming.tests.testbed.mariadb import PASSWORD, USER, MariaDB, grant
from kongming.tests.testbed.postgresql import PostgreSQL
from kongming.tests.testbed.process import wait_until

UUID = instance()
OTHER = instance(2)

_names = (f"kongming_{number}" for number in itertools.count())


def mariadb_at(root):
    """A server whose user may make others."""
    granted = f"{grant(USER, PASSWORD)} WITH GRANT OPTION"
    return MariaDB(root / "mariadb", statements=[granted])


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    root = tmp_path_factory.mktemp("databases")
    with mariadb_at(root) as mariadb, PostgreSQL(root / "postgresql") as postgresql:
        yield {"mariadb": mariadb, "postgresql": postgresql}


@pytest.fixture(params=["mariadb", "postgresql"])
def kind(request):
    return request.param


@pytest.fixture
def url(kind, servers):
    """The address of a database with its tables."""
    made = servers[kind].create(next(_names))
    database(made).close()
    return made


@pytest.fixture
def way(kind, servers):
    with Forwarder(servers[kind].port) as forwarder:
        yield forwarder


@pytest.fixture
def db(url, way):
    with closing(Database(configuration(way.through(url)))) as made:
        yield made


@pytest.fixture
def allocations(db):
    return Allocations(db)


@pytest.fixture(autouse=True)
def no_limit_of_the_driver_ends_it(monkeypatch):
    """What ends a wait here is not that it lasted too long."""
    for name in ("CONNECT_S", "STATEMENT_S"):
        monkeypatch.setattr(connecting, name, 3600)


def is_told(work):
    with pytest.raises(exception.DatabaseUnavailable) as told:
        work()
    return "does not answer" in str(told.value)


def answers(db):
    try:
        db.check_schema()
    except exception.DatabaseUnavailable:
        return False
    return True


def many(work, number=4):
    """Do it in several threads; tell whether all of them were told."""
    with ThreadPoolExecutor(number) as pool:
        return all(pool.map(lambda _: is_told(work), range(number)))


def test_nobody_waits_for_a_database_that_has_gone_silent(allocations, db, way):
    allocations.put(UUID, asking(1), generation=None, **BY)
    way.go_silent()
    assert many(lambda: allocations.get(UUID))
    # Nobody begins to wait any more.
    assert is_told(lambda: allocations.put(UUID, asking(2), generation=None, **BY))
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")
    assert allocations.get(UUID).generation == 1


def test_nobody_waits_for_the_greeting_of_a_server(allocations, db, way):
    way.go_silent()
    assert many(db.check_schema)
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")


@pytest.mark.parametrize(
    "word", [b"COMMIT", b"INSERT INTO", b"FOR UPDATE", b"isolation", b"SELECT"]
)
def test_nobody_waits_for_an_answer_that_does_not_come(allocations, db, way, word):
    if word != b"isolation":
        db.check_schema()
    else:
        word = b"TRANSACTION ISOLATION" if "mysql" in db.place else b"lock_timeout"
    way.go_silent_at(word)
    assert is_told(lambda: allocations.put(UUID, asking(1), generation=None, **BY))
    assert way.silent
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")
    # What was sent before arrived, or none of it did: it may be asked again.
    allocations.put(UUID, asking(1), generation=None, **BY)
    assert allocations.get(UUID).generation == 1


def test_connections_of_a_host_that_is_lost_hold_up_nobody_whom_another_one_serves(
    allocations, db, way
):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: allocations.get(UUID), range(8)))
    way.lose()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: allocations.get(UUID), range(8))) == [None] * 8


def test_a_statement_that_takes_its_time_is_waited_for(db, kind):
    sleep = "SELECT sleep(2)" if kind == "mariadb" else "SELECT 0 FROM pg_sleep(2)"
    with db.reader() as session:
        assert session.scalar(sqlalchemy.text(sleep)) == 0


@pytest.fixture
def short_of_patience(monkeypatch):
    """Who waits for locks gives up after a second or two."""
    monkeypatch.setattr(connecting, "_LOCK_S", 1)
    monkeypatch.setattr(database_module, "_BUSY_S", 0.5)


@pytest.mark.usefixtures("short_of_patience")
def test_who_waits_for_a_lock_is_told_that_others_hold_it(allocations, db, url, way):
    allocations.put(UUID, asking(1), generation=None, **BY)
    with closing(Database(configuration(url))) as other, other.writer() as session:
        session.execute(sqlalchemy.text("UPDATE allocation SET generation = 7"))
        with pytest.raises(exception.DatabaseUnavailable, match="too busy"):
            allocations.put(UUID, asking(2), generation=None, **BY)
    assert not way.silent
    allocations.put(UUID, asking(2), generation=7, **BY)


@pytest.mark.usefixtures("short_of_patience")
def test_a_table_that_somebody_keeps_locked_is_not_waited_for_all_day(allocations, url, kind):
    lock = "LOCK TABLES allocation WRITE" if kind == "mariadb" else "LOCK TABLE allocation"
    with closing(Database(configuration(url))) as other, other.engine().connect() as connection:
        connection.execute(sqlalchemy.text(lock))
        with pytest.raises(exception.DatabaseUnavailable, match="too busy|others hold"):
            allocations.put(UUID, asking(2), generation=None, **BY)


def test_it_is_told_once_and_told_when_it_is_over(allocations, db, way, caplog):
    caplog.set_level("INFO", "kongming.db.liveness")
    db.check_schema()
    way.go_silent()
    for _ in range(3):
        assert is_told(lambda: allocations.get(UUID))
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")
    lost, back = [record.getMessage() for record in caplog.records]
    assert "does not answer" in lost
    assert "answers again" in back


def test_asking_again_and_again_leaves_no_thread_behind(db, way):
    before = threading.active_count()
    way.go_silent()
    for _ in range(5):
        assert is_told(db.check_schema)
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")
    db.close()
    wait_until(lambda: threading.active_count() <= before, 30, "their threads have ended")


def test_an_api_whose_database_is_silent_answers_everybody(url, way, tmp_path):
    conf = tmp_path / "kongming.conf"
    conf.write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = rabbit://127.0.0.1:1/\n"
        f"[api]\nauth_strategy = noauth\n[database]\nconnection = {way.through(url)}\n"
    )
    with Api(tmp_path, conf, workers=1) as api, ThreadPoolExecutor(16) as pool:
        assert api.request("GET", "/healthcheck").status == 200
        way.go_silent()
        # Three times as many as it has threads.
        asked = [pool.submit(api.request, "GET", "/v1/allocations") for _ in range(12)]
        assert api.request("GET", "/healthcheck").status == 503
        for answer in [each.result() for each in asked]:
            (error,) = answer.body["errors"]
            assert (answer.status, error["code"]) == (503, "database_unavailable")
        assert api.request("GET", "/").status in (200, 300)
        way.resume()
        wait_until(lambda: api.request("GET", "/healthcheck").status == 200, 30, "it is healthy")
        wait_until(lambda: api.request("GET", "/v1/allocations").status == 200, 30, "it serves")


@dataclass
class Primaries:
    """A primary, and the one that takes its place.

    :ivar url: of the database, for an ordinary user; it leads to the primary of the moment.
    :ivar fence: has the first one take no writes any more, from those who are connected, too.
    :ivar switch: has those who connect from now on come to the second one.
    :ivar second: the URL of the second one.
    """

    url: str
    fence: Callable[[], None]
    switch: Callable[[], None]
    second: str


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    with mariadb_at(tmp_path_factory.mktemp("second")) as mariadb:
        yield mariadb


def execute(url, *statements):
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


@pytest.fixture
def on_mariadb(servers, second):
    name = next(_names)
    urls = [each.create(name) for each in (servers["mariadb"], second)]
    for each in urls:
        database(each).close()
        # Who has all privileges may write all the same.
        execute(each, f"GRANT ALL ON {name}.* TO ordinary@'127.0.0.1' IDENTIFIED BY 'ordinary'")
    with Forwarder(servers["mariadb"].port) as way:
        yield Primaries(
            f"mysql+pymysql://ordinary:ordinary@127.0.0.1:{way.port}/{name}",
            lambda: execute(urls[0], "SET GLOBAL read_only = 1"),
            lambda: setattr(way, "target", second.port),
            urls[1],
        )
    execute(urls[0], "SET GLOBAL read_only = 0")


@pytest.fixture
def on_postgresql(servers):
    """One server: for sessions that are there, and for those that are new, it is another one."""
    name = next(_names)
    url = servers["postgresql"].create(name)
    database(url).close()
    server = url.rpartition("/")[0] + "/postgres"
    writing = "SET default_transaction_read_only = off"
    setting = "default_transaction_read_only"
    reload = "SELECT pg_reload_conf()"
    yield Primaries(
        url,
        lambda: execute(server, f"ALTER SYSTEM SET {setting} = on", reload),
        lambda: execute(server, writing, f"ALTER DATABASE {name} SET {setting} = off"),
        f"{url}?options=-c%20{setting}%3Doff",
    )
    execute(server, writing, f"ALTER SYSTEM RESET {setting}", reload)


@pytest.fixture
def primaries(kind, request):
    return request.getfixturevalue(f"on_{kind}")


@pytest.fixture
def switched(primaries):
    with closing(Database(configuration(primaries.url))) as made:
        yield made


def is_refused(work):
    with pytest.raises(exception.DatabaseUnavailable) as told:
        work()
    return "takes no writes" in str(told.value)


def test_after_a_switch_over_the_old_primary_is_left_at_once(primaries, switched):
    allocations = Allocations(switched)
    allocations.put(UUID, asking(1), generation=None, **BY)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: allocations.get(UUID), range(8)))
    primaries.fence()

    def is_fenced():
        try:
            switched.check_writes()
        except exception.DatabaseUnavailable as error:
            return "takes no writes" in str(error)
        return False

    wait_until(is_fenced, 30, "the old primary takes no writes")
    assert is_refused(lambda: allocations.put(UUID, asking(2), generation=None, **BY))
    with closing(database(primaries.second)) as other:
        Allocations(other).put(OTHER, asking(1), generation=None, **BY)
    primaries.switch()
    # All connections that there are lead to the old one, and what is read there is out of date.
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: allocations.get(OTHER), range(8)))
    assert None not in read
    switched.check_writes()
    allocations.put(UUID, asking(2), generation=None, **BY)


def test_a_primary_that_is_fenced_in_a_transaction_is_left_and_the_work_done_elsewhere(
    primaries, switched
):
    row = {"name": "task", "holder": "me", "expires_at": 1.0}
    tried = []

    def work(session):
        tried.append(session.execute(sqlalchemy.text("SELECT count(*) FROM lease")).scalar())
        if len(tried) == 1:
            primaries.fence()
            primaries.switch()
            wait_until(lambda: is_read_only(session), 30, "it takes no writes")
        session.execute(models.LEASE.insert().values(row))

    def is_read_only(session):
        # What is settled for a transaction is not changed by what is for the next one.
        if session.get_bind().dialect.name == "postgresql":
            session.execute(sqlalchemy.text("SET transaction_read_only = on"))
            return True
        return session.execute(sqlalchemy.text("SELECT @@global.read_only")).scalar() == 1

    switched.write(work)
    assert tried == [0, 0]
    with closing(database(primaries.second)) as other, other.reader() as session:
        assert session.execute(models.LEASE.select()).all() == [("task", "me", 1.0)]
