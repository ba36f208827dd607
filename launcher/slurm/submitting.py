"""`submit`: freeze the configuration, write one readable batch script, hand it to SLURM.

RUN/config.yaml        resolved, all paths absolute: what `join` trains
RUN/job.sh, job.json   the script, and SLURM's number for it
RUN/000, RUN/001 ...   of a sweep: the members' run folders, each with its config.yaml
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cluster.errors import ClusterError
from cluster.slurm import queries, sbatch
from cluster.text_files import replace_text
from launcher.recipe.config import Config, ConfigError, load, options_of
from launcher.recipe.messages import meant_elsewhere
from launcher.slurm import sweeps
from launcher.status import job_file
from launcher.status.job_file import Submission
from launcher.text.sentences import sentence
from launcher.text.tables import table
from shards.records import DataError
from trainers.settings import Settings

Section = TypeVar("Section", bound=Settings)
PLACES = ("venv", "container")
"""Options of the job that are paths."""


@dataclass(frozen=True)
class BatchJob:
    """One submission: a script, and the run, or the runs of a sweep, that it starts."""

    run: Path
    job: sbatch.Job
    configs: dict[Path, Config]
    """By run folder."""
    variants: list[dict[str, str]]
    """What distinguishes the runs: dotted options and their values; [{}] without a sweep."""


def submit(recipe: str, options: Mapping[str, str], dry: bool) -> None:
    """Queue a recipe; with `dry`, print the script instead, and write nothing.

    options: of the recipe (dotted names, and its own top level) and of `sbatch.Job`."""
    batch = batch_of(recipe, options)
    if len(batch.variants) > 1:
        print(describe(batch), file=sys.stderr)
    script = sbatch.render(batch.job)
    if dry:
        print(script, end="")
        return
    # The runs of a sweep mostly read the same: it is looked at once.
    reading = {(c.data, c.model.needs.layout): c for c in batch.configs.values()}
    for config in reading.values():
        check_shards(config)
    for run, config in batch.configs.items():
        check_free(run)
        check_same_run(config)
    # A sweep that has grown smaller still has its old members.
    for run in job_file.members(batch.run):
        check_free(run)
    write(batch, script)
    number = queries.submit(batch.run / "job.sh")
    record(batch, number)
    print(how_to_watch(batch, number))


def batch_of(recipe: str, options: Mapping[str, str]) -> BatchJob:
    """Everything that can be wrong about a submission is found here."""
    overrides, wishes = divided(options)
    grid, limit = sweeps.read(wishes.pop("array", ""))
    if twice := grid.keys() & overrides.keys():
        raise ConfigError(f"submit: {min(twice)} is an option here and in the sweep: keep one.")
    variants = sweeps.product(grid)
    config = frozen(load(recipe, overrides | variants[0]))
    run = config.run_dir
    if grid:
        wishes["array"] = f"0-{len(variants) - 1}{limit}"
    job = job_of(wishes, run, options_of(type(config.model)))
    configs = {}
    for i, variant in enumerate(variants):
        folder = job_file.member_folder(run, i) if grid else run
        config = load(recipe, overrides | variant).model_copy(update={"run_dir": folder})
        configs[folder] = frozen(config)
        check_world(configs[folder], job)
    return BatchJob(run, job, configs, variants)


def divided(options: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Options of the recipe, which have dotted names or are its top level's, and of the job."""
    of_recipe = {n: t for n, t in options.items() if "." in n or n in Config.model_fields}
    return of_recipe, {n: t for n, t in options.items() if n not in of_recipe}


