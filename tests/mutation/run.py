"""Mutation testing: small mistakes in the code that figures rest on, each of which some test has to notice.

``make mutants`` draws 300 of all mistakes (:mod:`points`), the same ones each time, and runs for each the tests that execute its line,
the nearest and the fastest first, until one fails. Which tests those are is found once, by running all of them under coverage.
Each mutant has a process of its own, forked from one that has imported all libraries, in which the changed module is compiled in
place of the file: nothing on disk is touched, and programs that tests start are as they were.

Results are appended to ``results.jsonl`` as they come, so that a run that was stopped goes on; those that survive are written
with their diffs to ``survivors.md``.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import statistics
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests")]

from points import Mutant, mutants  # noqa: E402

TARGETS = ("workloads/lowering", "workloads/memory", "sim/planning", "workloads/results")
POOL = (
    "tests/workloads/lowering",
    "tests/workloads/memory",
    "tests/workloads",
    "tests/sim/planning",
    "tests/sim/engine/test_stages.py",
    "tests/sim/test_simulate.py",
    "tests/sim/test_inference.py",
    "tests/cli/test_memory_command.py",
)
"""Tests that may notice something, the likeliest first: others start programs, MPI among them, or look at networks alone."""

SLOW = 5.0
"""Seconds of a processor above which a test is not asked."""

LIMIT, PATIENCE, TIMES = 60.0, 60.0, 10
"""Seconds of a processor of tests that are asked of a mutant; and how long it may take: some, and as many times what they took."""

LIBRARIES = (
    "numpy",
    "pydantic",
    "simpy",
    "click",
    "rich.console",
    "pandas",
    "hypothesis",
    "scipy.optimize",
    "networkx",
    "coverage",
)


def main() -> int:
    """Draw, run, report; the exit status is 1 where fewer than --least of the mutants were killed."""
    wanted = _arguments()
    out = Path(wanted.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    drawn = draw(wanted.count, wanted.seed, wanted.only)
    for name in LIBRARIES:
        __import__(name)
    found = importlib.util.find_spec("athanor")
    if found is None or Path(found.origin).resolve().parent != ROOT:
        sys.exit(f"athanor is {found and found.origin}, not that of {ROOT}, which would be changed in vain")
    known = coverage_map(out, wanted.jobs)
    results = _results(out)
    left = [each for each in drawn if not _settled(results.get(each.key), known)]
    print(f"{len(drawn)} mutants, {len(drawn) - len(left)} known already", flush=True)
    run(left, known, out, results, wanted.jobs)
    return report([(each, results[each.key]) for each in drawn], out, wanted.least)


def _settled(result: dict | None, known: dict) -> bool:
    """Whether a mutant need not be run again: it was killed, or survived the tests that there are."""
    return result is not None and (result["verdict"] in ("killed", "timeout") or result["tests"] == known["digest"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="mutants to draw [300]")
    parser.add_argument("--seed", type=int, default=0, help="which ones [0]")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once [2]")
    parser.add_argument("--only", default="", help="files whose path holds this text")
    parser.add_argument("--least", type=float, default=0.9, help="share to be killed [0.9]")
    parser.add_argument("--out", default=str(ROOT / "out" / "mutants"), help="where results go [out/mutants]")
    return parser.parse_args()


def draw(count: int, seed: int, only: str = "") -> list[Mutant]:
    """So many mutants, spread over files as their code is; where there are fewer, all.

    Of swapped arguments there would be many, which mostly end in an error of types: no more than a tenth are these.
    """
    every = [
        each
        for target in TARGETS
        for path in sorted((ROOT / target).rglob("*.py"))
        if only in path.as_posix()
        for each in mutants(ROOT, path)
    ]
    random.Random(seed).shuffle(every)
    swapped = [each for each in every if each.kind == "swapped arguments"][: count // 10]
    others = [each for each in every if each.kind != "swapped arguments"][: count - len(swapped)]
    found = [*swapped, *others]
    random.Random(seed).shuffle(found)
    return found


# --- which tests execute which lines ------------------------------------------------------------------------------


def coverage_map(out: Path, jobs: int) -> dict:
    """``{"lines": {path: {line: [tests]}}, "seconds": {test: seconds}}``, kept for as long as code and tests are the same."""
    digest = hashlib.sha256()
    for target in (*TARGETS, *POOL):
        for path in sorted((ROOT / target).rglob("*.py")) or [ROOT / target]:
            digest.update(path.read_bytes())
    kept = out / f"map-{digest.hexdigest()[:12]}.json"
    if not kept.exists():
        print("which tests execute which lines: every test once", flush=True)
        files = dict.fromkeys(
            path for name in POOL for path in sorted((ROOT / name).rglob("test_*.py")) or [ROOT / name]
        )
        slow = out / "slow.json"
        left_out = json.loads(slow.read_text()) if slow.exists() else []
        parts = _in_children(list(files), lambda path: _covered(path, left_out), jobs, out)
        lines: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        seconds: dict[str, float] = {}
        for part in parts:
            seconds |= part["seconds"]
            for path, of_file in part["lines"].items():
                for line, tests in of_file.items():
                    lines[path][line] += tests
        kept.write_text(json.dumps({"lines": lines, "seconds": seconds}))
        slow.write_text(json.dumps(sorted({*left_out, *(name for name, each in seconds.items() if each > 2 * SLOW)})))
    return {**json.loads(kept.read_text()), "digest": digest.hexdigest()[:12]}


def _covered(path: Path, left_out: list[str]) -> dict:
    """What the tests of a file execute, but for those that were slow before; runs in a child."""
    import coverage
    import pytest
    from coverage.exceptions import CoverageWarning

    warnings.simplefilter("ignore", CoverageWarning)  # of tests that execute none of it
    measured = coverage.Coverage(
        data_file=None, include=[str(ROOT / target / "*") for target in TARGETS], messages=False
    )
    seconds: dict[str, float] = {}
    failed: set[str] = set()

    class Contexts:
        """Tells coverage which test runs, and how long it takes."""

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(self, item):
            measured.switch_context(item.nodeid)
            begin = time.process_time()
            yield
            seconds[item.nodeid] = time.process_time() - begin

        def pytest_runtest_logreport(self, report):
            if report.failed:
                failed.add(report.nodeid)

    measured.start()
    pytest.main([str(path), *_options(), *(f"--deselect={name}" for name in left_out)], plugins=[Contexts()])
    measured.stop()
    data, lines = measured.get_data(), {}
    for name in data.measured_files():
        by_line = data.contexts_by_lineno(name)
        found = {str(line): [each for each in tests if each] for line, tests in by_line.items()}
        lines[Path(name).relative_to(ROOT).as_posix()] = found
    return {
        "lines": lines,
        "seconds": {name: seconds[name] for name in seconds if name not in failed},
        "failed": sorted(failed),
    }


def _options() -> list[str]:
    ready = "ignore::pytest.PytestAssertRewriteWarning"  # libraries are imported already
    return ["-q", "-n0", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--rootdir={ROOT}", "--tb=no", "-W", ready]


def asked(mutant: Mutant, known: dict) -> list[str]:
    """The tests that execute a mutant's line, or its file where it runs at import: the nearest and fastest first."""
    of_file = known["lines"].get(mutant.path, {})
    last = mutant.line + mutant.before.count("\n")
    lines = (
        of_file.values() if mutant.at_import else [of_file.get(str(line), []) for line in range(mutant.line, last + 1)]
    )
    tests = {name for each in lines for name in each if known["seconds"].get(name, SLOW) < SLOW}
    order = {name: at for at, name in enumerate(POOL)}

    def distance(name: str) -> float:
        near = min(at for place, at in order.items() if name.startswith(place))
        return known["seconds"][name] * (1 + near)

    chosen, total = [], 0.0
    for name in sorted(tests, key=distance):
        total += known["seconds"][name]
        if total > LIMIT:
            break
        chosen.append(name)
    return chosen


