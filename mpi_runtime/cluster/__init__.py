"""An emulated cluster: a small pruned fat tree with real TCP and real MPI, out of network namespaces of one computer."""

from .cluster import Cluster
from .nominal import machine_of
from .probe import missing
from .shape import EmulatedNode, Shape, TcpTransport

__all__ = ["Cluster", "EmulatedNode", "Shape", "TcpTransport", "machine_of", "missing"]
