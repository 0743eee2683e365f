"""Runs the command behind it on a machine of whose clock the kernel tells nothing.

``python no_time_server.py COMMAND…``: whatever the machine that runs the tests is synchronised
with, ``adjtimex`` is refused (seccomp), as by a sandbox that forbids it.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path

WITHIN = (sys.executable, str(Path(__file__)))
"""To be set before the command."""

_CALLS = {"x86_64": (159, 305), "aarch64": (171, 266)}  # adjtimex, clock_adjtime
_LOAD_NUMBER, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_SET_SECCOMP, _FILTER, _SET_NO_NEW_PRIVILEGES = 22, 2, 38


def main() -> None:
    calls = _CALLS.get(platform.machine(), ())
    steps = [(_LOAD_NUMBER, 0, 0, 0)]
    for i, number in enumerate(calls):
        steps.append((_IF_EQUAL, len(calls) - i, 0, number))
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or prctl(_SET_SECCOMP, _FILTER, program, 0, 0):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