# --- mutants ------------------------------------------------------------------------------------------------------


def run(left: list[Mutant], known: dict, out: Path, results: dict, jobs: int) -> None:
    """Each mutant in a process of its own; results are written as they come."""
    running: dict[int, tuple[Mutant, float, float, Path]] = {}
    waiting, done = list(left), 0
    with (out / "results.jsonl").open("a") as log:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop(0)
                tests = asked(mutant, known)
                told = out / f"told-{os.getpid()}-{len(waiting)}"
                patience = PATIENCE + TIMES * sum(known["seconds"][name] for name in tests)
                pid = os.fork()
                if not pid:
                    _child(mutant, tests, told)
                running[pid] = (mutant, time.monotonic(), patience, told)
            for pid, (mutant, begin, patience, told) in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                late = time.monotonic() - begin > patience
                if not ended and late:
                    os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if not ended and not late:
                    continue
                del running[pid]
                verdict = (
                    "timeout"
                    if not ended
                    else {0: "survived", 1: "killed", 5: "no tests"}.get(os.waitstatus_to_exitcode(status), "killed")
                )
                by = told.read_text() if told.exists() else ""
                told.unlink(missing_ok=True)
                result = {
                    "key": mutant.key,
                    "verdict": verdict,
                    "by": by,
                    "tests": known["digest"],
                    "seconds": round(time.monotonic() - begin, 2),
                }
                results[mutant.key] = result
                log.write(json.dumps(result) + "\n")
                log.flush()
                done += 1
                print(
                    f"{done:4d}/{len(left)} {verdict:9s}{result['seconds']:6.1f} s  {mutant.key.splitlines()[0]}",
                    flush=True,
                )
            time.sleep(0.02)


