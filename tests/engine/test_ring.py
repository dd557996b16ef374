"""Frames in shared memory: what a reader sees is whole, or it is told."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import UserError
from engine.leftovers import own_names, process_exists
from engine.packet import FrameRef
from engine.ring import FrameRing, RingReader, remove_rings_of, sweep_stale_rings
from engine.stage import FrameOverrun

SLOTS, HEIGHT, WIDTH = 5, 48, 64


@pytest.fixture
def ring() -> Iterator[FrameRing]:
    ring = FrameRing.create("0", SLOTS, HEIGHT * WIDTH * 3)
    yield ring
    ring.close(unlink=True)


def write(ring: FrameRing, number: int, busy: frozenset[int] = frozenset()) -> FrameRef:
    ring.begin(HEIGHT, WIDTH, busy)[:] = number
    return ring.commit(number)


def test_a_reader_sees_what_was_written_and_cannot_change_it(ring: FrameRing) -> None:
    ref = write(ring, 7)
    reader = RingReader(SLOTS)
    with reader.read(ref) as frame:
        assert frame.shape == (HEIGHT, WIDTH, 3)
        assert (frame == 7).all()
        with pytest.raises(ValueError, match="read-only"):
            frame[0] = 1
    reader.close()


def test_a_frame_that_was_overwritten_is_refused_on_entry(ring: FrameRing) -> None:
    ref = write(ring, 0)
    for number in range(1, SLOTS + 1):
        write(ring, number)
    with pytest.raises(FrameOverrun), ring.read(ref):
        pytest.fail("an overwritten frame was handed out")


def test_a_frame_that_is_overwritten_while_it_is_read_is_refused_on_exit(ring: FrameRing) -> None:
    ref = write(ring, 0)
    with pytest.raises(FrameOverrun), ring.read(ref):
        for number in range(1, SLOTS + 1):
            write(ring, number)


def test_frames_that_are_under_way_are_not_overwritten(ring: FrameRing) -> None:
    busy = frozenset({0, 2})
    refs = {number: write(ring, number, busy) for number in range(3)}
    for number in range(3, 30):
        write(ring, number, busy)
    for number in busy:
        with ring.read(refs[number]) as frame:
            assert (frame == number).all()


def test_of_frames_that_are_all_under_way_the_oldest_is_overwritten(ring: FrameRing) -> None:
    refs = [write(ring, number) for number in range(SLOTS)]
    write(ring, SLOTS, busy=frozenset(range(SLOTS)))
    for ref in refs[1:]:
        with ring.read(ref):
            pass
    with pytest.raises(FrameOverrun), ring.read(refs[0]):
        pytest.fail("an overwritten frame was handed out")


def test_a_frame_that_fills_its_pages_to_the_last_byte_fits() -> None:
    ring = FrameRing.create("0", SLOTS, 64 * 64 * 3)
    assert ring.fits(64, 64) and not ring.fits(64, 65)
    ring.close(unlink=True)


def test_what_a_dead_program_left_is_removed_and_what_a_living_one_uses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ring._SHM_FOLDER", tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    left, used = (tmp_path / f"{own_names('frames')}-{pid}-0-test" for pid in (dead.pid, os.getpid()))
    for remove in (sweep_stale_rings, lambda: remove_rings_of(dead.pid)):
        left.touch()
        used.touch()
        remove()
        assert not left.exists() and used.exists()
    monkeypatch.setattr("os.kill", lambda pid, signal: (_ for _ in ()).throw(PermissionError))
    assert process_exists(1), "another user's"


def test_a_slot_that_a_dead_writer_left_half_written_is_never_read(ring: FrameRing) -> None:
    refs = [write(ring, number) for number in range(SLOTS)]
    ring.begin(HEIGHT, WIDTH, ())  # and dies here
    with pytest.raises(FrameOverrun), ring.read(refs[0]):
        pytest.fail("a half-written frame was handed out")
    successor = FrameRing.attach(ring.name, SLOTS)
    ref = write(successor, 99)
    with ring.read(ref) as frame:
        assert (frame == 99).all()
    successor.close()


def _read_slowly(name: str, refs: multiprocessing.connection.Connection, verdict: object) -> None:
    ring = FrameRing.attach(name, 4)
    good = wrong = refused = 0
    while True:
        message = refs.recv_bytes()
        if not message:
            break
        numbers = np.frombuffer(message, np.int64)
        ref = FrameRef(name, int(numbers[0]), int(numbers[1]), WIDTH, HEIGHT)
        try:
            with ring.read(ref) as frame:
                first = int(frame[0, 0, 0])
                time.sleep(0.0005)
                whole = bool((frame == first).all()) and first == int(numbers[2]) % 251
            good, wrong = good + whole, wrong + (not whole)
        except FrameOverrun:
            refused += 1
    refs.send_bytes(np.array([good, wrong, refused]).tobytes())


def test_a_slow_reader_in_another_process_never_takes_a_mixed_frame_for_a_whole_one() -> None:
    ring = FrameRing.create("0", 4, HEIGHT * WIDTH * 3)
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    reader = spawn.Process(target=_read_slowly, args=(ring.name, theirs, None))
    reader.start()
    for number in range(4000):
        frame = ring.begin(HEIGHT, WIDTH, ())
        frame[: HEIGHT // 2] = number % 251
        frame[HEIGHT // 2 :] = number % 251
        ref = ring.commit(number)
        mine.send_bytes(np.array([ref.slot, ref.generation, number]).tobytes())
    mine.send_bytes(b"")
    good, wrong, refused = np.frombuffer(mine.recv_bytes(), np.int64)
    reader.join()
    ring.close(unlink=True)
    assert wrong == 0
    assert refused > 0
    assert good + refused == 4000


def test_a_program_that_only_attached_does_not_take_the_ring_along_when_it_ends(ring: FrameRing) -> None:
    ref = write(ring, 3)
    script = f"from engine.ring import FrameRing; FrameRing.attach({ring.name!r}, {SLOTS})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reader = RingReader(SLOTS)
    with reader.read(ref) as frame:
        assert (frame == 3).all()
    reader.close()


LIMITED = """
import resource, sys
from engine.errors import UserError
from engine.ring import FrameRing
kind = getattr(resource, sys.argv[1])
resource.setrlimit(kind, (int(sys.argv[2]), resource.getrlimit(kind)[1]))
try:
    FrameRing.attach(sys.argv[3], 5) if sys.argv[3:] else FrameRing.create("0", 5, 100_000_000)
