"""What every store promises; one suite for each implementation and for the fakes of the tests."""

from __future__ import annotations

import itertools
import string
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.runtime.s3 import S3Store
from orchestrator.runtime.store import BadKeyError, DirectoryStore, MissingKeyError, Store
from tests.runtime.s3_servers import KEYS, bucket, moto
from tests.runtime.stores import FailingStore, MemoryStore

MAKERS: dict[str, Callable[[Path], Store]] = {
    "directory": lambda folder: DirectoryStore(folder / "store"),
    "memory": lambda _: MemoryStore(),
    "failing": lambda _: FailingStore(MemoryStore()),
    "s3": lambda _: S3Store(bucket(moto()), KEYS),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MAKERS[request.param](tmp_path)


def test_a_key_is_created_once(store: Store) -> None:
    assert store.put_exclusive("commits/1.json", b"mine")
    assert not store.put_exclusive("commits/1.json", b"yours")
    assert store.get_range("commits/1.json") == b"mine"


def test_of_many_writers_exactly_one_creates_a_key(store: Store) -> None:
    writers, won = 8, []
    gate = threading.Barrier(writers)

    def write(name: int) -> None:
        gate.wait()
        if store.put_exclusive("commits/1.json", f"{name}".encode()):
            won.append(name)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get_range("commits/1.json") == f"{won[0]}".encode()


def test_a_part_is_read_in_ranges(store: Store) -> None:
    store.put_part("parts/a/model.0", memoryview(bytearray(range(10))))
    assert store.get_range("parts/a/model.0") == bytes(range(10))
    assert store.get_range("parts/a/model.0", 3, 4) == bytes([3, 4, 5, 6])
    assert store.get_range("parts/a/model.0", 8, 100) == bytes([8, 9])
    assert store.get_range("parts/a/model.0", 100, 1) == b""
    assert store.get_range("parts/a/model.0", 2, 0) == b""


def test_an_impossible_range_is_a_mistake(store: Store) -> None:
    store.put_part("parts/a", b"x")
    with pytest.raises(ValueError, match="range"):
        store.get_range("parts/a", -1, 1)
    with pytest.raises(ValueError, match="range"):
        store.get_range("parts/a", 0, -1)


def test_the_last_whole_write_of_a_part_wins(store: Store) -> None:
    store.put_part("parts/a", b"first, longer")
    store.put_part("parts/a", b"second")
    assert store.get_range("parts/a") == b"second"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put_part("parts/empty", b"")
    found = store.stat("parts/empty")
    assert found is not None
    assert found.size_bytes == 0
    assert store.get_range("parts/empty") == b""


def test_a_missing_object_is_told_from_an_empty_one(store: Store) -> None:
    store.put_part("parts/a/b", b"x")
    for key in ("nothing", "parts/a/c", "parts/a/b/c", "parts/a"):
        assert store.stat(key) is None
        with pytest.raises(MissingKeyError):
            store.get_range(key)


def test_deleting_twice_is_no_error(store: Store) -> None:
    store.put_part("parts/a/b", b"x")
    store.delete("parts/a/b")
    store.delete("parts/a/b")
    assert store.stat("parts/a/b") is None
    store.put_part("parts/a/b", b"again")
    assert store.get_range("parts/a/b") == b"again"


def test_a_listing_is_sorted_and_begins_after(store: Store) -> None:
    keys = ["commits/3", "commits/1", "commits/2", "parts/x/1", "commitsother/1", "root"]
    for key in keys:
        store.put_part(key, b"")
    assert [*store.list("commits/")] == ["commits/1", "commits/2", "commits/3"]
    assert [*store.list("commits/", "commits/1")] == ["commits/2", "commits/3"]
    assert [*store.list("parts/")] == ["parts/x/1"]
    assert [*store.list("")] == sorted(keys)
    assert [*store.list("nowhere/")] == []


STRANGE = (
    "",
    "/etc/passwd",
    "../up",
    "a/../../b",
    "a//b",
    "a/",
    "./a",
    ".hidden",
    "a/.tmp-1",
    "a\0b",
    "a\nb",
    "ä",
    "a b",
    "x" * 600,
    "y" * 300 + "/z",
    "~root",
    "a\\b",
)


@pytest.mark.parametrize("key", STRANGE)
def test_a_strange_key_is_refused_by_every_verb(store: Store, key: str) -> None:
    verbs: list[Callable[[], object]] = [
        lambda: store.put_exclusive(key, b""),
        lambda: store.put_part(key, b""),
        lambda: store.get_range(key),
        lambda: store.stat(key),
        lambda: store.delete(key),
    ]
    for verb in verbs:
        with pytest.raises(BadKeyError):
            verb()


def test_a_listing_cannot_leave_the_store(store: Store) -> None:
    with pytest.raises(BadKeyError):
        list(store.list("../"))


SEGMENT = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=6)
OBJECTS = st.dictionaries(
    st.lists(SEGMENT, min_size=2, max_size=3).map("/".join), st.binary(max_size=50), max_size=6
)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(objects=OBJECTS)
def test_what_was_put_is_listed_and_read_back(name: str, objects: dict[str, bytes]) -> None:
    prefixes = [
        key for key, other in itertools.permutations(objects, 2) if other.startswith(f"{key}/")
    ]
    for key in prefixes:  # a folder cannot have the name of a file
        objects.pop(key, None)
    with tempfile.TemporaryDirectory() as folder:
        store = MAKERS[name](Path(folder))
        for key, data in objects.items():
            assert store.put_exclusive(key, data)
        assert [*store.list("")] == sorted(objects)
        assert {key: store.get_range(key) for key in store.list("")} == objects
