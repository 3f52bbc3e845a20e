"""A store in an object store, against a real S3 server on loopback: two machines are two mirrors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sftlab.cli.store import verify_results as verify
from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.mirror import drop, pull, pull_all, push
from sftlab.store.record import RECORD, Damaged
from tests.support.object_machines import STEP, Machines, build, objects_at, objects_of
from tests.support.refusals import refused
from tests.support.s3_server import S3Server


def test_another_machine_finds_a_result_and_reads_it_file_by_file(machines: Machines) -> None:
    one, two = machines(), machines()
    assert one.find(STEP) is None and not one.is_begun(STEP) and one.records("s") == []
    (one.work(STEP) / "part").write_text("unfinished")
    push(one.work(STEP) / "part")
    assert two.is_begun(STEP) and two.find(STEP) is None
    build(one)
    assert list(objects_of(two)) == [f"s/{STEP.folder}/{name}" for name in ("b.txt", "out/a.txt", RECORD)]
    assert two.find(STEP) == one.find(STEP)
    file = pull(two.path(STEP) / "out" / "a.txt")
    assert file.read_text() == "payload" and not (two.path(STEP) / "b.txt").exists()
    assert (pull(two.path(STEP)) / "b.txt").read_text() == ""
    assert [record.id for record in two.records("s")] == [STEP.id]
    assert [record.id for record in two.records("s", STEP.id[:9], slug="slug")] == [STEP.id]
    assert two.records("s", "0" * 12) == two.records("s", slug="other") == two.records("t") == []
    assert two.stages() == ["s"]
    build(two)  # the same bytes again
    with pytest.raises(UserError, match="other content"):
        build(machines(), text="something else")
    assert str(two) == machines.address.replace("%3A", ":")


def test_a_worker_elsewhere_sends_what_it_made_and_the_driver_commits_it_unseen(machines: Machines) -> None:
    driver, worker, reader = machines(), machines(), machines()
    (driver.path(STEP) / "model").mkdir(parents=True)
    (driver.path(STEP) / "model" / "weights").write_text("torn by a kill")  # what is sent counts, not this
    write_text(worker.path(STEP) / "model" / "weights", "w" * 1000)
    write_text(worker.path(STEP) / "model" / "scratch", "s")
    (worker.path(STEP) / "model" / ".draft").write_text("d")
    push(worker.path(STEP) / "model")
    drop(worker.path(STEP) / "model" / "scratch")
    write_text(driver.path(STEP) / "told.json", "{}")
    record = driver.commit(STEP)
    assert {name: entry["bytes"] for name, entry in record.files.items()} == {
        "model/weights": 1000,
        "told.json": 2,
    }
    assert set(objects_of(driver)) == {f"s/{STEP.folder}/{name}" for name in (*record.files, RECORD)}
    for store in (reader, driver):
        assert pull(store.path(STEP) / "model" / "weights").read_text() == "w" * 1000


def test_a_process_that_slept_through_its_lease_does_not_write_over_its_successor(machines: Machines) -> None:
    late, successor = machines(), machines()
    write_text(late.path(STEP) / "b.txt", "late")
    build(successor)
    push(late.path(STEP) / "b.txt")
    with pytest.raises(UserError, match="other content"):
        late.commit(STEP)
    assert (pull(machines().path(STEP)) / "b.txt").read_text() == ""


def test_parts_of_unfinished_work_travel_to_a_new_machine(machines: Machines) -> None:
    one, two = machines(), machines()
    blocks = [one.work(STEP) / "blocks" / f"{n}.parquet" for n in range(3)]
    for block in blocks:
        write_text(block, block.name)
        push(block)
    session = one.root / "sessions" / "0123456789abcdef" / "chosen.parquet"
    write_text(session, "chosen")
    push(session)
    there = [two.root / path.relative_to(one.root) for path in (*blocks, session)]
    pull(two.work(STEP))
    pull_all([there[-1], two.root / "sessions" / "none"])
    assert [path.read_text() for path in there] == ["0.parquet", "1.parquet", "2.parquet", "chosen"]
    write_text(session, "CHOSEN")
    push(session)
    assert pull(there[-1]).read_text() == "chosen"
    assert pull(there[-1], again=True).read_text() == "CHOSEN"
    drop(there[-1].parent)
    drop(there[0])
    assert len(objects_of(one)) == 2 and not there[0].exists() and not there[-1].exists()
    assert pull(there[-1]) == there[-1] and not there[-1].exists()  # what is nowhere is no error


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("out/a.txt", b"pay", "has 3 bytes and not 7"),
        ("out/a.txt", None, "out/a.txt is missing"),
        ("out/a.txt", b"paYload", "out/a.txt has other bytes than recorded"),
        (RECORD, b"{", "record.json is unreadable"),
    ],
)
def test_a_damaged_result_is_set_aside_and_built_again(
    machines: Machines, name: str, content: bytes | None, told: str
) -> None:
    build(machines())
    store = machines()
    objects, damaged = objects_at(store), f"s/{STEP.folder}/{name}"
    if content is None:
        objects.delete(damaged)
    else:
        objects.write(damaged, content)
    if store.find(STEP) is not None:  # of the right size: told by the one who reads it, or by `verify`
        with pytest.raises(Damaged, match="has other bytes") as error:
            pull(store.path(STEP) / "out")
        assert error.value.folder == store.path(STEP) and not (store.path(STEP) / name).exists()
        line = store.quarantine(STEP, thoroughly=True)
    else:
        lines: list[str] = []
        assert store.verify(lines.append) == 0
        (line,) = lines
    assert line is not None and told in line
    assert store.find(STEP) is None and not store.is_begun(STEP)
    kept = [path for path in objects_of(store) if path.startswith("damaged/")]
    assert len(kept) == (2 if content is None else 3)
    build(store)
    assert store.verify(lambda _: None) == 1 and store.quarantine(STEP, thoroughly=True) is None
    assert pull(machines().path(STEP) / "out" / "a.txt").read_text() == "payload"


def test_a_file_that_is_gone_is_damage_to_who_reads_it_and_a_full_disk_is_told(
    machines: Machines, tmp_path: Path
) -> None:
    build(machines())
    store = machines()
    assert store.find(STEP) is not None
    objects_at(store).delete(f"s/{STEP.folder}/b.txt")
    with pytest.raises(Damaged, match=r"b\.txt has other bytes"):
        pull(store.path(STEP))
    assert objects_at(store).download("none", tmp_path / "none") is None
    with pytest.raises(UserError, match=r"/proc/sftlab-a\.txt: cannot be written"):
        objects_at(store).download(f"s/{STEP.folder}/out/a.txt", Path("/proc/sftlab-a.txt"))
    assert not (tmp_path / "none").exists()


def test_a_damaged_copy_on_this_machine_is_fetched_again(machines: Machines) -> None:
    one, two = machines(), machines()
    build(one)
    pull(two.path(STEP))
    for name, text in (("out/a.txt", "paYload"), (RECORD, "{")):
        (two.path(STEP) / name).write_text(text)
    again = Store(machines.address, two.root.parent)
    (again.path(STEP) / "out" / "a.txt").touch()
    from sftlab.store import mirror

    mirror.forget(again.path(STEP))  # as in a new process
    assert pull(again.path(STEP) / "out" / "a.txt").read_text() == "payload"
    assert again.find(STEP) is not None


def test_a_copy_of_a_record_that_was_replaced_is_fetched_again(machines: Machines) -> None:
    one, two = machines(), machines()
    build(one)
    assert two.find(STEP) is not None
    objects_at(one).write(f"s/{STEP.folder}/b.txt", b"x")
    assert Store(machines.address, one.root.parent).quarantine(STEP) is not None
    write_text(one.path(STEP) / "out" / "a.txt", "rebuilt")
    write_text(one.path(STEP) / "b.txt", "")
    machines_one = Store(machines.address, one.root.parent)
    machines_one.commit(STEP)
    assert pull(two.path(STEP) / "out" / "a.txt").read_text() == "rebuilt"


def test_errors_of_the_server_are_waited_out_and_told_without_secrets(
    machines: Machines, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machines()
    server.order(errors=2)
    build(store)
    server.order(seconds=0.2)
    assert machines().find(STEP) is not None
    monkeypatch.setattr("sftlab.store.objects.ATTEMPTS", 2)
    store = Store(server.address("impatient"), tmp_path)
    server.order(errors=10_000)
    with pytest.raises(UserError, match="cannot be listed") as told:
        store.find(STEP)
    assert str(store) in str(told.value) and "run again" in str(told.value)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(told.value)
    server.order()
    assert machines().find(STEP) is not None


def test_a_bucket_that_is_not_there_is_told(server: S3Server, tmp_path: Path) -> None:
    with refused("the bucket nowhere is not there"):
        Store(server.address("x").replace("results", "nowhere"), tmp_path)
    with pytest.raises(UserError, match="no store is there"):
        verify(Store(server.address("typo"), tmp_path))
