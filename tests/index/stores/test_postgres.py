"""The store in a PostgreSQL database: the server's side, and databases of earlier versions."""

import subprocess
import sys
import time

import numpy as np
import psycopg
import pytest

from index.errors import StoreError
from index.search.twin_index import TwinIndex
from index.stores.open_store import open_store
from index.stores.postgres import SCHEMA_VERSION
from tests.index.stars import DIMENSION, in_threads, replaced, star
from tests.postgres import PASSWORD, Postgres


@pytest.fixture
def url(postgres):
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture
def store(url):
    store = open_store(url)
    yield store
    store.close()


def test_durability_is_asked_for(store):
    assert store._read("SHOW synchronous_commit") == [("on",)]


def test_writers_take_turns_whatever_the_database_s_isolation(postgres, url):
    isolation = "SET default_transaction_isolation = 'repeatable read'"
    postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} {isolation}")
    stores = [open_store(url) for _ in range(4)]

    def write(number):
        for row in range(25):
            stores[number].upsert([star(f"{number}-{row}")])

    in_threads(*[lambda number=number: write(number) for number in range(4)])
    assert (stores[0].last_seq(), stores[0].stars_by_model()) == (100, {"m@1": 100})
    for store in stores:
        store.close()


def test_several_instances_may_make_the_schema_at_once(postgres):
    for _ in range(3):
        url = postgres.create()
        in_threads(*[lambda url=url: open_store(url).close()] * 6)
        postgres.drop(url)


WRITER = """
import sys
import numpy as np
from index.stores.open_store import open_store
from index.stores.star import Star
store = open_store(sys.argv[1])
for i in range(100_000):
    latent = np.array([i, 0, 0], dtype=np.float32)
    store.upsert([Star(f"{sys.argv[2]}-{i:06d}", "m@1", latent, None, 4500.0, 2.0, 0.0)])
    print(i, flush=True)
"""


@pytest.mark.slow
def test_a_killed_server_comes_back_with_all_that_was_confirmed(tmp_path):
    """SIGKILL under two writing processes, several times; our store goes on without a restart."""
    server = Postgres()
    try:
        url = server.create()
        store = open_store(url)
        index = TwinIndex(store, "m@1", DIMENSION, tmp_path)
        for life in range(3):
            writers = [
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, url, f"L{life}-{n}"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                for n in range(2)
            ]
            for writer in writers:
                assert [next(writer.stdout) for _ in range(5)][-1] == "4\n"
            time.sleep(0.1 * life)
            server.kill()
            confirmed = [4 + len(writer.communicate()[0].splitlines()) for writer in writers]
            assert [writer.returncode for writer in writers] == [1, 1]
            with pytest.raises(StoreError, match="cannot read the store"):
                store.get(["A"], "m@1")
            with pytest.raises(StoreError, match="cannot write to the store"):
                store.upsert([star("A")])
            server.start()
            for n, last in enumerate(confirmed):
                ids = [f"L{life}-{n}-{i:06d}" for i in range(last + 1)]
                assert store.get(ids, "m@1").keys() == set(ids)
            assert replaced(store.upsert([star(f"L{life}", (life, 7, 7))])) == [False]
            assert index.search(np.array([life, 7, 7], np.float32), 1)[0].star_id == f"L{life}"
            assert len(index) == len(store.page("", 100_000, "m@1"))
        store.close()
    finally:
        server.stop()


def test_a_server_that_ends_idle_connections_is_not_noticed(postgres, store):
    store.upsert([star("A")])
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    time.sleep(0.2)
    assert replaced(store.upsert([star("A")])) == [True]


def test_what_cannot_be_opened_is_reported_without_the_password(postgres, url):
    secret = "dont%2Ftell"
    _, _, address = url.rpartition("@")
    for bad, message in (
        (f"postgresql://postgres:{secret}@{address}", "password authentication failed"),
        (f"postgresql://nobody:{secret}@127.0.0.1:1/x", "Connection refused"),
        (
            f"postgresql://postgres:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{postgres.port}/none",
            "does not exist",
        ),
        ("postgresql://postgres:dont/tell@127.0.0.1/x", "special characters"),
        ("postgresql://postgres:dont%tell@127.0.0.1/x", "special characters"),
        ("postgres://postgres:dont@tell@127.0.0.1/x", "special characters"),
        ("postgresql://postgres:don?t#tell@127.0.0.1/x", "special characters"),
    ):
        with pytest.raises(StoreError, match=message) as raised:
            open_store(bad)
        assert "tell" not in str(raised.value)
        assert PASSWORD not in str(raised.value)


def test_another_database_is_left_alone(postgres, url):
    database = url.rpartition("/")[2]
    postgres.execute("CREATE TABLE stars (mine integer)", database)
    with pytest.raises(StoreError, match="table stars that is not a store's"):
        open_store(url)
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert tables.fetchall() == [("stars",)]


def test_a_store_of_another_version_is_left_alone(postgres, url):
    open_store(url).close()
    postgres.execute(f"UPDATE chemtwin SET version = {SCHEMA_VERSION + 1}", url.rpartition("/")[2])
    with pytest.raises(StoreError, match=f"not a store of version 1 to {SCHEMA_VERSION}"):
        open_store(url)


