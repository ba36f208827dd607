"""Commands on tars that are there already; each returns a plan, as in launcher/commands/cli.py."""

from __future__ import annotations

from launcher.recipe.arguments import Plan, integers, local_folder, pairs


class ShardCommands:
    """Commands on tars that are there already."""

    def index(
        self, *shards: str, members: str = "", num_labels: str = "", workers: str = "0"
    ) -> Plan:
        """Make plain webdataset tars of any origin a set, where they lie.

        Writes index.json and manifest.json beside the tars, which stay as they are; then `train`,
        `verify` and `stats` read their folder like a packed one. Images are checked as by `pack`.

        Without --members the endings tell: jpg or png alone is the image; seg.png, label.png,
        inst.png, image.jpg, a.jpg + b.jpg, ab.jpg say what they are; beside an image alone, cls is
        the number of its class. Other files are ignored.

        Args:
            shards: the folder of the tars, or all of them; patterns like {000000..000146}.tar may
                be quoted or not. A folder of such folders becomes a set for each, as domains.
            members: MEMBER=ENDING with commas between: label=seg.png,inst=inst.png,image=jpg, or
                a=..., b=...; or ab=...; or image=..., alone or with cls=cls.
            num_labels: refuse label ids that are not below this number.
            workers: processes; 0 for one per core.
        """
        from launcher.data import indexing

        endings = pairs("index", members=members)
        counts = integers("index", num_labels=num_labels or "0", workers=workers)
        return Plan(lambda: indexing.index(shards, endings, **counts))

    def dali(self, shards: str, out: str = "") -> Plan:
        """Write an index for NVIDIA DALI's webdataset reader (.idx, v1.2) for every tar of a set.

        Args:
            shards: folder made by `pack` or `index`, or its URL: a set, or several domains.
            out: folder for the .idx files; by default beside the tars, those of the current
                generation.
        """
        from launcher.data import indexing

        folder = local_folder("dali", "--out", out) if out else None
        return Plan(lambda: indexing.dali(shards, folder))

    def stats(self, shards: str, out: str = "") -> Plan:
        """What a set holds, what of it may hurt training, and a picture of some of its samples.

        Args:
            shards: folder made by `pack` or `index`, or its URL: a set, or several domains.
            out: PNG file or folder for the samples, label and instance maps in colours; by
                default NAME-samples.png beside the set.
        """
        from launcher.data import statistics

        picture = local_folder("stats", "--out", out) if out else None
        return Plan(lambda: statistics.stats(shards, picture))
