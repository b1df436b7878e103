"""Finds the packages: the repository's root is the package ``athanor``, and the rooms in it are its sub-packages.

A room is a folder of the root with an ``__init__.py``; folders of data inside a room go with it. Everything else about
the build stands in pyproject.toml.
"""

from setuptools import find_namespace_packages, find_packages, setup
from setuptools.command.build_py import build_py


class WithoutThisFile(build_py):
    """Leaves out setup.py: it lies in the package's folder, and is no part of it."""

    def find_package_modules(self, package, package_dir):  # noqa: D102
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "setup"]


rooms = [name for name in find_packages() if "." not in name]
found = find_namespace_packages(include=[*rooms, *(f"{room}.*" for room in rooms)], exclude=["*__pycache__*"])
setup(packages=["athanor", *(f"athanor.{name}" for name in found)], cmdclass={"build_py": WithoutThisFile})
