"""The holder: one process that owns all namespaces of a cluster, so that its end is the end of everything in it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...hardware.errors import InputError

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21  # capabilities(7); their numbers are in linux/capability.h

# The first process of the cluster's process namespace. It tells its number outside, waits for a line that says that all
# is built (none comes when who builds has died), and then only lives on and collects what ends without a parent.
_INIT = r"""
read -r pid rest < /proc/self/stat
mount -t proc proc /proc && mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up || exit
echo "$pid"
test -n "$(head -n 1)" || exit
exec < /dev/null > /dev/null 2>&1
while true; do sleep 86400 & wait; done
"""


@dataclass(frozen=True)
class Holder:
    """A holder by its process number and its birth (boot and start time), which a reused number does not share."""

    pid: int
    born: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return birth(self.pid) == self.born

    def enter(self) -> list[str]:
        """The command that runs another one inside the cluster's namespaces."""
        own, other = (Path(f"/proc/{who}/ns/user").readlink() for who in ("self", self.pid))
        user = [] if own == other else ["-U", "--preserve-credentials"]
        return ["nsenter", "-t", str(self.pid), *user, "-n", "-m", "-p", "--"]

    def kill(self) -> None:
        """End the holder, and with it every process, namespace and device of the cluster; returns when they are gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], 10)
        finally:
            os.close(handle)


class Nursery:
    """A holder while its cluster is being built: it dies with who builds, unless it is told to :meth:`stay`."""

    def __init__(self, name: str) -> None:
        """Start the holder of the cluster ``name``; raises :class:`InputError` where the kernel refuses."""
        user = [] if may_own_namespaces() else ["-U", "-r"]
        namespaces = ["unshare", *user, "-n", "-m", "-p", "--fork", "--kill-child"]
        command = ["setsid", "--fork", *namespaces, "sh", "-c", _INIT, f"athanor-cluster-{name}"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd="/")
        told = self._out.readline()
        if not told:
            reason = self._process.communicate()[1].strip().splitlines()
            raise InputError(f"the kernel gives no namespaces: {reason[0] if reason else 'no reason given'}")
        pid = int(told)
        self.holder = Holder(pid, birth(pid) or "")

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout
        return self._process.stdout

    def build(self, script: str) -> None:
        """Run a shell script inside; raises :class:`InputError` with the first line of what went wrong."""
        done = subprocess.run([*self.holder.enter(), "sh"], input=script, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise InputError(
                f"the emulated cluster cannot be built: {said[-1] if said else f'status {done.returncode}'}"
            )

    def stay(self) -> None:
        """Let the holder live on by itself."""
        assert self._process.stdin
        self._process.stdin.write("stay\n")
        self._close()

    def kill(self) -> None:
        """End the holder and all that it holds."""
        self.holder.kill()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        self._process.wait()


def birth(pid: int) -> str | None:
    """When a process was born: the boot, and the clock ticks since then; None where it is dead."""
    try:
        # The name of the process stands in brackets and may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if state in "ZX" else f"{boot} {fields[18]}"


def may_own_namespaces() -> bool:
    """Whether this process has the capabilities to make namespaces without one of its own for users."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return all(effective >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))
