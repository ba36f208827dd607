"""Commands on what a run has learnt; each returns a plan, as in launcher/commands/cli.py."""

from __future__ import annotations

from pathlib import Path

from launcher.recipe.arguments import Plan, integers, one_of, positive, several, text_path
from launcher.recipe.config import ConfigError


class ResultCommands:
    """Commands on trained networks and on the pictures that they make."""

    def translate(
        self,
        checkpoint: str,
        source: str,
        out: str,
        split: str = "test",
        layout: str = "auto",
        direction: str = "",
        weights: str = "ema",
        recipe: str = "",
        background: str = "",
        remap: str = "",
        features: str = "",
        seed: str = "0",
        **overrides: str,
    ) -> Plan:
        """Turn a folder of label (and instance) maps or of pictures into PNG pictures.

        Pictures are brought to size as in training, but whole; --data.preprocess.mode=none keeps
        the size that they have.

        Args:
            checkpoint: a run folder (its newest checkpoint), one checkpoint, or the authors'
                weights of pix2pix, CycleGAN or pix2pixHD (latest_net_G.pth, or their folder).
            source: folder laid out as for `pack`, or itself the folder of maps or pictures.
            out: folder for the pictures, named as their sources.
            split: train, test, val ...: which part of the source.
            layout: auto, or side-by-side when each file of the source holds both pictures.
            direction: A2B or B2A, for a GAN that was trained on A and B; its own by default.
            weights: ema (the moving average, if the run keeps one) or raw.
            recipe: for the authors' weights: the recipe that builds their network.
            background: as for `pack`: what transparent pictures are composed over.
            remap: as for `pack`: file of label ids to renumber. Id 255 becomes the last label, as
                there.
            features: for pix2pixHD with an encoder: cluster (the commonest look of each label),
                sample (a look drawn for each object) or a file of `features` to draw from. By
                default those of the photos beside the maps, and without one none.
            seed: of these draws.
            overrides: options of the run that shall differ, by dotted name:
                --data.preprocess.mode=none, --model.test_dropout=false, --precision=bf16.
        """
        from launcher.run import translating

        one_of("translate", "weights", weights, ("ema", "raw"))
        learned = text_path("translate", checkpoint)
        return Plan(
            lambda: translating.translate(
                learned,
                Path(source),
                Path(out),
                recipe=recipe,
                split=split,
                layout=layout,
                direction=direction,
                ema=weights == "ema",
                background=background,
                remap=remap,
                looks=features,
                **integers("translate", seed=seed),
                overrides=overrides,
            )
        )

    def sample(
        self,
        run: str,
        out: str,
        num: str = "64",
        classes: str = "",
        seed: str = "0",
        truncation: str = "",
        interpolate: str = "0",
        grid: str = "8",
        weights: str = "ema",
    ) -> Plan:
        """Make PNG pictures with a GAN that was trained to make them from noise.

        Each picture follows from the seed and its number alone. All of them stand together in
        OUT/sheet.png.

        Args:
            run: a run folder (its newest checkpoint), or one checkpoint.
            out: folder for the pictures: 000000.png and so on.
            num: how many.
            classes: numbers of classes (or of values of the first categorical code), with commas
                between, which the pictures take in turn; by default all.
            seed: of the noise.
            truncation: the largest number in the noise, 0.5 for example: larger ones are drawn
                again. Fewer kinds of pictures, and better ones. By default there is no limit.
            interpolate: make so many pictures from each one to the next, from 2 on; 0: none.
            grid: pictures in a row of the sheet, which with --interpolate has a row for each pair
                and holds the first 400; 0: there is no sheet.
            weights: ema (the moving average, if the run keeps one) or raw.
        """
        from launcher.run import sampling

        one_of("sample", "weights", weights, ("ema", "raw"))
        numbers = integers("sample", num=num, seed=seed, interpolate=interpolate, grid=grid)
        if not numbers["num"]:
            raise ConfigError("sample: --num=0 must be 1 or more.")
        if numbers["interpolate"] == 1:
            raise ConfigError("sample: --interpolate=1 must be 2 or more, or 0 for none.")
        wanted = sampling.Wanted(
            numbers["num"],
            numbers["seed"],
            several("sample", "classes", classes),
            positive("sample", "truncation", truncation) if truncation else None,
            numbers["grid"],
            numbers["interpolate"],
        )
        learned = text_path("sample", run)
        return Plan(lambda: sampling.sample(learned, Path(out), wanted, weights == "ema"))

    def features(
        self,
        run: str,
        source: str,
        out: str = "",
        split: str = "train",
        maps: str = "no",
        num_clusters: str = "10",
        seed: str = "0",
        remap: str = "",
    ) -> Plan:
        """Gather the looks that the encoder of a pix2pixHD run sees in photos, for `translate`.

        K-means finds the clusters of each label's looks: `translate --features=sample` chooses
        among them. With --maps=yes the features themselves are written as pictures: packed as
        SPLIT_feat, a run with --model.load_features=true reads them.

        Args:
            run: a run folder, or one checkpoint.
            source: folder laid out as for `pack`, with maps and photos.
            out: the file to write, RUN/features.safetensors by default; the folder, with --maps.
            split: train, test, val ...: which part of the source.
            maps: yes writes a picture of features for each photo.
            num_clusters: the most clusters of a label.
            seed: of the first centres.
            remap: as for `pack`: file of label ids to renumber.
        """
        from launcher.run import features

        one_of("features", "maps", maps, ("yes", "no"))
        numbers = integers("features", num_clusters=num_clusters, seed=seed)
        if not numbers["num_clusters"]:
            raise ConfigError("features: --num_clusters=0 must be 1 or more.")
        learned, place = text_path("features", run), Path(source)
        if maps == "yes":
            if not out:
                raise ConfigError("features: --maps=yes needs --out, the folder for the pictures.")
            return Plan(lambda: features.draw_maps(learned, place, Path(out), split, remap))
        file = Path(out) if out else features.home_of(learned) / features.FILE
        count, start = numbers["num_clusters"], numbers["seed"]
        return Plan(lambda: features.cluster(learned, place, file, split, remap, count, start))

    def score(self, pictures: str, photos: str, sources: str = "", beat: str = "") -> Plan:
        """Mean absolute error of translated pictures, beside that of the simplest answers.

        These are the best constant colour (constant), the same pictures beside the next photo
        (mismatch) and, with --sources, leaving the source as it is (identity). Exits with 1 when
        the pictures are no better than one of those in `beat`.

        Args:
            pictures: folder made by `translate`.
            photos: folder of the real photos, with the same file names.
            sources: folder of the pictures that were translated, with the same file names.
            beat: names with commas between; all that are there by default.
        """
        from launcher.data import scoring

        answers = {"constant": scoring.CONSTANT, "mismatch": scoring.MISMATCH}
        answers |= {"identity": scoring.IDENTITY} if sources else {}
        names = beat.split(",") if beat else list(answers)
        if "identity" in names and not sources:
            raise ConfigError("score: --beat=identity needs --sources, the pictures translated.")
        for name in names:
            one_of("score", "beat", name, tuple(answers))
        given = Path(sources) if sources else None
        wanted = tuple(answers[name] for name in names)
        return Plan(lambda: scoring.score(Path(pictures), Path(photos), given, wanted))
