"""A store in an object store, against a real S3 server on loopback: two machines are two mirrors."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow.fs import LocalFileSystem

from sftlab.cli.store import verify_results as verify
from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.inference.pieces import commit_table
from sftlab.store.artifact import Store
from sftlab.store.leases import Leases
from sftlab.store.mirror import drop, pull, pull_all, push
from sftlab.store.objects import Address, Objects, open_objects, parse_address
from sftlab.store.record import RECORD, Damaged, Step
from sftlab.store.remote import ObjectClaims
from sftlab.training.checkpoints import (
    checkpoint_root,
    drop_checkpoints,
    drop_copies,
    fetch_checkpoints,
    is_owned,
    latest_checkpoint,
    save_checkpoint,
    take_over,
)
from sftlab.training.records import History, SFTRun, read_result, write_result
from sftlab.training.spec import SFTSpec, TrainingRuntime
from tests.support.s3_server import S3Server, s3_server

STEP = Step("s", "slug", {"a": 1})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as started:
        yield started


class Machines:
    """Stores of one address, each with a mirror of its own."""

    def __init__(self, server: S3Server, prefix: str, folder: Path) -> None:
        self.address, self.folder, self.number = server.address(prefix), folder, count()

    def __call__(self) -> Store:
        return Store(self.address, self.folder / f"machine-{next(self.number)}")


@pytest.fixture
def machines(server: S3Server, tmp_path: Path) -> Iterator[Machines]:
    yield Machines(server, tmp_path.name, tmp_path)
    server.order()


def build(store: Store, step: Step = STEP, text: str = "payload") -> None:
    write_text(store.path(step) / "out" / "a.txt", text)
    write_text(store.path(step) / "b.txt", "")
    store.commit(step)


def objects_of(store: Store) -> dict[str, int]:
    assert store.mirror is not None
    return {name: found.bytes for name, found in store.mirror.objects.below().items()}


def test_a_result_is_found_under_whichever_label_it_was_committed(machines: Machines) -> None:
    named, unnamed = Step("facts", "my-study", {"a": 1}), Step("facts", "facts", {"a": 1})
    one = machines()
    assert one.path(unnamed).name == f"facts-{unnamed.id[:12]}"
    (one.work(named) / "part").write_text("unfinished")
    push(one.work(named) / "part")
    two = machines()
    assert two.path(unnamed).name == named.folder and two.is_begun(unnamed) and two.find(unnamed) is None
    build(one, named)
    assert two.find(unnamed) == one.find(named)
    three = machines()
    with three.listed("facts"):
        assert three.is_committed(unnamed) and three.find(unnamed) == one.find(named)
    assert pull(three.path(unnamed) / "out" / "a.txt").read_text() == "payload"
    build(three, unnamed)  # the same bytes again, and no second folder
    assert {name.split("/")[1] for name in objects_of(one)} == {named.folder}


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


def test_one_listing_answers_for_all_steps_of_a_stage(machines: Machines) -> None:
    one, two = machines(), machines()
    steps = [Step("s", f"slug{n}", {"n": n}) for n in range(12)]
    for step in steps[:3]:
        build(one, step)
    push_part = one.work(steps[3]) / "part"
    push_part.write_text("x")
    push(push_part)
    with two.listed("s", "t"):
        assert [two.is_committed(step) for step in steps] == [True] * 3 + [False] * 9
        assert [two.find(step) is not None for step in steps] == [True] * 3 + [False] * 9
        assert [two.is_begun(step) for step in steps] == [True] * 4 + [False] * 8
        build(one, steps[5])
        assert two.find(steps[5]) is None
    assert two.find(steps[5]) is not None and len(two.records("s")) == 4


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
    assert store.mirror is not None
    objects, damaged = store.mirror.objects, f"s/{STEP.folder}/{name}"
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
    assert store.find(STEP) is not None and store.mirror is not None
    store.mirror.objects.delete(f"s/{STEP.folder}/b.txt")
    with pytest.raises(Damaged, match=r"b\.txt has other bytes"):
        pull(store.path(STEP))
    assert store.mirror.objects.download("none", tmp_path / "none") is None
    with pytest.raises(UserError, match=r"/proc/sftlab-a\.txt: cannot be written"):
        store.mirror.objects.download(f"s/{STEP.folder}/out/a.txt", Path("/proc/sftlab-a.txt"))
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
    assert one.mirror is not None
    one.mirror.objects.write(f"s/{STEP.folder}/b.txt", b"x")
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


class SlowServer:
    """Files of a folder as objects; opening one takes a moment. All else is pyarrow's own file system."""

    def __init__(self) -> None:
        self.files = LocalFileSystem()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def open_output_stream(self, path: str) -> Any:
        stream = self.files.open_output_stream(path)
        time.sleep(0.4)
        return stream


@pytest.fixture
def slow(tmp_path: Path) -> Objects:
    """Objects of a slow server, which lie as files in `tmp_path / "here"`."""
    (tmp_path / "here").mkdir()
    address = Address("s3", str(tmp_path), "here")
    return Objects(address, SlowServer())


def test_an_object_is_written_wholly_where_a_signal_comes_in_the_middle(
    slow: Objects, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            slow.write("record.json", b"all of it")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "here" / "record.json").read_bytes() == b"all of it"


