"""A local command as a channel."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import structlog

from alerts.channels.channel import DeliveryError, Message, document, masked
from alerts.channels.environment import bare_environment

TRY_AGAIN = 75
"""The exit status of a command that wants to be run again later: EX_TEMPFAIL of sysexits.h."""

# Of what a command complains, so much is kept, and of its last line so much is told.
_KEPT_BYTES = 4096
_TOLD = 200

# What a command left running may still hold its standard error open; it is not waited for.
_LAST_WORDS_S = 0.5
_DEAD_S = 2.0


class CommandChannel:
    """Runs a command for each message.

    The command finds the message as JSON on its standard input, and in its environment
    ``LEADONE_TITLE``, ``LEADONE_BODY``, ``LEADONE_PRIORITY``, ``LEADONE_KEY``, ``LEADONE_THREAD``
    and, where there is a strip, ``LEADONE_PICTURE``: the path of a PNG that is gone when the
    command has ended. Of this process's own environment it sees little more than ``PATH``. Exit
    status 0 means delivered, 75 (``TRY_AGAIN``) not yet, any other never.

    Args:
        name: what the channel is called in the configuration.
        argv: the program and its arguments; no shell comes between.

    Raises:
        ValueError: there is no program.
    """

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        if not argv or not argv[0]:
            raise ValueError(f"{name}: command: must name a program")
        self.name = name
        self._argv = tuple(argv)
        self._log = structlog.get_logger(__name__)

    async def send(self, message: Message) -> None:
        """Run the command; when cancelled, kill it and whatever it has started.

        Raises:
            DeliveryError: it could not be run, or says so.
        """
        environment = {
            "LEADONE_TITLE": message.title,
            "LEADONE_BODY": message.body,
            "LEADONE_PRIORITY": message.priority.value,
            "LEADONE_KEY": message.key,
            "LEADONE_THREAD": message.thread,
        }
        text = json.dumps(document(message), ensure_ascii=False).encode()
        with contextlib.ExitStack() as files:
            if message.picture is not None:
                try:
                    path = files.enter_context(file_in_memory("ecg.png", message.picture))
                except OSError as error:
                    # Whatever is short, memory or descriptors, must silence nobody.
                    self._log.warning("no picture", channel=self.name, reason=error.strerror)
                else:
                    environment["LEADONE_PICTURE"] = path
            status, complaint = await run(self.name, self._argv, text, environment)
        if status == 0:
            return
        how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        told = f"{self.name}: {Path(self._argv[0]).name}: {how}"
        if complaint:
            told = f"{told}: {complaint}"
        if status != TRY_AGAIN:
            self._log.error("command failed", channel=self.name, status=status, said=complaint)
        raise DeliveryError(told, permanent=status != TRY_AGAIN)


async def run(
    name: str,
    argv: Sequence[str],
    text: bytes = b"",
    environment: Mapping[str, str] | None = None,
    also: Collection[str] = (),
) -> tuple[int, str]:
    """Run a command in a process group of its own, which is killed if this is cancelled.

    Args:
        name: of the channel, for errors.
        argv: the program and its arguments.
        text: its standard input.
        environment: variables to add to those of ``bare_environment``.
        also: names of further variables of this process that it needs.

    Returns:
        Its exit status (negative: the signal that killed it) and the last line it complained in.

    Raises:
        DeliveryError: it could not be started.
    """
    # No variable can hold the character NUL.
    added = {key: value.replace("\0", "") for key, value in (environment or {}).items()}
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as complaints, contextlib.ExitStack() as ends:
        ends.callback(os.close, writing)
        stdin = ends.enter_context(_file_of(text))
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=writing,
                env=bare_environment(also) | added,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a command line"
            told = f"{name}: {Path(argv[0]).name} cannot be run: {why}"
            raise DeliveryError(told, permanent=True) from None
        finally:
            ends.close()
        return await _finish(process, complaints)


async def _finish(process: asyncio.subprocess.Process, complaints: IO[bytes]) -> tuple[int, str]:
    try:
        loop = asyncio.get_running_loop()
        transport, tail = await loop.connect_read_pipe(lambda: _Tail(loop), complaints)
        try:
            status = await process.wait()
            await asyncio.wait({tail.ended}, timeout=_LAST_WORDS_S)
        finally:
            transport.close()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that waits for a device that is gone does not even die of that.
        gone = asyncio.ensure_future(process.wait())
        await asyncio.wait({gone}, timeout=_DEAD_S)
        gone.cancel()
        raise
    return status, tail.last_line()


def _file_of(text: bytes) -> IO[bytes]:
    # A file and not a pipe: a command may leave its input unread. In memory, where no disk is full.
    file = os.fdopen(os.memfd_create("message"), "w+b")
    file.write(text)
    file.seek(0)
    return file


@contextlib.contextmanager
def file_in_memory(name: str, content: bytes) -> Iterator[str]:
    """Hold content in memory and give a path by which a command can open it, until the end.

    A temporary file would need a disk that is neither full, nor read-only, nor stuck. The file is
    this process's own, and so its commands', which run as the same user. Its path has no ending.

    Raises:
        OSError: there is no memory, or no descriptor is left.
    """
    # Unbuffered: what did not fit would be tried once more when it is closed.
    with os.fdopen(os.memfd_create(name), "wb", 0) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


class _Tail(asyncio.Protocol):
    """Keeps the end of what comes out of a pipe."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self._kept = b""

    def data_received(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-_KEPT_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.ended.done():
            self.ended.set_result(None)

    def last_line(self) -> str:
        lines = self._kept.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        printable = "".join(c if c.isprintable() else " " for c in masked(last))
        return printable.strip()[:_TOLD]
