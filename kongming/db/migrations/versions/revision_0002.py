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

"""The column for what of a placement can't be observed."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from kongming.db.migrations.steps import drop_column, make_column

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column to the outcomes."""
    text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
    make_column("outcome", sa.Column("unobserved", text))


def downgrade() -> None:
    """Drop it."""
    drop_column("outcome", "unobserved")