VERSION_1 = """
CREATE EXTENSION vector;
CREATE TABLE stars (
    seq bigint NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    teff float8, logg float8, fe_h float8, snr float8,
    model text COLLATE "C" NOT NULL,
    latent vector,
    star_id text COLLATE "C" NOT NULL,
    covariance bytea, chi2 float8, masked_fraction float8, in_domain boolean, warnings text,
    ra float8, dec float8, meta text, others text,
    PRIMARY KEY (star_id, model)
);
CREATE UNIQUE INDEX stars_by_seq ON stars (model, seq);
CREATE TABLE spectra (star_id text COLLATE "C" PRIMARY KEY, spectrum bytea NOT NULL);
CREATE TABLE models (model text COLLATE "C" PRIMARY KEY, stars bigint NOT NULL, written bigint NOT NULL);
CREATE TABLE chemtwin (version integer NOT NULL, seq bigint NOT NULL);
INSERT INTO chemtwin VALUES (1, 1001);
INSERT INTO models VALUES ('m@1', 1000, 1001);
CREATE INDEX stars_hnsw_1234 ON stars USING hnsw ((latent::vector(18)) vector_l2_ops)
WHERE model = 'm@1' AND NOT deleted;
"""
"""What a store of version 1 was, with the index of an approximate search."""


def layout(url):
    """Columns and indexes of every table."""
    with psycopg.connect(url) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default "
            "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        ).fetchall()
        indexes = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
    return columns, indexes


def test_a_store_of_version_1_is_taken_over(postgres, url):
    """Its latents were pgvector's; the bits of each stay."""
    latents = np.random.default_rng(1).normal(size=(1000, 18)).astype(np.float32)
    latents[0, :4] = [0.0, 1e-38, 3.4e38, -1e-45]
    with psycopg.connect(url) as connection:
        connection.execute(VERSION_1.encode())
        connection.cursor().executemany(
            "INSERT INTO stars (seq, star_id, model, latent, teff, logg, fe_h, in_domain, warnings, meta, others) "
            "VALUES (%s, %s, 'm@1', %s::vector, 4500, 2, 0, true, '[]', '{}', '{\"vbroad\": 3.0}')",
            [(row + 1, f"S{row:04d}", str(latent.tolist())) for row, latent in enumerate(latents)],
        )
        connection.execute(
            "INSERT INTO stars (seq, star_id, model, deleted) VALUES (1001, 'gone', 'm@1', true)"
        )
    for _ in range(2):
        store = open_store(url)
        assert [(one.star_id, one.extra) for one in store.page("", 1, "m@1")] == [("S0000", {"vbroad": 3.0})]
        rows = store.changes("m@1", 0)
        assert [change.star_id for change in rows if change.latent is None] == ["gone"]
        assert b"".join(change.latent or b"" for change in rows) == latents.astype("<f4").tobytes()
        assert (store.last_seq(), store.stars_by_model()) == (1001, {"m@1": 1000})
        store.close()
    new = postgres.create()
    open_store(new).close()
    postgres.execute("DROP EXTENSION vector", url.rpartition("/")[2])
    assert layout(url) == layout(new)
    postgres.drop(new)


def test_a_store_needs_no_extension(store):
    assert store._read("SELECT extname FROM pg_extension WHERE extname = 'vector'") == []


def test_who_may_not_migrate_reads_why(postgres, url):
    database = url.rpartition("/")[2]
    postgres.execute(VERSION_1, database)
    postgres.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'", database)
    postgres.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO plain", database)
    postgres.execute("GRANT ALL ON SCHEMA public TO plain", database)
    with pytest.raises(StoreError, match="must be owner of"):
        open_store(url.replace("postgres:" + PASSWORD.replace(" ", "%20"), "plain:plain"))
    postgres.execute("DROP OWNED BY plain", database)
    postgres.execute("DROP ROLE plain", database)


def test_rows_whose_latents_are_gone_are_damage(postgres, store, url):
    store.upsert([star("A"), star("B")])
    assert store.damage() is None
    postgres.execute("UPDATE stars SET latent = NULL WHERE star_id = 'A'", url.rpartition("/")[2])
    assert store.damage() == "not every row by m@1 has a latent of the same length"


def test_a_database_of_any_name_has_a_cache(postgres, tmp_path):
    postgres.execute('CREATE DATABASE "a/b %"')
    store = open_store(postgres.url("a%2Fb%20%25"))
    index = TwinIndex(store, "m@1", DIMENSION, tmp_path)
    index.upsert([star(f"S{row}") for row in range(1000)])
    index.catch_up()
    index.close()
    store.close()
    assert [path.name.partition("-")[0] for path in tmp_path.glob("*.cache")] == [
        f"127.0.0.1%3A{postgres.port}%2Fa%2Fb%20%25"
    ]
    postgres.execute('DROP DATABASE "a/b %" WITH (FORCE)')


def test_without_psycopg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "index.stores.postgres", None)
    with pytest.raises(StoreError, match=r"chemtwin\[postgres\]"):
        open_store("postgresql://127.0.0.1/x")


@pytest.mark.slow
def test_sqlite_needs_no_psycopg(tmp_path):
    code = (
        "import sys; from pathlib import Path; from index.stores.open_store import open_store; "
        "from index.search.twin_index import TwinIndex; "
        "TwinIndex(open_store(sys.argv[1]), 'm@1', 3, Path()); assert 'psycopg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s.sqlite")], check=True)