def _child(mutant: Mutant, tests: list[str], told: Path) -> None:
    """Run the tests with the mutant in place of the file; the exit status is pytest's."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if not tests:
        os._exit(5)
    os.chdir(ROOT)
    target, plain = ROOT / mutant.path, importlib.machinery.SourceFileLoader.get_code
    text = mutant.applied(target.read_bytes())

    def get_code(loader, name):
        if Path(loader.path).resolve() == target:
            return compile(text, str(target), "exec", dont_inherit=True)
        return plain(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code
    import pytest

    class Tell:
        """Writes down the first test that fails."""

        def pytest_runtest_logreport(self, report):
            if report.failed:
                told.write_text(report.nodeid)

    code = 1
    try:
        code = int(pytest.main([*tests, "-x", *_options()], plugins=[Tell()]))
    finally:
        os._exit(code)


def _in_children(items: list, work, jobs: int, out: Path) -> list:
    """``work(item)`` of each, in forked processes, ``jobs`` at once; results are what JSON can carry."""
    found, running, waiting = [], {}, list(items)
    while waiting or running:
        while waiting and len(running) < jobs:
            item, told = waiting.pop(0), out / f"told-{os.getpid()}-{len(waiting)}"
            pid = os.fork()
            if not pid:
                silent = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silent, 1)
                os.chdir(ROOT)
                told.write_text(json.dumps(work(item)))
                os._exit(0)
            running[pid] = item, told
        pid, _ = os.wait()
        item, told = running.pop(pid)
        found.append(json.loads(told.read_text()))
        told.unlink()
        failed = "".join(f"\n    fails as it is: {name}" for name in found[-1]["failed"])
        print(f"  {item.relative_to(ROOT)}: {len(found[-1]['seconds'])} tests{failed}", flush=True)
    return found


# --- what came of it ----------------------------------------------------------------------------------------------


def _results(out: Path) -> dict:
    path = out / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {found["key"]: found for found in map(json.loads, lines)}


def report(found: list[tuple[Mutant, dict]], out: Path, least: float) -> int:
    """Print how many were killed, by file, and write the survivors with file, line and diff."""
    alive = [(mutant, result) for mutant, result in found if result["verdict"] in ("survived", "no tests")]
    by_file: dict[str, list[bool]] = defaultdict(list)
    for mutant, result in found:
        by_file[mutant.path].append(result["verdict"] not in ("survived", "no tests"))
    for path, killed in sorted(by_file.items()):
        print(f"{sum(killed):4d} of {len(killed):3d}  {path}")
    text = [f"# {len(alive)} of {len(found)} mutants survived", ""]
    for mutant, result in sorted(alive, key=lambda pair: (pair[0].path, pair[0].line)):
        before = (ROOT / mutant.path).read_bytes()
        lines = (each.decode().splitlines(keepends=True) for each in (before, mutant.applied(before)))
        diff = "".join(difflib.unified_diff(*lines, mutant.path, mutant.path, n=1))
        text += [
            f"## {mutant.path}:{mutant.line}, {mutant.kind} ({result['verdict']})",
            "",
            "```diff",
            diff.rstrip(),
            "```",
            "",
        ]
    (out / "survivors.md").write_text("\n".join(text))
    share = 1 - len(alive) / max(1, len(found))
    median = statistics.median(result["seconds"] for _, result in found) if found else 0.0
    print(
        f"killed {len(found) - len(alive)} of {len(found)} ({share:.1%}), median {median:.1f} s; survivors: {out / 'survivors.md'}"
    )
    return int(share < least)


if __name__ == "__main__":
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[threads] = "1"
    sys.exit(main())
