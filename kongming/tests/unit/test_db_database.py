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

"""The way to the database: the errors if it can't be used; and kongming-manage db."""

from contextlib import closing
import json
import logging
from pathlib import Path
import sqlite3
import threading

from alembic.script import ScriptDirectory
import pytest

from kongming import exception, version
from kongming.cmd.manage import Manage
from kongming.db import connecting, migration, models
from kongming.db.allocations import Allocations
from kongming.db.database import Database
from kongming.db.hosts import Hosts
from kongming.db.values import Host
from kongming.tests.databases import BY, asking, configuration, database, instance, report


@pytest.fixture(autouse=True)
def log_as_before():
    """Undo what a command sets up for its process: each further line would be written by all."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.setLevel(level)
    for handler in set(root.handlers).difference(handlers):
        root.removeHandler(handler)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kongming.sqlite"


@pytest.fixture
def db(path):
    with closing(database(f"sqlite:///{path}")) as made:
        yield made


@pytest.fixture
def manage(path, tmp_path, capsys):
    """Run a command of kongming-manage; its status, its words, and what it complains of."""
    file = tmp_path / "kongming.conf"
    file.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n")

    def run(*words):
        status = Manage().run([f"--config-file={file}", "db", *words])
        written = capsys.readouterr()
        return status, json.loads(written.out) if written.out else None, written.err

    return run


def test_the_version_is_that_of_the_last_migration():
    assert migration.versions()[-1] == models.VERSION
    assert ScriptDirectory(str(migration.FOLDER)).get_heads() == [models.VERSION]


def test_the_database_is_a_file_in_the_state_path_by_default(tmp_path):
    conf = configuration("")
    conf.clear_override("connection", group="database")
    conf.set_override("state_path", str(tmp_path))
    assert conf.database.connection == f"sqlite:///{tmp_path}/kongming.sqlite"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "is not a URL"),
        ("mysql+pymysql://user:p@ss:word/with@host:x/db", "is not a URL"),
        ("oracle+nothing://user:secret@host/db", "unknown driver oracle.nothing"),
        ("mysql+mysqldb://user:secret@host/db", "not installed.*kongming.mysql"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url, expected):
    with pytest.raises(exception.ConfigInvalid, match=expected) as refusal:
        Database(configuration(url))
    assert "secret" not in str(refusal.value)
    assert "p@ss" not in str(refusal.value)


def test_an_unavailable_server_is_reported_at_once():
    url = "mysql+pymysql://user:secret@127.0.0.1:1/kongming"
    with closing(Database(configuration(url))) as db:
        with pytest.raises(exception.DatabaseUnavailable) as refusal:
            db.check_schema()
        assert "kongming (mysql at 127.0.0.1:1) can't be used" in str(refusal.value)
        assert "secret" not in str(refusal.value)


def test_a_missing_directory_is_reported(tmp_path):
    with (
        closing(Database(configuration(f"sqlite:///{tmp_path}/none/kongming.sqlite"))) as db,
        pytest.raises(exception.DatabaseUnavailable, match="none/kongming.sqlite can't be used"),
    ):
        db.check_schema()


def test_a_file_that_is_no_database_is_reported(path):
    path.write_text("no database at all" * 100)
    with (
        closing(Database(configuration(f"sqlite:///{path}"))) as db,
        pytest.raises(exception.DatabaseUnavailable, match="not a database"),
    ):
        db.check_schema()


def test_an_exception_of_a_caller_rolls_back_and_is_raised(db):
    allocations = Allocations(db)

    def work(session):
        session.execute(models.HOST.delete())
        session.execute(models.LEASE.insert().values(name="a", holder="b", expires_at=1.0))
        raise exception.MapUnknown("a")

    with pytest.raises(exception.MapUnknown):
        db.write(work)
    with db.reader() as session:
        assert session.execute(models.LEASE.select()).all() == []
    assert allocations.instance_uuids() == []


def test_readers_continue_during_a_write(db, path):
    Allocations(db).put(instance(), asking(1), generation=0, **BY)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM allocation")
        assert Allocations(db).get(instance()) is not None
        other.execute("ROLLBACK")


def test_a_host_is_unresponsive_after_three_intervals():
    host = Host("here", 100.0, 1.0, "1", 20.0, None, "", None, 0, 0)
    assert not host.unresponsive(160.0)
    assert host.unresponsive(160.1)


def test_a_snapshot_is_kept_of_known_hosts_only(db):
    hosts = Hosts(db)
    hosts.keep_snapshot("here", {"cells": []}, "1", 1.0)
    assert hosts.get("here") is None
    assert hosts.heartbeat("here", started_at=1.0, version="1", interval_s=60.0, now=2.0) == ""
    hosts.keep_snapshot("here", {"cells": [0]}, "1", 3.0)
    assert hosts.heartbeat("here", started_at=4.0, version="2", interval_s=30.0, now=5.0) == "1"
    assert hosts.get("here") == Host("here", 5.0, 4.0, "2", 30.0, {"cells": [0]}, "1", 3.0, 0, 0)
    hosts.heartbeat("there", started_at=4.0, version="2", interval_s=30.0, now=5.0)
    assert [host.name for host in hosts.list(limit=1, marker="here")] == ["there"]
    hosts.forget("here")
    assert [host.name for host in hosts.list()] == ["there"]


def test_the_command_creates_and_removes_the_tables(manage):
    assert manage("version", "-f", "json")[1] == {"version": "", "needed": models.VERSION}
    assert manage("sync", "-f", "json")[1] == {"before": "", "after": models.VERSION}
    assert manage("version", "-f", "json")[1]["version"] == models.VERSION
    assert manage("sync", "base", "-f", "json")[1]["after"] == ""


def test_tables_of_the_previous_version_are_upgraded_and_downgraded(manage, path):
    assert manage("sync", "0001", "-f", "json")[1]["after"] == "0001"
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO outcome VALUES ('u', 'here', 1, 'applied', '', '', 'api', '', NULL, 1, 1)"
        )
        db.commit()
    for target, fields in ((models.VERSION, 12), ("0001", 11), (models.VERSION, 12)):
        assert manage("sync", target, "-f", "json")[1]["after"] == target
        with closing(sqlite3.connect(path)) as db:
            (row,) = db.execute("SELECT * FROM outcome")
            assert (len(row), row[:4]) == (fields, ("u", "here", 1, "applied"))


def test_the_command_waits_for_other_users_of_the_file(manage, path):
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE theirs (one INTEGER)")
        other.execute("BEGIN EXCLUSIVE")
        ending = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
        ending.start()
        assert manage("sync", "-f", "json")[1] == {"before": "", "after": models.VERSION}
        ending.join()


def test_the_command_reports_that_the_file_stays_locked(manage, path, monkeypatch):
    monkeypatch.setattr(migration, "_FILE_ATTEMPTS", 1)
    monkeypatch.setattr(connecting, "_SQLITE_BUSY_MS", 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (one INTEGER)")
        other.execute("BEGIN EXCLUSIVE")
        status, _, complaint = manage("sync")
    assert status == 1
    assert "stop other processes that use the file" in complaint


def test_the_help_of_the_command_matches_its_page(manage):
    page = Path(__file__).parents[3] / "doc" / "source" / "cli" / "kongming-manage.rst"
    assert "``db sync [<version>]``" in page.read_text()
    assert manage("sync", models.VERSION, "-f", "json")[1]["after"] == models.VERSION
    assert manage("sync", "base", "-f", "json")[1]["after"] == ""


@pytest.mark.parametrize("words", [["--version", models.VERSION], [f"--version={models.VERSION}"]])
def test_the_version_of_the_tables_may_be_an_option(manage, words):
    assert manage("sync", *words, "-f", "json")[1]["after"] == models.VERSION
    assert manage("sync", "-f", "json", "--version", "base")[1]["after"] == ""
    status, _, errors = manage("sync", "--version", "9999")
    assert (status, "9999" in errors) == (2, True)


def test_a_version_that_is_missing_or_repeated_has_no_effect(manage):
    with pytest.raises(SystemExit) as ended:
        manage("sync", "--version")
    assert ended.value.code == 2
    status, _, errors = manage("sync", "base", "--version", models.VERSION)
    assert (status, "name one version" in errors) == (2, True)
    assert manage("version", "-f", "json")[1]["version"] == ""


def test_the_version_of_the_program_is_still_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        Manage().run(["--version", "db", "sync"])
    assert ended.value.code == 0
    assert version.release() in capsys.readouterr().out


def test_the_command_knows_its_versions(manage):
    status, _, complaint = manage("sync", "0815")
    assert status == 2
    assert f"unknown version 0815 of the tables: use 0001, {models.VERSION}" in complaint


def test_the_command_purges_old_rows(manage, path):
    status, _, complaint = manage("purge", "--days", "1")
    assert status == 1
    assert "run 'kongming-manage db sync'" in complaint
    with closing(database(f"sqlite:///{path}")) as db:
        allocations = Allocations(db)
        allocations.put(instance(), asking(1), generation=0, **BY)
        allocations.report("here", [report(instance(), changed_at=1.0)], 1.0)
    assert manage("purge", "--days", "1", "-f", "json")[1] == {"history": 1, "hosts": 0}
    with pytest.raises(SystemExit, match="2"):
        manage("purge", "--days", "x")
