"""Finds the packages: the repository's root is the package ``athanor``, and the rooms in it are its sub-packages.

Everything else about the build stands in pyproject.toml.
"""

from setuptools import find_packages, setup

ROOMS = ("cli", "hardware", "workloads", "sim", "mpi_runtime", "reports")

found = find_packages(".", include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")])
setup(packages=["athanor", *(f"athanor.{name}" for name in found)])
