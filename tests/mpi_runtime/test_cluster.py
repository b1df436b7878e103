"""The emulated cluster: real namespaces, real shapers, real MPI; and one clear line where there can be none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.mpi_runtime.cluster import Cluster, Shape, machine_of, missing
from athanor.mpi_runtime.cluster import cluster as building
from athanor.mpi_runtime.cluster import probe as probes
from athanor.mpi_runtime.cluster.holder import Nursery, birth
from athanor.mpi_runtime.cluster.job import TimeLimit
from athanor.mpi_runtime.cluster.report import report
from support import command_line
from support.command_line import PATIENCE, eventually
from support.paths import DATA, ROOT

JOB = DATA / "tree_job.py"
ATHANOR = [sys.executable, "-m", "athanor.cli", "cluster"]
NOBODY = 65534

reason = missing()
netns = pytest.mark.netns
pytestmark = pytest.mark.xdist_group("cluster")  # jobs side by side would share the cores


def needs_namespaces(test):
    return netns(pytest.mark.skipif(reason is not None, reason=f"no emulated cluster here: {reason}")(test))


@pytest.fixture(autouse=True, scope="module")
def own_states(tmp_path_factory):
    """States of clusters apart from those of the user."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("states")))
    yield
    for each in Cluster.all():
        each.down()
    patch.undo()


@pytest.fixture(scope="module")
def tree():
    with Cluster.up(Shape(supernodes=2, nodes=2, node_rate=25e6, taper=3 / 16), "tree") as made:
        yield made


def athanor_cluster(command, *arguments):
    """``up`` and ``run`` start processes and handle signals: they are processes of their own."""
    if command in ("up", "run"):
        words = [*ATHANOR, command, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    return command_line.athanor("cluster", command, *arguments)


def namespace_of(pid):
    return Path(f"/proc/{pid}/ns/pid").stat().st_ino


def processes_in(namespace):
    """The processes of a process namespace and of those that were made in it: all whose environment the kernel shows."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if namespace_of(path.name) == namespace:
                found.append((path / "cmdline").read_text())
        except OSError:
            continue
    return found


def running(marker):
    """The command lines of processes that hold a marker."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text())
        except OSError:
            continue
    return [line for line in lines if line.startswith(marker)]


def loopback_bytes():
    (line,) = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.split(":")[1].split()[0])


def kernel_view():
    """The network devices and named namespaces that the host itself has."""
    devices = sorted(Path("/sys/class/net").iterdir())
    names = sorted(Path("/run/netns").iterdir()) if Path("/run/netns").exists() else None
    return devices, names


# --- a cluster that is up ------------------------------------------------------------------------------------------------


