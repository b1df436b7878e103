"""Calls that other processes can make."""

import os

from athanor.hardware.errors import InputError


def process(task):
    """Which process works on a task."""
    return os.getpid()


def twice(task):
    """A call with two results a task."""
    yield task
    yield 10 * task


def refused(task):
    """A call that bad input ends."""
    raise InputError(f"task {task}", rule="a rule")


def unsendable(task):
    """A call whose result no other process can have."""
    return lambda: task
