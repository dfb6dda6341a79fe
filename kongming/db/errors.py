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

"""What an error of the database means, read from its code and not from the driver's text.

MariaDB and MySQL number their errors, PostgreSQL has SQLSTATE codes, SQLite names them. Only if a
server refuses a connection, PostgreSQL's driver gives no code: there the text must do.
"""

from __future__ import annotations

from dataclasses import dataclass
import logging
import re
from typing import Any

from oslo_db import exception as db_exception
from sqlalchemy import exc

from kongming.runtime.cleaning import clean, without_credentials

# It adds a traceback to much of what is text here in one line.
logging.getLogger("oslo_db.sqlalchemy.exc_filters").setLevel(logging.ERROR)

SYNC = "run 'kongming-manage db sync'"

#: The errors of the libraries; Kongming raises all others.
ERRORS = (
    db_exception.DBError,
    db_exception.CantStartEngineError,
    exc.StatementError,
    exc.TimeoutError,
)

Code = int | str | None


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of an error.

    :ivar hint: what the operator can do.
    :ivar again: whether another transaction interfered, so that a retry may succeed.
    :ivar unfit: whether the connection works but leads to a server that can't do the work, so that
        another connection may lead to one that can. Nothing was done.
    :ivar own_fault: whether the statement itself is wrong: a fault of Kongming.
    :ivar last: whether the server then closes the connection: a rollback would hide the error.
    """

    hint: str
    again: bool = False
    unfit: bool = False
    own_fault: bool = False
    last: bool = False


_CHECK = "check [database] connection"
_UNAVAILABLE = Meaning(f"{_CHECK}, and that the server runs")
_TABLES = Meaning(SYNC)
_BUSY = Meaning("other transactions locked or changed the same rows: retry", again=True)
_READ_ONLY = Meaning(
    f"the server refuses writes, it is read-only or a standby: {_CHECK} leads to the primary",
    unfit=True,
)
_NOT_READY = Meaning("this node does not serve now: check the state of the cluster", unfit=True)
_OWN_FAULT = Meaning("this is a fault of Kongming: please report it, with the log", own_fault=True)
_POOL = Meaning(
    "all connections of this process are in use: raise [database] max_pool_size or max_overflow, "
    "or find out why the server is busy"
)
_CONNECTIONS = Meaning(
    "the server accepts no more connections: raise its limit, or lower [database] max_pool_size, "
    "max_overflow or the number of workers"
)
_CREDENTIALS = Meaning(
    f"{_CHECK}: its user and password, and whether the server accepts this user from this host"
)
_PRIVILEGES = Meaning(f"grant all privileges on this database to the user of {_CHECK[6:]}")
_NO_DATABASE = Meaning(f"{_CHECK}: create this database, or name another one")
_TLS = Meaning(f"{_CHECK}: its TLS options, and the server's certificate")
_FULL = Meaning("the disk of the server is full: free space")
_PACKET = Meaning("raise max_allowed_packet of the server, to 64M for instance", last=True)
_STOPPED = Meaning("the server ended the statement: check its time limits and its log")
_FILE = Meaning(f"{_CHECK}: whether this user may write the file and its directory")
_DAMAGED = Meaning("the file is not a database, or it is damaged: restore it from a backup")

_BY_CODE: dict[Code, Meaning] = {
    code: meaning
    for meaning, codes in (
        # 3101: group replication, which detects conflicts at the commit, like Galera.
        (
            _BUSY,
            (
                1205,
                1213,
                1020,
                1062,
                3101,
                "40001",
                "40P01",
                "55P03",
                "23505",
                "SQLITE_BUSY",
                "SQLITE_LOCKED",
            ),
        ),
        (_READ_ONLY, (1290, 1792, 1836, "25006")),
        (_NOT_READY, (1047, 3100, 3032)),
        (_TABLES, (1146, 1054, "42P01", "42703")),
        (_CONNECTIONS, (1040, 1203, 1226, "53300")),
        (_CREDENTIALS, (1045, 1698, 1130, 1251, "28000", "28P01")),
        (_PRIVILEGES, (1044, 1142, 1143, 1227, "42501")),
        (_NO_DATABASE, (1049, "3D000")),
        (_TLS, (2026, 3159)),
        (_FULL, (1021, 1114, "53100", "SQLITE_FULL")),
        (_PACKET, (1153,)),
        (_STOPPED, (1317, 1969, 3024, "57014")),
        (_FILE, ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")),
        (_DAMAGED, ("SQLITE_NOTADB", "SQLITE_CORRUPT")),
    )
    for code in codes
}
# For errors without a code, or with one for everything.
_BY_WORDS = tuple(
    (re.compile(words), meaning)
    for words, meaning in (
        (r"no such (table|column)", _TABLES),
        (r"too many (clients|connections)|connection slots|pool.*max", _CONNECTIONS),
        (r"SSL|TLS|certificate", _TLS),
        (r"authentication failed|pg_hba|role .* does not exist|no password", _CREDENTIALS),
        (r"database .* does not exist", _NO_DATABASE),
    )
)
_OWN_FAULT_CLASSES = (
    db_exception.DBDataError,
    db_exception.DBReferenceError,
    db_exception.DBConstraintError,
    db_exception.DBNotSupportedError,
    db_exception.DBInvalidUnicodeParameter,
    exc.DataError,
    exc.IntegrityError,
    exc.NotSupportedError,
    exc.ProgrammingError,
)
_SQLITE_GENERIC = "SQLITE_ERROR"
_TEXT_MAX = 300


def meaning(error: BaseException) -> Meaning:
    """Return the meaning of an error of :data:`ERRORS`."""
    if isinstance(error, exc.TimeoutError):
        return _POOL
    if isinstance(error, db_exception.DBDuplicateEntry | db_exception.DBDeadlock):
        return _BUSY
    found = code(error)
    if found in _BY_CODE:
        return _BY_CODE[found]
    text = str(_of_driver(error))
    for words, each in _BY_WORDS:
        if words.search(text):
            return each
    own_fault = found == _SQLITE_GENERIC or _is_own_fault(error)
    return (
        _OWN_FAULT
        if own_fault or _is_own_fault(getattr(error, "inner_exception", None))
        else _UNAVAILABLE
    )


def code(error: BaseException) -> Code:
    """Return the number, SQLSTATE or name of an error; None if it has none."""
    found = _of_driver(error)
    named = getattr(found, "sqlite_errorname", None)
    if named is not None:
        # Some names have a third part.
        return "_".join(str(named).split("_")[:2])
    state: str | None = getattr(found, "pgcode", None)
    number = found.args[0] if found.args else None
    return state or (number if isinstance(number, int) else None)


def text(error: BaseException) -> str:
    """Return the driver's message in one printable line, without statement and credentials."""
    return clean(without_credentials(" ".join(str(_of_driver(error)).split())), _TEXT_MAX)


def _is_own_fault(error: BaseException | None) -> bool:
    # The second case: the driver can't send a parameter.
    return isinstance(error, _OWN_FAULT_CLASSES) or (
        isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError)
    )


def _of_driver(error: BaseException) -> BaseException:
    inner: Any = getattr(error, "inner_exception", None) or error
    found: BaseException = getattr(inner, "orig", None) or inner
    return found
