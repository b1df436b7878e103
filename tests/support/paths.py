"""Where things lie, for tests that read files of the repository."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
DATA = TESTS / "data"
JOBS = TESTS / "jobs"
"""Scripts that MPI ranks run."""
EXAMPLES = ROOT / "examples"
MACHINE_FILES = sorted((EXAMPLES / "machines").glob("*.toml"))
"""The example machine files."""