def test_an_upload_whose_file_cannot_be_read_to_its_end_leaves_no_object(
    slow: Objects, tmp_path: Path
) -> None:
    class Failing:
        """A file of a hundred bytes on a disk that fails after the first fifteen."""

        def stat(self) -> os.stat_result:
            return (tmp_path / "hundred").stat()

        def open(self, mode: str) -> Any:
            assert mode == "rb"
            return self

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def read(self, count: int) -> bytes:
            del count
            if self.read_once:
                raise OSError(errno.EIO, "Input/output error")
            self.read_once = True
            return b"the first bytes"

        read_once = False

    (tmp_path / "hundred").write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"model cannot be written: .*Input/output error"):
        slow.upload(Failing(), "model")  # type: ignore[arg-type]
    assert list((tmp_path / "here").iterdir()) == []


def test_a_bucket_that_is_not_there_is_told(server: S3Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the bucket nowhere is not there"):
        Store(server.address("x").replace("results", "nowhere"), tmp_path)
    with pytest.raises(UserError, match="no store is there"):
        verify(Store(server.address("typo"), tmp_path))


def other_process(address: str, dead: float = 30.0) -> Leases:
    """The leases of another process, which refreshes quickly so that the test need not wait."""
    objects = open_objects(parse_address(address))
    return Leases(ObjectClaims(objects, count()), refresh_seconds=0.3, dead_seconds=dead, poll_seconds=0.1)


def test_two_drivers_exclude_each_other_and_a_dead_one_is_forgotten(machines: Machines) -> None:
    store = machines()
    with (
        other_process(machines.address).hold("store"),
        pytest.raises(UserError, match="another run is building"),
    ):
        with store.exclusive():
            pass
    with store.shared(), store.shared():
        pass
    (claims,) = [other_process(machines.address).claims]
    claims.write("x/00000000000000000000-killed-alone")
    assert store.mirror is not None
    with other_process(machines.address, dead=0.5).hold("x"):
        assert len(store.mirror.objects.below("locks")) == 1


def test_of_builders_on_many_machines_one_builds(machines: Machines) -> None:
    built: list[int] = []
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store = machines()
            with other_process(machines.address).hold(STEP.lock):
                if store.find(STEP) is None:
                    built.append(number)
                    time.sleep(0.2)
                    build(store)
            assert pull(store.path(STEP) / "out" / "a.txt").read_text() == "payload"
        except BaseException as error:  # told below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed and len(built) == 1
    store = machines()
    assert store.mirror is not None and store.mirror.objects.below("locks") == {}
    with store.try_lock("free") as got:
        assert got
    with store.lock("b", "a", "a"):
        assert len(store.mirror.objects.below("locks")) == 2


class FakeEngine:
    """What `checkpoints` asks of DeepSpeed: a file for each rank in the folder of a tag."""

    module = torch.nn.Linear(1, 1)

    def __init__(self, state: str) -> None:
        self.state = state

    def save_checkpoint(self, folder: str, tag: str, **_: object) -> None:
        write_text(Path(folder) / tag / "rank_0.pt", self.state)


def test_checkpoints_of_a_run_travel_and_are_deleted_with_it(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    monkeypatch.setattr("sftlab.training.checkpoints.OWNER_SECONDS", 0.0)
    one, two = (checkpoint_root(str(store.root / "ray-train"), "cell") for store in (machines(), machines()))
    identity = {"run_id": "cell"}
    fetch_checkpoints(one)
    assert latest_checkpoint(one, identity) is None
    take_over(one, "first")
    for step in (2, 4):
        save_checkpoint(FakeEngine(f"after {step}"), one, step, History([1.0] * step, [0.1] * step), identity)
    write_text(one / "step-00000006" / "rank_0.pt", "without a mark")
    push(one / "step-00000006")
    shutil.rmtree(one)

    fetch_checkpoints(two)
    found = latest_checkpoint(two, identity)
    assert found is not None and found[:2] == ("step-00000004", 4) and found[2].losses == [1.0] * 4
    assert (two / found[0] / "rank_0.pt").read_text() == "after 4"
    assert is_owned(one, "first") and not is_owned(one, "second")
    take_over(two, "second")
    assert is_owned(two, "second") and not is_owned(one, "first")
    drop_checkpoints(two)
    drop_copies(one)
    assert not one.exists() and not two.exists()
    assert not objects_of(machines())


def test_pieces_are_sent_by_those_who_write_them_and_belong_to_the_run_on_every_machine(
    machines: Machines,
) -> None:
    facts, folder = Step("training-set", "cell", {}), Step("tuned", "cell", {})
    one, two = machines(), machines()
    block = one.work(folder) / "blocks" / "00000.parquet"
    commit_table(pa.table({"question": ["q"], "object": ["o"]}), block)
    assert pq.read_table(pull(two.root / block.relative_to(one.root))).num_rows == 1
    commit_table(pa.table({"question": ["q"], "object": ["o"]}), one.path(facts) / "train.parquet")
    one.commit(facts)

    def run(store: Store) -> SFTRun:
        base = str(store.path(Step("model", "m", {})) / "model")
        train = str(store.path(facts) / "train.parquet")
        return SFTRun("cell", base, train, str(store.path(folder) / "model"), SFTSpec())

    assert read_result(run(two)) is None
    write_result(
        run(one), TrainingRuntime(), 1, History([0.5], [0.1], tokens=2, answer_tokens=1, seconds=1.0)
    )
    found = read_result(run(two))
    assert found is not None and found.losses == [0.5]
    other = replace(run(machines()), base_model="/another/model")
    with pytest.raises(UserError, match="is the result of another run; base_model differ"):
        read_result(other)
