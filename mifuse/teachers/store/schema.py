"""The tables of a draws store, and how a file of an older mifuse gets those that it lacks."""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x4D694675  # "MiFu", in the header of the file
SCHEMA = 3

_SOURCE = "teacher TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL"  # prompt: hash
# One statement list a schema; a file of schema n gets all after the n-th.
_STEPS = (
    (
        f"""
CREATE TABLE draws (
    {_SOURCE},
    clip TEXT NOT NULL,        -- hash of the content
    draw INTEGER NOT NULL,
    probs TEXT NOT NULL,       -- JSON, label -> probability, as the teacher said it
    raw TEXT,
    usage TEXT,                -- JSON
    price_usd REAL,
    request_id TEXT,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    PRIMARY KEY (teacher, model, prompt, clip, draw)
)
""",
    ),
    (
        f"""
CREATE TABLE invalid (
    {_SOURCE},
    clip TEXT NOT NULL,
    draw INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    problem TEXT NOT NULL,     -- why it is no distribution
    raw TEXT,
    usage TEXT,
    price_usd REAL,
    request_id TEXT,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    PRIMARY KEY (teacher, model, prompt, clip, draw, attempt)
)
""",
        # Money outlives the answers that it bought: pruned draws stay paid.
        f"""
CREATE TABLE spending (
    {_SOURCE},
    usd REAL NOT NULL,
    prunes INTEGER NOT NULL DEFAULT 0,  -- how often answers were deleted to be asked for anew
    PRIMARY KEY (teacher, model, prompt)
)
""",
        """
INSERT INTO spending (teacher, model, prompt, usd) SELECT teacher, model, prompt, total(price_usd) FROM draws
WHERE price_usd > 0 GROUP BY teacher, model, prompt
""",
        f"""
CREATE TABLE reservations (
    id INTEGER PRIMARY KEY,
    {_SOURCE},
    clip TEXT NOT NULL,
    draw INTEGER NOT NULL,     -- first of those that share its prompt
    usd REAL NOT NULL,         -- the most that the request can cost
    owner TEXT NOT NULL,       -- host:process, batch:number, or nothing when nobody waits for it
    expires REAL NOT NULL      -- seconds since 1970; after it the owner counts as dead
)
""",
        # To whom recordings, or what was measured in them, may go; asked once.
        "CREATE TABLE consents (host TEXT PRIMARY KEY)",
        "CREATE INDEX reserved ON reservations (clip, draw)",
        f"""
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    {_SOURCE},
    id TEXT,                   -- the service's name of it; NULL while it is being sent
    requests INTEGER NOT NULL,
    sender TEXT NOT NULL,      -- host:process
    created REAL NOT NULL
)
""",
    ),
    (
        f"""
CREATE TABLE dimensions (
    {_SOURCE},
    clip TEXT NOT NULL,
    draw INTEGER NOT NULL,
    said TEXT NOT NULL,        -- JSON, name -> number, as the teacher said it
    PRIMARY KEY (teacher, model, prompt, clip, draw)
)
""",
    ),
)


def version(db: sqlite3.Connection) -> int | None:
    """Schema of the open file: 0 when it has no table yet, None when it is another program's."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return None
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def upgrade(db: sqlite3.Connection, temporary: bool = False) -> None:
    """Make what the file lacks, in the transaction that the caller has opened.

    Args:
        temporary: leave the file as it is; the tables are empty ones of this connection.
    """
    for statements in _STEPS[version(db) or 0 :]:
        for statement in statements:
            if not temporary:
                db.execute(statement)
            elif "CREATE INDEX" not in statement:  # only there for speed
                db.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE"))
    if not temporary:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
