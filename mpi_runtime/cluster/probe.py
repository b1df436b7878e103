"""Why no cluster can be emulated here, found out by trying the smallest one."""

from __future__ import annotations

import platform
import shutil

from ...hardware.errors import InputError
from .holder import Nursery
from .job import mpiexec

TOOLS = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "tc": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "mount": "util-linux",
    "hostname": "hostname",
}
"""The programs that a cluster needs, and the packages that have them."""

_CLASS = "tc class add dev one parent 1: classid 1:1 htb rate 1mbit"

_TRIALS = [
    ("network namespaces", "ip netns add trial"),
    ("veth devices", "ip link add one type veth peer name other netns trial"),
    ("bridges", "ip link add switch type bridge"),
    ("the htb queueing discipline", f"tc qdisc add dev one root handle 1: htb default 1 && {_CLASS}"),
    ("the pfifo queueing discipline", "tc qdisc add dev one parent 1:1 pfifo"),
]


def missing_mpi() -> str | None:
    """Why no MPI job can be started, in one clause; None where one can."""
    return None if mpiexec() else "MPICH's mpiexec is missing (pip install 'athanor[mpich]')"


def missing() -> str | None:
    """Why no cluster can be emulated here, in one clause; None where one can.

    Takes some hundredths of a second: it makes a namespace and devices in it, and removes them.
    """
    if platform.system() != "Linux":
        return f"network namespaces are Linux's, this is {platform.system()}"
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            return f"the program {tool} is missing (package {package})"
    return missing_mpi() or _refused()


def _refused() -> str | None:
    """What the kernel refuses, in one clause."""
    try:
        nursery = Nursery("trial")
    except InputError as reason:
        return str(reason)
    try:
        for what, command in _TRIALS:
            try:
                nursery.build(command)
            except InputError as reason:
                return f"the kernel refuses {what} ({str(reason).partition(': ')[2]})"
    finally:
        nursery.kill()
    return None
