"""An emulated cluster: a small pruned fat tree with real TCP and real MPI, out of network namespaces of one computer."""

from .cluster import Cluster
from .machine import machine_of
from .missing import missing
from .shape import Node, Shape, Transport

__all__ = ["Cluster", "Node", "Shape", "Transport", "machine_of", "missing"]
