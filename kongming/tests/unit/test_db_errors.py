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

"""What errors of databases mean, and what drivers are given."""

from oslo_db import exception as db_exception
import psycopg2
import pymysql
import pytest
from sqlalchemy import exc, make_url

from kongming.db import connecting, errors


class OfPostgresql(psycopg2.Error):  # type: ignore[misc]
    """An error with a code, which only the driver itself can make otherwise."""

    def __init__(self, state, words):
        super().__init__(words)
        self.state = state

    @property
    def pgcode(self):
        return self.state


def wrapped(error, kind=exc.OperationalError):
    return kind("UPDATE …", {}, error)


def mysql(code, words="something", kind=exc.OperationalError):
    return wrapped(pymysql.err.OperationalError(code, words), kind)


def postgresql(state, words="something", kind=exc.OperationalError):
    return wrapped(OfPostgresql(state, words), kind)


@pytest.mark.parametrize("code", [1290, 1792, 1836])
def test_a_server_that_accepts_no_writes_is_unfit(code):
    meaning = errors.meaning(mysql(code))
    assert meaning.unfit
    assert "leads to the primary" in meaning.hint
    assert (meaning.again, meaning.own_fault) == (False, False)


def test_a_standby_of_postgresql_is_unfit():
    assert errors.meaning(postgresql("25006", kind=exc.InternalError)).unfit


@pytest.mark.parametrize("code", [1047, 3032, 3100])
def test_a_node_that_does_not_serve_is_unfit(code):
    wrapped_once = db_exception.DBConnectionError(mysql(code))
    assert errors.meaning(wrapped_once).unfit
    assert errors.code(wrapped_once) == code


@pytest.mark.parametrize("code", [1205, 1213, 1020, 1062, 3101])
def test_a_lost_conflict_may_be_retried(code):
    meaning = errors.meaning(mysql(code))
    assert (meaning.again, meaning.unfit, meaning.own_fault) == (True, False, False)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "23505"])
def test_a_lost_conflict_on_postgresql_may_be_retried(state):
    assert errors.meaning(postgresql(state, kind=exc.DBAPIError)).again


def test_a_conflict_that_oslo_db_recognizes_may_be_retried():
    lost = mysql(9999)
    assert errors.meaning(db_exception.DBDeadlock(lost)).again
    assert errors.meaning(db_exception.DBDuplicateEntry([], lost)).again
    assert not errors.meaning(db_exception.DBError(lost)).again


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (mysql(1040), "accepts no more connections"),
        (postgresql("53300"), "accepts no more connections"),
        (
            postgresql(None, "FATAL:  sorry, too many clients already"),
            "accepts no more connections",
        ),
        (
            postgresql(None, "remaining connection slots are reserved"),
            "accepts no more connections",
        ),
        (mysql(1045), "its user and password"),
        (postgresql(None, 'password authentication failed for user "x"'), "its user and password"),
        (postgresql(None, "no pg_hba.conf entry for host"), "its user and password"),
        (mysql(1142), "grant all privileges on this database to the user of [database] connec"),
        (postgresql("42501", kind=exc.ProgrammingError), "grant all privileges"),
        (mysql(1049), "create this database"),
        (postgresql(None, 'database "x" does not exist'), "create this database"),
        (mysql(1146, kind=exc.ProgrammingError), "kongming-manage db sync"),
        (postgresql("42P01", kind=exc.ProgrammingError), "kongming-manage db sync"),
        (mysql(1114), "free space"),
        (postgresql("53100"), "free space"),
        (mysql(1153), "max_allowed_packet"),
        (mysql(2003, "([SSL: CERTIFICATE_VERIFY_FAILED] …)"), "its TLS options"),
        (postgresql(None, "SSL error: certificate verify failed"), "its TLS options"),
        (postgresql("57014"), "its time limits"),
        (mysql(2013), "that the server runs"),
        (postgresql(None, "server closed the connection unexpectedly"), "that the server runs"),
        (exc.TimeoutError("QueuePool limit"), "max_pool_size"),
    ],
)
def test_each_error_has_the_hint_of_its_class(error, hint):
    meaning = errors.meaning(error)
    assert hint in meaning.hint
    assert (meaning.again, meaning.unfit, meaning.own_fault) == (False, False, False)


@pytest.mark.parametrize(
    "error",
    [
        mysql(1064, kind=exc.ProgrammingError),
        mysql(1406, kind=exc.DataError),
        mysql(1048, kind=exc.IntegrityError),
        postgresql("42601", kind=exc.ProgrammingError),
        postgresql("22P05", kind=exc.DataError),
        db_exception.DBDataError(mysql(1366)),
        db_exception.DBError(postgresql("22003", kind=exc.DataError)),
        exc.StatementError("no number", "UPDATE …", {}, ValueError("no number")),
        db_exception.DBError(exc.StatementError("x", "UPDATE …", {}, ValueError("x"))),
    ],
)
def test_a_statement_that_is_wrong_is_our_fault(error):
    assert errors.meaning(error).own_fault


def test_a_message_is_one_line_of_the_driver_without_the_statement():
    error = db_exception.DBError(postgresql("22003", "too\n  large\n"))
    assert errors.text(error) == "too large"


def test_a_message_names_no_credentials_of_a_url():
    error = postgresql("08001", "no dsn: postgresql://kongming:s3:cr@t@host/kongming")
    assert errors.text(error) == "no dsn: postgresql://***@host/kongming"
    # What is replaced anywhere in a text would tell a password that is a word.
    error = mysql(1045, "Access denied for user 'kongming'@'host'")
    assert "'kongming'@'host'" in errors.text(error)


def test_a_message_is_printable_and_short():
    assert errors.text(postgresql("22003", "\x1b[31mred")) == "\N{REPLACEMENT CHARACTER}[31mred"
    assert len(errors.text(postgresql("22003", "x" * 10_000))) == 300


MYSQL = make_url("mysql+pymysql://u:p@host/db")
POSTGRESQL = make_url("postgresql+psycopg2://u:p@host/db")


def test_every_wait_of_a_driver_has_a_limit():
    assert connecting.complete(MYSQL, "", 30).query == {
        "charset": "utf8mb4",
        "connect_timeout": "10",
        "read_timeout": "30",
        "write_timeout": "30",
    }
    given = connecting.complete(POSTGRESQL, "", 30).query
    assert given["client_encoding"] == "utf8"
    assert {"connect_timeout", "tcp_user_timeout", "keepalives_idle"} < given.keys()


def test_options_of_the_operator_win_except_for_the_character_set():
    url = make_url("mysql+pymysql://u:p@host/db?charset=utf8&read_timeout=5")
    query = connecting.complete(url, "connect_timeout=2&charset=latin1", 30).query
    assert (query["read_timeout"], query["connect_timeout"]) == ("5", "2")
    assert query["charset"] == "utf8mb4"
    url = make_url("postgresql://u:p@host/db?client_encoding=latin1&tcp_user_timeout=1")
    query = connecting.complete(url, "", 30).query
    assert (query["client_encoding"], query["tcp_user_timeout"]) == ("utf8", "1")


def test_a_file_gets_no_connection_options():
    assert connecting.complete(make_url("sqlite:///x"), "", 30).query == {}
