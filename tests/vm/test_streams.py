"""The line between host and guest, with both ends in this process."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from labkit.vm.streams import WINDOW, Streams


class Ends:
    """Two ends of one line, moved in turn."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near_messages: list[dict[str, Any]] = []
        self.far_messages: list[dict[str, Any]] = []
        self.near = Streams(near.fileno(), self.near_messages.append)
        self.far = Streams(far.fileno(), self.far_messages.append)

    def settle(self, rounds: int = 200) -> None:
        for _ in range(rounds):
            self.near.step(0)
            self.far.step(0)


@pytest.fixture
def ends() -> Iterator[Ends]:
    near, far = socket.socketpair()
    with near, far:
        yield Ends(near, far)


def test_messages_keep_their_order(ends: Ends) -> None:
    for number in range(5):
        ends.near.send({"number": number})
    ends.settle()
    assert ends.far_messages == [{"number": number} for number in range(5)]
    assert ends.near_messages == []


def test_bytes_and_their_end_arrive(ends: Ends) -> None:
    source, writer = os.pipe()
    got = bytearray()
    ended: list[bool] = []
    ends.far.attach(7, sink=got.extend, on_end=lambda: ended.append(True))
    ends.near.attach(7, source=source)
    os.write(writer, b"one")
    ends.settle()
    assert (bytes(got), ended) == (b"one", [])
    os.write(writer, b" two")
    os.close(writer)
    ends.settle()
    assert (bytes(got), ended) == (b"one two", [True])
    assert not ends.near.sending(7)
    os.close(source)


def test_a_reader_that_stops_holds_up_its_own_stream_only(ends: Ends) -> None:
    zeros = os.open("/dev/zero", os.O_RDONLY)
    reader, full = os.pipe()
    os.set_blocking(full, False)
    source, writer = os.pipe()
    got = bytearray()
    ends.far.attach(1, sink=full)
    ends.far.attach(2, sink=got.extend)
    ends.near.attach(1, source=zeros)
    ends.near.attach(2, source=source)
    ends.settle()
    waiting = ends.far._streams[1].pending
    assert 0 < len(waiting) <= WINDOW
    os.write(writer, b"still here")
    ends.settle()
    assert bytes(got) == b"still here"
    os.read(reader, 1 << 16)
    ends.settle()
    assert 0 < len(waiting) <= WINDOW
    for fd in (zeros, reader, full, source, writer):
        os.close(fd)


def test_a_reader_that_is_gone_stops_the_sender(ends: Ends) -> None:
    zeros = os.open("/dev/zero", os.O_RDONLY)
    reader, broken = os.pipe()
    os.close(reader)
    ends.far.attach(1, sink=broken)
    ends.near.attach(1, source=zeros)
    ends.settle()
    assert not ends.near.sending(1)
    for fd in (zeros, broken):
        os.close(fd)


def test_a_stream_nobody_takes_is_refused(ends: Ends) -> None:
    zeros = os.open("/dev/zero", os.O_RDONLY)
    done: list[bool] = []
    ends.near.attach(9, source=zeros, sink=lambda _: None, on_done=lambda: done.append(True))
    ends.far.reject(9)
    ends.settle()
    assert done == [True]
    os.close(zeros)


def test_the_end_of_the_line_is_noticed(ends: Ends) -> None:
    with socket.socket(fileno=os.dup(ends.far.fd)) as line:
        line.shutdown(socket.SHUT_RDWR)
    ends.near.step(1)
    assert ends.near.closed
