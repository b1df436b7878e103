"""An emulated cluster: a small pruned fat tree with real TCP and real MPI, out of network namespaces of one computer."""

from .cluster import Cluster
from .nominal import machine_of
from .probe import missing
from .shape import Node, Shape, Transport

__all__ = ["Cluster", "Node", "Shape", "Transport", "machine_of", "missing"]
