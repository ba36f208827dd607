"""The commands of the cluster chapter; each returns a plan, as in launcher/commands/cli.py."""

from __future__ import annotations

from pathlib import Path

from cluster.slurm.sbatch import LAUNCHERS
from launcher.recipe.arguments import Plan, integers, one_of


class ClusterCommands:
    """Commands on jobs, runs and machines."""

    def submit(self, config: str, dry: str = "no", **options: str) -> Plan:
        """Queue a recipe on a SLURM cluster, and say how to watch it.

        Writes the resolved configuration and the batch script into the run folder. The same
        command again goes on with the run; so does another number of nodes. Options of the job:
          --nodes=2 --gpus=4     nodes, and GPUs on each; --ranks: processes on each node
          --launch=rank          or accelerate, torchrun, deepspeed: who starts the processes
          --time --partition --account --qos --constraint --mem --cpus (for each process)
          --mail --after=JOB --name, --requeue, --signal_s=120 (warning before the time limit)
          --patience=3 (starts without progress), --timeout_s=1800 (for a step that hangs)
          --modules=A,B, --venv=FOLDER, --conda=NAME or --container=IMAGE, --env=KEY=V,KEY2=V
          --sbatch='--gres=gpu:a100:2 --exclude=n7'   any other options of sbatch
          --array=sweep.yaml     a run for each combination of {"optim.lr": [1e-4, 2e-4], ...};
                                 sweep.yaml%2: two at a time

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            dry: print the batch script instead; writes nothing and needs no SLURM.
            options: of the job, as above; of the recipe, by dotted name: --optim.lr=1e-4.
        """
        one_of("submit", "dry", dry, ("yes", "no"))
        from launcher.slurm import submitting

        return Plan(lambda: submitting.submit(config, options, dry == "yes"))

    def plan(
        self,
        config: str,
        gpu: str = "",
        world: str = "1",
        gpus: str = "8",
        size: str = "",
        images: str = "",
        **overrides: str,
    ) -> Plan:
        """Foretell memory, step time, communication and data rate of a recipe, without a GPU.

        Floors and estimates, with their assumptions; nothing is measured.

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            gpu: a card (H200, A100-80, L4 ...), or a memory size: 24G means all cards that have it.
            world: number of GPUs, one process each.
            gpus: GPUs of a node.
            size: WIDTHxHEIGHT of the pictures before data.preprocess; by default those of the set
                in data.shards where it is here, else 2048x1024.
            images: pictures of an epoch; by default those of the set, else 3000.
            overrides: any option of the recipe by its dotted name: --batch.total=64.
        """
        from launcher.plan import planning

        fleet = planning.fleet_of(world, gpus)
        return Plan(lambda: planning.plan(config, gpu, fleet, size, images, overrides))

    def join(self, run: str, launch: str = "rank", ranks: str = "1") -> Plan:
        """Take part in a run, as a task of srun; batch scripts call this.

        Args:
            run: run folder made by `submit`.
            launch: rank: this task trains itself; accelerate, torchrun or deepspeed: it starts
                the workers of its node.
            ranks: workers that such a launcher starts on each node.
        """
        one_of("join", "launch", launch, LAUNCHERS)
        count = integers("join", ranks=ranks)["ranks"]
        from launcher.slurm import joining

        return Plan(lambda: joining.join(Path(run), launch, count))

    def status(self, run: str) -> Plan:
        """Tell how a run is doing: its job, speed, losses, checkpoint, and slow or silent ranks.

        Args:
            run: run folder, or that of a sweep.
        """
        from launcher.status import monitoring

        return Plan(lambda: monitoring.status(Path(run)))

    def runs(self, folder: str) -> Plan:
        """List all runs below a folder: state, progress, speed, losses, age of the checkpoint.

        Args:
            folder: any folder with run folders in it.
        """
        from launcher.status import monitoring

        return Plan(lambda: monitoring.runs(Path(folder)))

    def logs(self, run: str, rank: str = "0") -> Plan:
        """Print the newest log of a rank.

        Args:
            run: run folder.
            rank: its number; rank 0 writes to the job's log.
        """
        number = integers("logs", rank=rank)["rank"]
        from launcher.status import monitoring

        return Plan(lambda: monitoring.print_log(Path(run), number))

    def cancel(self, run: str) -> Plan:
        """End a run's job for good; the ranks save before they leave.

        Args:
            run: run folder, or that of a sweep: then all its jobs.
        """
        from launcher.status import monitoring

        return Plan(lambda: monitoring.cancel(Path(run)))

    def stop(self, run: str) -> Plan:
        """Ask a run to save and leave, without SLURM; the same command as before goes on with it.

        Args:
            run: run folder, or that of a sweep: then all its runs.
        """
        from launcher.status import monitoring

        return Plan(lambda: monitoring.stop(Path(run)))

    def doctor(self, config: str, **overrides: str) -> Plan:
        """Look for what would fail later; exits with 1 when something is wrong.

        Under srun, with as many tasks as the run will have, it also finds nodes that do not reach
        each other or hold other versions.

        Args:
            config: a YAML file, or the name of a recipe in launcher/configs.
            overrides: any option of the recipe by its dotted name: --data.shards=packed/streets.
        """
        from launcher.doctor import doctor

        return Plan(lambda: doctor.doctor(config, overrides))
