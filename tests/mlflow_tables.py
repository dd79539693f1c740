"""MLflow's tables, made once in a process: its migrations take more than a second for every fresh store.

Every look at a store reads all of them again, to compare the last one's name.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any


def copy_tables() -> None:
    """From here on fresh SQLite stores get a copy of the tables that MLflow makes for the first one.

    Processes that are forked copy them too. What several processes do with a fresh store is tested with MLflow's own.
    """
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    make = utils._initialize_tables
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder, 'first.db')}")
        make(engine)
        with engine.connect() as connection:
            tables = connection.connection.driver_connection.serialize()
        engine.dispose()

    def copy(engine: Any) -> None:
        if engine.dialect.name != "sqlite":
            return make(engine)
        source = sqlite3.connect(":memory:")
        source.deserialize(tables)
        with engine.connect() as connection:
            source.backup(connection.connection.driver_connection)
        source.close()
        return None

    utils._initialize_tables = copy
    latest = utils._get_latest_schema_revision()
    utils._get_latest_schema_revision = lambda: latest