def job_of(wishes: Mapping[str, str], run: Path, known_options: list[str]) -> sbatch.Job:
    """known_options: those of the recipe, for whoever left out a section's name."""
    texts = {n: str(absolute(Path(t))) if n in PLACES else t for n, t in wishes.items()}
    places = {"run_dir": str(run), "work_dir": str(Path.cwd())}
    if "name" not in texts:
        places["name"] = re.sub(r"[^\w.+-]", "-", run.name, flags=re.ASCII)
    known = {field.name for field in fields(sbatch.Job)} - {*places}
    for name in (name for name in wishes if name not in known):
        if found := meant_elsewhere(name, known_options):
            raise ConfigError(sentence(f"submit: --{name} is no option; {found}"))
    try:
        return sbatch.job(texts, **places)
    except ClusterError as error:
        raise ConfigError(f"submit: {error}") from error


def frozen(config: Section) -> Section:
    """The same with every path absolute: the job may run elsewhere."""
    changed: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Settings):
            changed[name] = frozen(value)
        elif isinstance(value, Path):
            changed[name] = absolute(value)
    return config.model_copy(update=changed)


def absolute(path: Path) -> Path:
    """As written, symbolic links included: what they mean may differ between nodes."""
    return Path.cwd() / path


def check_world(config: Config, job: sbatch.Job) -> None:
    """Refuse what all ranks would refuse, after a night in the queue."""
    from launcher.recipe.building import check_networks, num_micro_of

    world = job.nodes * job.ranks_per_node
    if config.backend.world not in (None, world):
        raise ConfigError(
            f"backend.world={config.backend.world}, but --nodes={job.nodes} with "
            f"{job.ranks_per_node} processes each are {world}: correct one of them."
        )
    num_micro_of(config, world)
    check_networks(config)


def check_free(run: Path) -> None:
    """A run has one job at a time."""
    last = job_file.read(run)
    found = queries.status(last.job) if last else None
    if last and found and not found.over:
        raise ClusterError(
            f"{run} has job {last.job} already, which is {found.state}: wait for its end, end it "
            f"by `organza cancel {run}`, or choose another run_dir."
        )


def check_shards(config: Config) -> None:
    """Refuse what no rank could read."""
    from launcher.run.sources import sources_of

    try:
        sources_of(config)
    except (DataError, ValueError) as error:
        raise ConfigError(sentence(f"submit: data.shards: {error}")) from error


def check_same_run(config: Config) -> None:
    """A run folder goes on with what it began with; the data are compared when training starts."""
    from launcher.run import run_folder
    from trainers.checkpoints.checkpoint import find

    checkpoint = find(config.run_dir)
    run_folder.examine(config, checkpoint.state["data"] if checkpoint else "")


def write(batch: BatchJob, script: str) -> None:
    """The run folders as `join` will find them."""
    (batch.run / "logs").mkdir(parents=True, exist_ok=True)
    for run, config in batch.configs.items():
        run.mkdir(exist_ok=True)
        replace_text(run / "config.yaml", config.to_yaml())
    replace_text(batch.run / "job.sh", script)


def record(batch: BatchJob, number: str) -> None:
    """Each run's own job."""
    now = datetime.now().isoformat(timespec="seconds")
    for i, run in enumerate(batch.configs):
        job = f"{number}_{i}" if batch.job.array else number
        log = batch.job.log.replace("%A_%a", job).replace("%j", job)
        job_file.write(run, Submission(job, now, batch.job.launch, log))


def describe(batch: BatchJob) -> str:
    """The sweep as a table."""
    names = list(batch.variants[0])
    rows = [[r.name, *v.values()] for r, v in zip(batch.configs, batch.variants, strict=True)]
    return table(["run", *names], rows)


def how_to_watch(batch: BatchJob, number: str) -> str:
    size = f"{batch.job.nodes} x {batch.job.ranks_per_node} processes"
    runs = f"{len(batch.configs)} runs of " if batch.job.array else ""
    log = job_file.submission(next(iter(batch.configs))).log
    overview = "runs" if batch.job.array else "status"
    return (
        f"Submitted job {number}: {runs}{size}.\n"
        f"  state:   organza {overview} {batch.run}\n"
        f"  log:     tail -F {log}\n"
        f"  curves:  tensorboard --logdir {batch.run}"
    )