except (UserError, OSError) as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sets limits of the system")
@pytest.mark.parametrize(("limit", "size", "attaches"), [("FSIZE", 5000, False), ("AS", 1, True)])
def test_where_the_system_gives_no_memory_that_is_said_and_nobody_elses_frames_are_lost(
    ring: FrameRing, limit: str, size: int, attaches: bool
) -> None:
    words = [f"RLIMIT_{limit}", str(size), *([ring.name] if attaches else [])]
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True)
    assert done.stdout and not done.stderr
    FrameRing.attach(ring.name, SLOTS).close()


def test_closing_under_a_living_view_does_not_crash() -> None:
    script = """
from engine.ring import FrameRing
ring = FrameRing.create("0", 5, 3000)
view = ring.begin(10, 100, ())
ring.close(unlink=True)
view[:] = 1
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="asks the file system of shared memory")
def test_too_little_shared_memory_is_said_before_it_is_used() -> None:
    with pytest.raises(UserError, match="shm-size"):
        FrameRing.create("0", 128, 10**12)


def test_references_from_elsewhere_are_refused(ring: FrameRing) -> None:
    reader = RingReader(SLOTS)
    write(ring, 0)
    for ref in (
        FrameRef("../../etc/passwd", 0, 2, 4, 4),
        FrameRef(f"{own_names('frames')}-1-0-gone", 0, 2, 4, 4),
        FrameRef(ring.name, SLOTS, 2, 4, 4),
        FrameRef(ring.name, -1, 2, 4, 4),
        FrameRef(ring.name, 0, 2, 100_000, 100_000),
    ):
        with pytest.raises(FrameOverrun), reader.read(ref):
            pytest.fail("a wrong reference was followed")
    reader.close()


def test_a_larger_ring_takes_the_place_of_its_own_streams_ring_alone() -> None:
    rings = [FrameRing.create(stream, SLOTS, 48) for stream in ("0", "1", "0")]
    refs = []
    for number, ring in enumerate(rings):
        ring.begin(4, 4, busy=())[:] = number
        refs.append(ring.commit(number))
    reader = RingReader(SLOTS)
    for number, ref in enumerate(refs):
        with reader.read(ref) as picture:
            assert (picture == number).all()
    assert sorted(reader._rings) == sorted([rings[1].name, rings[2].name])
    reader.close()
    for ring in rings:
        ring.close(unlink=True)
