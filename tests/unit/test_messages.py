"""Messages with descriptors: the flags that Python's own functions drop have their effect here."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from labkit.kernel import scm_rights

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    with ours, theirs:
        yield ours, theirs


def test_descriptors_arrive_and_are_closed_on_execve(pair: Pair) -> None:
    reader, writer = os.pipe()
    scm_rights.send(pair[0], b"hello", [reader, writer])
    data, received = scm_rights.receive(pair[1], 100, 2)
    try:
        assert data == b"hello"
        assert [os.get_inheritable(fd) for fd in received] == [False, False]
        os.write(received[1], b"x")
        assert os.read(reader, 1) == b"x"
    finally:
        for fd in (reader, writer, *received):
            os.close(fd)


@pytest.mark.parametrize("count", [0, 1])
def test_a_receiver_that_has_gone_is_an_error_and_no_signal(pair: Pair, count: int) -> None:
    """A child that dies before its go-ahead must not take the zygote along, in which SIGPIPE kills."""
    pair[1].close()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            scm_rights.send(pair[0], b"g", [0] * count)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_more_descriptors_than_there_is_room_for_are_refused(pair: Pair) -> None:
    before = len(os.listdir("/proc/self/fd"))
    scm_rights.send(pair[0], b"x", [0] * 8)
    with pytest.raises(OSError, match="Too many open files"):
        scm_rights.receive(pair[1], 100, 2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_waiting_there_is_nothing(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        scm_rights.receive(pair[1], 100, 1, socket.MSG_DONTWAIT)
