"""What the launcher's environment says."""

from __future__ import annotations

import pytest

from cluster.errors import ClusterError
from cluster.start.topology import Topology, World, of_hostfile, task_counts, topology, world

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
STEP = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "3",
    "SLURM_NTASKS": "7",
    "SLURM_JOB_NODELIST": "n[1-3],gpu5",
    "SLURM_TASKS_PER_NODE": "2(x3),1",
}
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MVAPICH = {name.replace("OMPI", "MV2"): value for name, value in OPENMPI.items()}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}


def test_without_a_launcher_a_process_is_alone() -> None:
    assert topology({}) == Topology(World(), 0, 1, (), (1,))
    assert world({}) == World(rank=0, size=1)


@pytest.mark.parametrize("environment", [TORCHRUN, OPENMPI, MVAPICH, MPICH])
def test_ranks_are_read_by_whatever_name(environment: dict[str, str]) -> None:
    assert topology(environment) == Topology(World(3, 4, 1, 2), 1, 2, (), ())


def test_deepspeed_has_its_own_word_for_the_local_size() -> None:
    environment = TORCHRUN | {"LOCAL_SIZE": "4"}
    del environment["LOCAL_WORLD_SIZE"]
    assert topology(environment).num_nodes == 1


def test_tasks_of_srun_need_not_be_even() -> None:
    found = topology(STEP)
    assert found.world == World(rank=6, size=7, local_rank=0, local_size=1)
    assert (found.node, found.num_nodes) == (3, 4)
    assert found.hosts == ("n1", "n2", "n3", "gpu5")
    assert found.tasks == (2, 2, 2, 1)


def test_a_step_on_part_of_the_job_counts_its_own_tasks() -> None:
    step = STEP | {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "n[2-3]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_PROCID": "1",
        "SLURM_NODEID": "1",
    }
    found = topology(step)
    assert found.world == World(1, 2, 0, 1)
    assert found.hosts == ("n2", "n3")


@pytest.mark.parametrize("inner", [TORCHRUN, OPENMPI, MPICH])
def test_a_launcher_inside_srun_counts(inner: dict[str, str]) -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    assert world(step | inner) == World(3, 4, 1, 2)


def test_srun_s_own_pmi_does_not_hide_the_step() -> None:
    assert topology(STEP | {"PMI_RANK": "6", "PMI_SIZE": "7"}) == topology(STEP)


def test_a_hostfile_tells_each_node_its_place() -> None:
    slots = {"n1": 2, "n2": 3}
    assert of_hostfile(slots, "n2") == Topology(World(2, 5, 0, 3), 1, 2, ("n1", "n2"), (2, 3))
    with pytest.raises(ClusterError, match="names n1, n2, but this node is n3"):
        of_hostfile(slots, "n3")


def test_short_forms_of_task_counts() -> None:
    assert task_counts("2(x3),1") == (2, 2, 2, 1)
    assert task_counts("4") == (4,)
    for wrong in ("", "2(x)", "2x3", "-1", "1,,2"):
        with pytest.raises(ClusterError, match="Tasks per node"):
            task_counts(wrong)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (TORCHRUN | {"RANK": "4"}, "RANK=4 does not fit WORLD_SIZE=4"),
        (TORCHRUN | {"LOCAL_RANK": "2"}, "LOCAL_RANK=2 does not fit LOCAL_WORLD_SIZE=2"),
        (TORCHRUN | {"WORLD_SIZE": "many"}, "WORLD_SIZE='many' is not a number"),
        (TORCHRUN | {"RANK": "-1"}, "RANK='-1' is not a number"),
        (TORCHRUN | {"RANK": "\u0663"}, "is not a number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0, WORLD_SIZE=2, but LOCAL_RANK is not set"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but RANK is not set"),
        (
            TORCHRUN | {"WORLD_SIZE": "2", "RANK": "1", "SLURM_STEP_NUM_TASKS": "4"},
            r"WORLD_SIZE=2, but srun started 4 tasks \(SLURM_STEP_NUM_TASKS\)",
        ),
        (OPENMPI | {"OMPI_COMM_WORLD_RANK": "9"}, "OMPI_COMM_WORLD_RANK=9 does not fit"),
        (STEP | {"SLURM_PROCID": "7"}, "SLURM_PROCID=7 does not fit SLURM_NTASKS=7"),
        (STEP | {"SLURM_NODEID": "4"}, "SLURM_NODEID=4 does not fit"),
        (STEP | {"SLURM_LOCALID": "1"}, "SLURM_LOCALID=1 does not fit the 1 tasks of gpu5"),
        (STEP | {"SLURM_NTASKS": "8"}, "is 7 tasks on 4 nodes, but SLURM_NTASKS=8"),
        (STEP | {"SLURM_JOB_NODELIST": "n[1-3]"}, "has 3 nodes"),
        (
            {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
            r"4 tasks \(SLURM_NTASKS\), but this process was not started by srun",
        ),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "PMI_SIZE=2, but MPI_LOCALRANKID"),
        ({"SLURM_JOB_NUM_NODES": "2"}, "2 nodes .* not started by srun"),
        ({k: v for k, v in STEP.items() if k != "SLURM_LOCALID"}, "SLURM_LOCALID is not set"),
    ],
)
def test_what_does_not_fit_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        topology(environment)
