"""What is the machine? Core groups, nodes, fabrics, and the catalogue of machines with the source of every number."""

from .core_group import CoreGroup
from .errors import AthanorError, DoesNotFit, InputError
from .fabric import PrunedFatTree
from .machine import Calibration, Machine, list_machines, load_machine
from .node import Node, Processor

__all__ = [
    "AthanorError",
    "Calibration",
    "CoreGroup",
    "DoesNotFit",
    "InputError",
    "Machine",
    "Node",
    "Processor",
    "PrunedFatTree",
    "list_machines",
    "load_machine",
]