@needs_namespaces
def test_a_job_runs_on_four_nodes_under_a_pruned_trunk(tree, monkeypatch, tmp_path):
    monkeypatch.setenv("GIVEN_TO_THE_JOB", "yes")
    monkeypatch.chdir(tmp_path)
    for _ in range(5):
        done = tree.run([sys.executable, str(JOB)], limit=PATIENCE, capture=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        if pruned := 0.15 < found["inside"] / found["across"] < 0.23:  # the taper is 3/16 = 0.1875
            break  # a computer that is busy elsewhere may delay messages for once
    assert pruned
    assert [rank["host"] for rank in found["ranks"]] == ["node-0", "node-1", "node-2", "node-3"]
    for rank in found["ranks"]:
        assert rank["sharing"] == 1, "ranks of different nodes must not share memory"
        assert (rank["folder"], rank["cluster"], rank["given"]) == (str(tmp_path), "tree", "yes")


@needs_namespaces
def test_the_kernel_confirms_rates_and_counts_what_crosses(tree):
    before = {link["low"]: link["bytes_up"] for link in report(tree)["links"]}
    assert tree.run([sys.executable, str(JOB)], limit=PATIENCE, capture=True).returncode == 0
    links = {link["low"]: link for link in report(tree)["links"]}
    assert set(links) == {"node-0", "node-1", "node-2", "node-3", "supernode-0", "supernode-1"}
    for name, link in links.items():
        rate = 25e6 if name.startswith("node") else 25e6 * 2 * 3 / 16
        assert link["rate_up"] == pytest.approx(rate) == link["rate_down"]
    # Two nodes send six messages of 1 MiB each across.
    crossed = links["supernode-0"]["bytes_up"] - before["supernode-0"]
    assert 12 << 20 < crossed < 13 << 20


@needs_namespaces
def test_fewer_ranks_and_several_on_a_node(tree):
    said = r'f"{MPI.COMM_WORLD.rank} {socket.gethostname()}\n"'  # one write a rank, or lines mix
    script = f"import os, socket; from mpi4py import MPI; os.write(1, {said}.encode())"
    done = tree.run([sys.executable, "-c", script], ranks=3, ranks_per_node=2, limit=PATIENCE, capture=True)
    assert sorted(done.stdout.splitlines()) == ["0 node-0", "1 node-0", "2 node-1"]
    with pytest.raises(InputError, match="-n 9: 4 nodes with 2 ranks each take 1 to 8 ranks"):
        tree.run(["true"], ranks=9, ranks_per_node=2)


@needs_namespaces
def test_the_status_of_a_job_is_that_of_the_command(tree):
    done = athanor_cluster("run", "--name", "tree", "-n", 1, "--", "sh", "-c", "echo said; exit 7")
    assert (done.returncode, "said" in done.stdout) == (7, True)


@needs_namespaces
def test_a_job_that_takes_too_long_is_killed(tree):
    with pytest.raises(TimeLimit, match=r"--limit 0.8: the job had not ended after 0.8 s and was killed"):
        tree.run(["sleep", "3217"], limit=0.8)
    assert eventually(lambda: not running("sleep\x003217"))
    done = athanor_cluster("run", "--name", "tree", "--limit", 0.5, "--", "sleep", 3218)
    assert done.returncode == 124
    assert done.stderr.strip().splitlines()[-1] == (
        "athanor: --limit 0.5: the job had not ended after 0.5 s and was killed"
    )


@needs_namespaces
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_job_leaves_nothing_running(tree, number, status):
    # A shell that ignores the signal is the worst of jobs.
    stubborn = "trap '' INT TERM; sleep 3219; sleep 3219; true"
    process = command_line.start([*ATHANOR, "run", "--name", "tree", "--", "sh", "-c", stubborn])
    assert eventually(lambda: len(running("sleep\x003219")) == 4)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert eventually(lambda: not running("sleep\x003219"))
    assert processes_in(namespace_of(tree.state.holder.pid)) != [], "the cluster itself stays"


@needs_namespaces
def test_what_is_up_already_is_not_built_again(tree):
    again = athanor_cluster("up", "--name", "tree")
    assert again.returncode == 2
    assert again.stderr == (
        "athanor: --name tree: this cluster is up already; take it down first, or choose another --name\n"
    )
    wrong = athanor_cluster("run", "--name", "tre", "--", "true")
    assert (wrong.returncode, "(tree); did you mean tree?" in wrong.stderr) == (2, True)


@needs_namespaces
def test_the_machine_file_comes_from_nominal_rates_alone(tree, tmp_path):
    path = tmp_path / "machine.toml"
    assert athanor_cluster("machine", "--name", "tree", "-o", path).returncode == 0
    read = load_machine(path)
    assert read == machine_of(tree.shape)
    assert (read.nodes, read.supernode, read.fabric.taper) == (4, 2, 3 / 16)
    assert read.node.injection == 25e6
    assert read.fitted() == [] == read.unsourced()
    run = athanor.simulate(machine=str(path), model="moda-tiny", mesh={"ep": 2, "dp": 2})
    assert run.summary()["ranks"] == 4


# --- its life ------------------------------------------------------------------------------------------------------------


@needs_namespaces
def test_up_and_down_leave_the_host_as_it_was(tmp_path):
    before = kernel_view()
    up = athanor_cluster(
        "up", "--name", "brief", "--node-rate", "1 Gbit/s", "--taper", "1/2", "-o", tmp_path / "m.toml"
    )
    assert up.returncode == 0, up.stderr
    assert "2 supernodes of 2 nodes, 1 Gbit/s each, uplinks 1 Gbit/s" in up.stdout
    assert load_machine(tmp_path / "m.toml").node.interface_bandwidth == 125e6
    assert kernel_view() == before
    (found,) = (each for each in Cluster.all() if each.state.name == "brief")
    inside = namespace_of(found.state.holder.pid)
    shown = json.loads(athanor_cluster("status", "--json", "-").stdout)["clusters"]
    assert found.state.holder.pid in [each["holder"] for each in shown]
    assert "supernode-1" in athanor_cluster("status").stdout
    assert athanor_cluster("down", "--name", "brief").returncode == 0
    assert eventually(lambda: not processes_in(inside) and not running("athanor-cluster-brief"))
    assert "brief" not in [each.state.name for each in Cluster.all()]
    assert kernel_view() == before


@needs_namespaces
def test_a_job_ends_with_its_cluster():
    made = Cluster.up(Shape(supernodes=1, nodes=2), "ending")
    job = subprocess.Popen([*ATHANOR, "run", "--name", "ending", "--", "sleep", "3220"], stderr=subprocess.DEVNULL)
    assert eventually(lambda: len(running("sleep\x003220")) == 2)
    made.down()
    assert job.wait(timeout=PATIENCE) != 0
    assert eventually(lambda: not running("sleep\x003220"))


@needs_namespaces
def test_a_dead_holder_is_noticed_and_forgotten():
    made = Cluster.up(Shape(), "dying")
    os.kill(made.state.holder.pid, signal.SIGKILL)
    assert eventually(lambda: not made.state.holder.alive)
    with pytest.raises(InputError, match="has died"):
        made.run(["true"])
    assert "dying" not in [each.state.name for each in Cluster.all()]
    with Cluster.up(Shape(), "dying") as anew:
        assert anew.state.holder.alive


@needs_namespaces
def test_a_reused_process_number_is_never_taken_for_the_holder():
    with Cluster.up(Shape(supernodes=1, nodes=1), "reused") as made:
        other = type(made.state.holder)(os.getpid(), made.state.holder.born)
        assert not other.alive
        other.kill()  # would be the end of this test


@needs_namespaces
def test_what_cannot_be_built_to_its_end_leaves_no_holder(monkeypatch):
    holders = []
    monkeypatch.setattr(building, "script", lambda shape: "echo it broke >&2; exit 1")
    monkeypatch.setattr(building, "Nursery", lambda name: holders.append(Nursery(name)) or holders[-1])
    with pytest.raises(InputError, match="the emulated cluster cannot be built: it broke"):
        Cluster.up(Shape(), "broken")
    assert not holders[0].holder.alive
    assert "broken" not in [each.state.name for each in Cluster.all()]


@needs_namespaces
def test_the_holder_dies_with_who_builds():
    script = (
        "from athanor.mpi_runtime.cluster.holder import Nursery; kept = Nursery('x')\n"  # or it would end at once
        "print(kept.holder.pid, flush=True); input()"
    )
    builder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with builder:
        holder = int(builder.stdout.readline())
        assert birth(holder)
        builder.kill()
    assert eventually(lambda: birth(holder) is None)


# --- without the rights, or without the kernel ---------------------------------------------------------------------------


def interpreter_of_nobody(folder):
    """A Python with everything that Athanor needs and that any user may run, and its environment; None where there is none."""
    library = folder / "library"
    library.mkdir()
    (library / "athanor").symlink_to(ROOT)
    path = os.pathsep.join([str(library), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_RUNTIME_DIR": str(folder / "states"), "HOME": str(folder)}
    # Where MPICH's wheel puts its library.
    environment["LD_LIBRARY_PATH"] = str(Path(sysconfig.get_path("data")) / "lib")
    environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), environment["PATH"]])
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        command = [python, "-c", "import athanor, mpi4py.MPI, numpy, pydantic_core"]
        try:
            tried = subprocess.run(
                command, env=environment, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return python, environment
    return None


@needs_namespaces
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_has_clusters_too():
    folder = Path("/tmp") / f"athanor-test-{os.getpid()}"  # pytest's own folders are its user's alone
    try:
        folder.mkdir(mode=0o755)
        (folder / "states").mkdir()
        os.chown(folder / "states", NOBODY, NOBODY)
        (found := interpreter_of_nobody(folder)) or pytest.skip("no Python here that another user may run")
        python, environment = found
        script = """
import os, sys
from athanor.mpi_runtime.cluster import Cluster, Shape, machine_of, missing
assert os.getuid() == 65534
if missing():
    sys.exit(f"refused: {missing()}")
with Cluster.up(Shape(), "mine") as cluster:
    said = 'f"{MPI.COMM_WORLD.allreduce(1)} {socket.gethostname()} "'
    hello = f"import os, socket; from mpi4py import MPI; os.write(1, {said}.encode())"
    done = cluster.run([sys.executable, "-c", hello], limit=float(sys.argv[1]), capture=True)
    print(done.stdout, done.stderr, done.returncode)
"""
        done = subprocess.run(
            [python, "-c", script, str(PATIENCE)],
            env=environment, cwd="/", user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        if "refused: " in done.stderr:
            pytest.skip(done.stderr.strip())
        words = done.stdout.split()
        assert sorted(words[:8]) == [*["4"] * 4, *(f"node-{number}" for number in range(4))], done.stdout + done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def only(monkeypatch, tmp_path):
    """A PATH on which there are only the programs that are named, or scripts in their place."""

    def make(*names, **scripts):
        for name in names:
            (tmp_path / name).symlink_to(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"))
        for name, script in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return make


def refusal():
    with pytest.raises(InputError) as refused:
        Cluster.up(Shape(), "refused")
    (line,) = str(refused.value).splitlines()
    assert line.startswith("no cluster can be emulated here: ")
    assert "athanor execute" in line
    assert "--loopback" in line
    return line


def test_a_missing_program_is_named_with_its_package(only):
    only()
    assert "the program ip is missing (package iproute2)" in refusal()


@needs_namespaces
def test_a_kernel_without_namespaces_says_why(only):
    others = [name for name in probes.TOOLS if name != "unshare"]
    only("sh", "head", "sleep", *others, unshare="echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1")
    assert "the kernel gives no namespaces: unshare: unshare failed: Operation not permitted" in refusal()


@needs_namespaces
def test_a_kernel_without_htb_says_so(only):
    others = [name for name in probes.TOOLS if name != "tc"]
    only("sh", "head", "sleep", *others, tc="echo 'Error: Specified qdisc kind is unknown.' >&2; exit 2")
    assert "the kernel refuses the htb queueing discipline (Error: Specified qdisc kind is unknown.)" in refusal()
    assert eventually(lambda: not running("athanor-cluster-trial"))


def test_an_mpi_that_is_not_mpich_does_not_do(monkeypatch):
    monkeypatch.setattr(probes, "mpiexec", lambda: None)
    assert probes.missing_mpi() == "MPICH's mpiexec is missing (pip install 'athanor[mpich]')"
    with pytest.raises(InputError, match="MPICH's mpiexec is missing"):
        Cluster.up(Shape(), "refused", loopback=True)


@pytest.mark.skipif(probes.missing_mpi() is not None, reason=str(probes.missing_mpi()))
def test_the_loopback_device_works_without_namespaces(monkeypatch):
    monkeypatch.setattr(building, "missing", lambda: "nothing works")
    up = athanor_cluster("up", "--loopback", "--name", "plain", "--supernodes", 1)
    assert (up.returncode, up.stdout) == (0, "plain: 2 ranks on the loopback device, plain TCP without a topology\n")
    with Cluster.of("plain") as plain:
        script = "import numpy; from mpi4py import MPI; MPI.COMM_WORLD.Bcast(numpy.ones(1 << 20, numpy.uint8))"
        before = loopback_bytes()
        done = plain.run([sys.executable, "-c", script], limit=PATIENCE, capture=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert loopback_bytes() - before > 1 << 20
        refused = athanor_cluster("machine", "--name", "plain", "-o", "m.toml")
        assert (refused.returncode, "has no topology" in refused.stderr) == (2, True)
        assert not Path("m.toml").exists()
    assert "plain" not in [each.state.name for each in Cluster.all()]


# --- what was asked for wrongly ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--taper", "3/0"], '--taper 3/0: must lie in (0, 1], such as "3/16"'),
        (
            ["--node-rate", "200 Mbit"],
            '--node-rate 200 Mbit: "200 Mbit" is a size; needs a bandwidth such as "51.2 GB/s"',
        ),
        (["--supernodes", "0"], "--supernodes 0: input should be greater than 0"),
        (
            ["--supernodes", "20", "--nodes", "20"],
            "--supernodes: 20 supernodes of 20 are 400 nodes; at most 256 are allowed",
        ),
        (["--tcp-buffer", "9 kB"], "--tcp-buffer: tcp_buffer is 9000 B; it must hold two packets of 9000 B"),
        (["--congestion-control", "ren"], "no such algorithm in this kernel"),
        (["--name", "../x"], "--name ../x: a name has letters, digits, - and _ only"),
        (["-o", "/nowhere/m.toml"], "/nowhere/m.toml: cannot be written: No such file or directory"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(flags, message):
    done = command_line.athanor("cluster", "up", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_cluster_commands_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for command in (["run", "--", "true"], ["down"], ["machine", "-o", str(tmp_path / "m.toml")]):
        done = athanor_cluster(*command)
        assert done.returncode == 2
        assert done.stderr == "athanor: --name default: no emulated cluster is up; athanor cluster up makes one\n"
    assert json.loads(athanor_cluster("status", "--json", "-").stdout) == {"clusters": []}
    assert athanor_cluster("down", "--all").returncode == 0


def test_a_state_that_cannot_be_read_hinders_no_other_cluster(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "athanor").mkdir(mode=0o700)
    (tmp_path / "athanor" / "old.json").write_text('{"name": "old"}')
    assert Cluster.all() == []
    with pytest.raises(InputError, match=r"old\.json: not the state of a cluster of this version; remove it"):
        Cluster.up(Shape(), "old")


def test_states_in_a_folder_of_someone_else_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "athanor").mkdir()
    (tmp_path / "athanor").chmod(0o777)
    with pytest.raises(InputError, match="must be a folder that only you can write"):
        Cluster.all()
