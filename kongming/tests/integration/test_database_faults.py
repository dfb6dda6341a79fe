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

"""A database that answers no more, or can't do its work: all report it, and go on.

What does not respond is a proxy before a real server; the tests wait for the end of a wait.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
import dataclasses
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
from kongming.db.hosts import Hosts
from kongming.tests.databases import BY, asking, configuration, database, instance, report
from kongming.tests.testbed.control_plane import Api
from kongming.tests.testbed.forwarder import Forwarder
from kongming.tests.testbed.mariadb import PASSWORD, USER, MariaDB, grant
from kongming.tests.testbed.process import patience, wait_until
from kongming.tests.thorough import stories

UUID = instance()
OTHER = instance(2)
# Of the API's one process.
THREADS = 4

_names = (f"kongming_fault_{number}" for number in itertools.count())


@pytest.fixture(params=["mariadb", pytest.param("postgresql", marks=pytest.mark.slow)])
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
    # What ends a wait here is not that it lasted too long.
    limits = dataclasses.replace(connecting.SERVICE, answer_s=0.4 * patience(), statement_s=3600)
    with closing(Database(configuration(way.through(url)), limits)) as made:
        yield made


@pytest.fixture
def allocations(db):
    return Allocations(db)


def is_reported(work):
    with pytest.raises(exception.DatabaseUnavailable) as raised:
        work()
    return "is unavailable" in str(raised.value)


def answers(db):
    try:
        db.check_schema()
    except exception.DatabaseUnavailable:
        return False
    return True


def many(work, number=4):
    """Do it in several threads; return whether all of them got the error."""
    with ThreadPoolExecutor(number) as pool:
        return all(pool.map(lambda _: is_reported(work), range(number)))


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"], indirect=True)
def test_no_request_waits_for_an_unresponsive_database(allocations, db, way):
    allocations.put(UUID, asking(1), generation=None, **BY)
    way.stop_answering()
    assert many(lambda: allocations.get(UUID))
    # Nobody begins to wait any more.
    assert is_reported(lambda: allocations.put(UUID, asking(2), generation=None, **BY))
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")
    assert allocations.get(UUID).generation == 1


def test_no_request_waits_for_the_greeting_of_a_server(allocations, db, way):
    way.stop_answering()
    assert many(db.check_schema)
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")


@stories(
    "word",
    [
        b"COMMIT",
        b"session",
        *(
            pytest.param(word, marks=pytest.mark.slow)
            for word in (b"INSERT INTO", b"FOR UPDATE", b"SELECT")
        ),
    ],
    usual=2,
)
def test_no_request_waits_for_a_missing_answer(allocations, db, way, word):
    if word == b"session":
        # What each session sets first.
        word = b"lock_wait_timeout" if "mysql" in db.place else b"lock_timeout"
    else:
        db.check_schema()
    way.stop_answering_at(word)
    assert is_reported(lambda: allocations.put(UUID, asking(1), generation=None, **BY))
    assert way.silent
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")
    # What was sent before arrived, or none of it did: it may be repeated.
    allocations.put(UUID, asking(1), generation=None, **BY)
    assert allocations.get(UUID).generation == 1


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"], indirect=True)
def test_a_probe_that_is_ended_by_its_driver_is_no_answer(url, way):
    limits = dataclasses.replace(connecting.SERVICE, answer_s=3600, statement_s=3600)
    with closing(Database(configuration(way.through(url)), limits)) as db:
        db.check_schema()
        way.stop_answering()
        assert is_reported(lambda: Allocations(db).get(UUID))


def test_connections_of_a_lost_host_do_not_delay_requests_on_another(allocations, db, way):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: allocations.get(UUID), range(8)))
    way.lose()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: allocations.get(UUID), range(8))) == [None] * 8


def test_a_slow_statement_is_waited_for(db, kind):
    sleep = "SELECT sleep(1)" if kind == "mariadb" else "SELECT 0 FROM pg_sleep(1)"
    with db.reader() as session:
        assert session.scalar(sqlalchemy.text(sleep)) == 0


@pytest.fixture
def impatient(url, monkeypatch):
    """The database, for somebody who gives up soon where others have locks."""
    monkeypatch.setattr(database_module, "_BUSY_S", 0.5)
    limits = dataclasses.replace(connecting.SERVICE, lock_s=1)
    with closing(Database(configuration(url), limits)) as made:
        yield Allocations(made)


def test_a_request_that_waits_for_a_lock_reports_the_lock(impatient, url):
    impatient.put(UUID, asking(1), generation=None, **BY)
    with closing(Database(configuration(url))) as other, other.writer() as session:
        session.execute(sqlalchemy.text("UPDATE allocation SET generation = 7"))
        with pytest.raises(exception.DatabaseUnavailable, match="too busy"):
            impatient.put(UUID, asking(2), generation=None, **BY)
    impatient.put(UUID, asking(2), generation=7, **BY)


def test_a_locked_table_is_waited_for_within_a_limit(impatient, url, kind):
    lock = "LOCK TABLES allocation WRITE" if kind == "mariadb" else "LOCK TABLE allocation"
    with closing(Database(configuration(url))) as other, other.engine().connect() as connection:
        connection.execute(sqlalchemy.text(lock))
        with pytest.raises(exception.DatabaseUnavailable, match="too busy"):
            impatient.put(UUID, asking(2), generation=None, **BY)


@stories(
    "statement",
    ["UPDATE allocation SET generation = 7", "SELECT generation FROM allocation FOR UPDATE"],
)
def test_locks_of_a_frozen_client_are_ended(url, monkeypatch, statement):
    """Also of who has not written yet."""
    monkeypatch.setattr(connecting, "_IDLE_S", 1)
    with (
        closing(Database(configuration(url))) as db,
        closing(Database(configuration(url))) as other,
    ):
        allocations = Allocations(db)
        allocations.put(UUID, asking(1), generation=None, **BY)

        def freeze():
            with other.writer() as session:
                session.execute(sqlalchemy.text(statement))
                # It waits for as long as it takes the server to end the other transaction.
                allocations.put(UUID, asking(2), generation=1, **BY)
                session.execute(sqlalchemy.text(statement))

        with pytest.raises(exception.DatabaseUnavailable):
            freeze()
        assert allocations.get(UUID).generation == 2


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
@stories("wait", [None, 1])
def test_a_session_waits_for_other_nodes_if_configured(url, wait):
    conf = configuration(url)
    conf.set_override("mysql_wsrep_sync_wait", wait, group="database")
    with closing(Database(conf)) as db, db.reader() as session:
        assert session.scalar(sqlalchemy.text("SELECT @@session.wsrep_sync_wait")) == (wait or 0)


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
def test_repeated_requests_leave_no_thread_behind(db, way):
    before = threading.active_count()
    way.stop_answering()
    for _ in range(5):
        assert is_reported(db.check_schema)
    way.resume()
    wait_until(lambda: answers(db), 30, "the database is used again")
    db.close()
    wait_until(lambda: threading.active_count() <= before, 30, "their threads have ended")


def serving(root, url):
    """The API, one process of it, at a database."""
    conf = root / "kongming.conf"
    conf.write_text(
        f"[DEFAULT]\nstate_path = {root}\ntransport_url = rabbit://127.0.0.1:1/\n"
        f"[api]\nauth_strategy = noauth\n[database]\nconnection = {url}\n"
    )
    return Api(root, conf, workers=1)


def test_an_api_with_an_unresponsive_database_answers_every_request(url, way, tmp_path):
    with serving(tmp_path, way.through(url)) as api, ThreadPoolExecutor(16) as pool:
        wait_until(lambda: api.request("GET", "/healthcheck").status == 200, 30, "it is healthy")
        way.stop_answering()
        # Three times as many as it has threads.
        requests = [pool.submit(api.request, "GET", "/v1/allocations") for _ in range(12)]
        assert api.request("GET", "/healthcheck").status == 503
        for answer in [each.result() for each in requests]:
            (error,) = answer.body["errors"]
            assert (answer.status, error["code"]) in ((503, "database_unavailable"), (503, "busy"))
        assert api.request("GET", "/").status in (200, 300)
        way.resume()
        wait_until(lambda: api.request("GET", "/healthcheck").status == 200, 30, "it is healthy")
        wait_until(lambda: api.request("GET", "/v1/allocations").status == 200, 30, "it serves")


def test_a_request_that_waits_for_locked_rows_does_not_take_the_last_thread(url, tmp_path):
    path = f"/v1/allocations/{UUID}"
    body = {"allocation": {"vcpu_pinning": "1"}}
    with serving(tmp_path, url) as api, ThreadPoolExecutor(16) as pool:
        assert api.request("PUT", path, body).status == 201
        with closing(Database(configuration(url))) as other, other.writer() as session:
            session.execute(sqlalchemy.text("UPDATE allocation SET generation = 7"))
            requests = [pool.submit(api.request, "PUT", path, body) for _ in range(THREADS)]
            wait_until(lambda: any(each.done() for each in requests), 30, "one is refused")
            # Who only reads, and load balancers, are served while the others still wait.
            assert api.request("GET", "/healthcheck").status == 200
            assert api.request("GET", path).body["generation"] == 1
            assert sum(each.done() for each in requests) == 1
        answers = [each.result() for each in requests]
        codes = [each.body["errors"][0]["code"] for each in answers if each.status == 503]
        assert codes == ["busy"]
        # The others had their turn once the rows were free.
        assert sorted(each.status for each in answers) == [200] * (THREADS - 1) + [503]


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
    granted = [f"{grant(USER, PASSWORD)} WITH GRANT OPTION"]
    with MariaDB(tmp_path_factory.mktemp("second") / "mariadb", statements=granted) as mariadb:
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
    with pytest.raises(exception.DatabaseUnavailable) as raised:
        work()
    return "refuses writes" in str(raised.value)


def test_after_a_switchover_the_old_primary_is_left_at_once(primaries, switched):
    allocations = Allocations(switched)
    allocations.put(UUID, asking(1), generation=None, **BY)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: allocations.get(UUID), range(8)))
    primaries.fence()

    def is_fenced():
        try:
            switched.check_writes()
        except exception.DatabaseUnavailable as error:
            return "refuses writes" in str(error)
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


def test_a_primary_that_is_fenced_in_a_transaction_is_left_and_the_work_repeated_on_the_other(
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


@pytest.fixture
def ordinary(kind, servers):
    """A user with few rights: yield the owner's URL, the user's name and URL."""
    name = next(_names)
    owner = servers[kind].create(name)
    database(owner).close()
    if kind == "postgresql":
        execute(
            owner,
            f"CREATE ROLE {name} LOGIN PASSWORD 'ordinary'",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}",
        )
    else:
        execute(owner, f"GRANT ALL ON {name}.* TO {name}@'127.0.0.1' IDENTIFIED BY 'ordinary'")
    scheme, _, rest = owner.partition("://")
    yield owner, name, f"{scheme}://{name}:ordinary@{rest.rpartition('@')[2]}"
    if kind == "mariadb":
        execute(owner, f"DROP USER {name}@'127.0.0.1'", "SET GLOBAL max_allowed_packet = 16777216")


def refusal(url, work=lambda allocations: allocations.put(UUID, asking(1), generation=None, **BY)):
    with closing(Database(configuration(url))) as db:
        with pytest.raises(exception.DatabaseUnavailable) as error:
            work(Allocations(db))
        return str(error.value)


def test_a_user_without_write_permission_is_reported_with_the_grant(kind, ordinary):
    owner, name, url = ordinary
    if kind == "mariadb":
        execute(
            owner,
            f"REVOKE ALL ON {name}.* FROM {name}@'127.0.0.1'",
            f"GRANT SELECT ON {name}.* TO {name}@'127.0.0.1'",
        )
    else:
        execute(owner, f"REVOKE INSERT, UPDATE ON allocation FROM {name}")
    message = refusal(url)
    assert "grant all privileges on this database" in message
    assert "ordinary" not in message


def test_a_server_that_accepts_no_more_connections_is_reported(kind, ordinary):
    owner, name, url = ordinary
    if kind == "mariadb":
        execute(owner, f"ALTER USER {name}@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1")
    else:
        execute(owner, f"ALTER ROLE {name} CONNECTION LIMIT 1")
    with closing(Database(configuration(url))) as db, db.reader() as session:
        session.connection()
        assert "accepts no more connections" in refusal(url)


def test_a_pool_that_is_too_small_is_reported(url):
    conf = configuration(url)
    for option, value in (("max_pool_size", 1), ("max_overflow", 0), ("pool_timeout", 0)):
        conf.set_override(option, value, group="database")
    with closing(Database(conf)) as db, db.reader() as session:
        session.connection()
        with pytest.raises(exception.DatabaseUnavailable, match="max_pool_size"):
            db.check_schema()


@pytest.mark.parametrize("kind", ["mariadb"], indirect=True)
def test_a_packet_that_is_too_long_is_reported(kind, ordinary):
    owner, _, url = ordinary
    execute(owner, "SET GLOBAL max_allowed_packet = 16384")

    def long(allocations):
        allocations.put(UUID, asking(1), generation=None, **BY)
        reports = [report(UUID, 1, "failed", "failed", "x" * 100_000)]
        allocations.report("here", reports, 1.0)

    assert "raise max_allowed_packet" in refusal(url, long)


@pytest.mark.parametrize(
    "statement",
    ["SELEC 1", "INSERT INTO lease VALUES ('a', NULL, 1)", "UPDATE host SET version = {long}"],
)
def test_a_wrong_statement_is_reported_as_a_fault_of_kongming(url, statement):
    with closing(Database(configuration(url))) as db:
        Hosts(db).heartbeat("here", started_at=1.0, version="1", interval_s=60.0, now=2.0)
        text = sqlalchemy.text(statement.format(long=f"'{'x' * 300}'"))
        with pytest.raises(exception.DatabaseFault, match="a fault of Kongming"):
            db.write(lambda session: session.execute(text))


def test_a_report_that_cannot_be_kept_fails_alone(url, caplog):
    with closing(Database(configuration(url))) as db:
        allocations = Allocations(db)
        uuids = [instance(number) for number in range(7)]
        for each in uuids:
            allocations.put(each, asking(1), generation=None, **BY)
        reports = [report(each) for each in uuids]
        # What a message is checked for, and what the database takes, is not always the same.
        reports[4] = dataclasses.replace(reports[4], reason="r", generation=1, drift_at="never")
        allocations.report("here", reports, 1.0)
        pending = [each for each in uuids if allocations.get(each).status == "pending"]
        assert pending == [uuids[4]]
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"The report of instance {uuids[4]} can't be stored" in line


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_database_that_lacks_signs_is_refused(kind, servers):
    name = next(_names)
    url = servers[kind].create(name)
    server = url.rpartition("/")[0] + "/postgres"
    execute(
        server,
        f"DROP DATABASE {name}",
        f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc "
        "LOCALE 'C'",
    )
    assert "has the encoding LATIN1" in refusal(url, lambda allocations: allocations.get(UUID))
