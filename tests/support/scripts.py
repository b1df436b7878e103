"""Scripts of the repository that are no part of the package, as modules."""

import importlib.util

from support.paths import ROOT


def script(path):
    """The module of a script, by its path from the repository's root."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
