"""The typed configuration: YAML recipe <- dotted overrides, strict, with messages for people."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from launcher.recipe import yaml_files
from launcher.recipe.backend_options import BackendOptions
from launcher.recipe.messages import hint, messages, names_in, section_of
from launcher.recipe.optim_options import OptimOptions, ScheduleOptions
from launcher.recipe.storage_options import CacheOptions, Location
from launcher.text.sentences import sentence
from shards.pixels import augment
from shards.read import order
from trainers.settings import GANSettings, Settings, Span, UserPath, without_other_kinds

RECIPES = Path(__file__).parents[1] / "configs"
"""In rooms as trainers/gans has them."""


class ConfigError(Exception):
    """The user's configuration is wrong; the message names option, value and remedy."""


class PreprocessOptions(Settings):
    """data.preprocess: sizes and mirroring, as pictures are read."""

    mode: Literal["none", "resize_and_crop", "crop", "scale_width", "scale_width_and_crop"] = "none"
    """As in the original code; none keeps the size (padded to the network's stride inside)."""
    load_size: int | tuple[int, int] | None = None
    """Pixels to resize to: [height, width] or both sides (resize_*), the width (scale_width*)."""
    crop_size: int | tuple[int, int] | None = None
    """Pixels of the random crop of *crop: one number for a square, or [height, width]."""
    flip: bool = True
    """Mirror half of the samples."""

    @model_validator(mode="after")
    def _sizes_fit_the_mode(self) -> PreprocessOptions:
        augment.Preprocess(**self.model_dump())
        return self


class OrderOptions(Settings):
    """data.order: how samples are mixed."""

    shuffle: Literal["full", "windowed"] = "full"
    """windowed needs few shards at a time, which a cache can hold; full may need any."""
    window: int = Field(16, ge=1)
    """Shards whose samples are mixed together (windowed)."""
    streams: int = Field(1, ge=1)
    """Parts of the shards read side by side (windowed), a divisor of batch.total: with a multiple
    of the number of nodes, each node keeps its own shards."""

    @model_validator(mode="after")
    def _options_fit(self) -> OrderOptions:
        order.Shuffle(self.shuffle, self.window, self.streams)
        return self


Name = Annotated[str, Field(coerce_numbers_to_str=True)]
"""A name, which may look like a number."""


class DataOptions(Settings):
    """data: which samples, and how they are read."""

    shards: Location
    """Folder made by `pack`, or its URL: http(s)://, s3://, gs://, az://, abfs://."""
    cache: CacheOptions = CacheOptions()
    domains: tuple[Name, Name] | None = None
    """Unpaired training: which two of the packed domains are a and b; null: A and B."""
    preprocess: PreprocessOptions = PreprocessOptions()
    order: OrderOptions = OrderOptions()
    workers: int = Field(2, ge=0)
    """Reader processes per rank."""
    substitutes: int = Field(0, ge=0)
    """Damaged samples that each process may replace by others before it stops; 0: it stops at the
    first. Each is told in the log and in RUN/substituted."""


class BatchOptions(Settings):
    """batch: images of one step."""

    total: int = Field(1, ge=1)
    """Images of one step over all ranks; the world size changes nothing else."""
    micro: int | None = Field(None, ge=1)
    """Images a rank handles at a time; gradients accumulate. null: all of its share."""


class EmaOptions(Settings):
    """ema: the moving average of the generator."""

    halflife: Span = 0
    """Images after which an old weight counts half in the moving average; 0 for none."""
    start: Span = 0
    """Images of the run before which the average is a copy of the weights."""


class CadenceOptions(Settings):
    """cadence: how often the run is logged, pictured and saved."""

    log: Span = 100
    """Images between scalars on the board."""
    pictures: Span = 1000
    """Images between picture grids; 0 for none."""
    save: Span = 5000
    """Images between checkpoints; 0 for one at the end."""
    keep_last: int = Field(3, ge=1)
    """Newest checkpoints that stay."""
    keep_every: Span = 0
    """The first checkpoint at or after each multiple of this stays for ever; 0 for none."""


class Config(Settings):
    """A whole recipe."""

    gan: str
    """A file of trainers/gans/: pix2pixhd, cyclegan, dcgan and so on."""
    run_dir: UserPath
    """Everything the run writes; the same command again resumes from it."""
    start_from: UserPath | None = None
    """Run or checkpoint whose weights a new run starts from (coarse -> full), or a .pth of the
    authors of pix2pix, CycleGAN or pix2pixHD, or a folder of them."""
    seed: int = Field(0, ge=0)
    """Of the first weights, the order of the data and all that is drawn."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast inside the players; weights stay fp32, and so do the gradients between them but for
    backend.compress."""
    compile: Literal["none", "fuse", "graphs"] = "none"
    """fuse: torch.compile of the networks, which rounds differently and costs minutes at the start;
    graphs: and CUDA graphs, for steps of many small kernels. What torch cannot follow runs as
    written."""
    model: SerializeAsAny[GANSettings]
    """The section of the GAN itself."""
    data: DataOptions
    batch: BatchOptions = BatchOptions()
    optim: OptimOptions = OptimOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    ema: EmaOptions = EmaOptions()
    cadence: CadenceOptions = CadenceOptions()
    backend: BackendOptions = BackendOptions()

    @model_validator(mode="after")
    def _precision_fits_the_backend(self) -> Config:
        if self.precision == "fp16" and self.backend.kind == "deepspeed":
            raise ValueError(
                "precision=fp16 is refused with backend.kind=deepspeed: the loss scale of a player "
                "follows from gradients that ZeRO has sharded; choose bf16 or fp32, or "
                "backend.kind=accelerate"
            )
        return self

    @model_validator(mode="after")
    def _zero_fits_the_gan(self) -> Config:
        if self.backend.kind == "deepspeed" and self.model.only_alone:
            raise ValueError(
                f"backend.kind=deepspeed is refused for gan={self.gan} with these options: "
                f"{self.model.only_alone}; choose backend.kind=accelerate"
            )
        return self

    @model_validator(mode="after")
    def _players_exist(self) -> Config:
        known = gan_module(self.gan, "gan").Model.players
        for name in self.optim.players:
            if name not in known:
                raise ValueError(
                    f"`optim.players.{name}`: gan={self.gan} has the players {', '.join(known)}"
                )
        return self

    @model_validator(mode="after")
    def _overlap_fits_the_gan(self) -> Config:
        if self.backend.overlap and not gan_module(self.gan, "gan").Model.independent_phases:
            raise ValueError(
                f"backend.overlap=true is refused for gan={self.gan}, where a phase uses networks "
                "that the phase before it has just stepped: the numbers would change; leave it out"
            )
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(recipe: str, overrides: Mapping[str, str] | None = None) -> Config:
    """A recipe (a YAML file, or the name of one in launcher/configs) with dotted overrides."""
    path = recipe_path(recipe)
    try:
        tree = yaml_files.read(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}.") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must be a YAML mapping with a key `gan`.")
    given = {option: parse(text) for option, text in (overrides or {}).items()}
    for option, value in given.items():
        if option.startswith("model.") and option.endswith(".kind"):
            forget_other_kinds(tree, option, value, str(path))
        elif option == "optim.kind" and "optim" in tree:
            tree["optim"] = without_other_kinds(OptimOptions, tree["optim"], value)
    for option, value in given.items():
        insert(tree, option, value)
    return build(tree, str(path))


def forget_other_kinds(tree: dict[str, Any], option: str, kind: Any, source: str) -> None:
    """Drop what a recipe says of the network that `option` replaces by one of another kind."""
    _, *path, _ = option.split(".")
    section, settings = tree.get("model"), gan_module(tree.get("gan"), source).Config
    for name in path[:-1]:
        section = section.get(name) if isinstance(section, dict) else None
    try:
        settings = section_of(settings, tuple(path))
    except (KeyError, AttributeError):
        return  # no such section: told when the whole is built
    if isinstance(section, dict) and path and path[-1] in section:
        section[path[-1]] = without_other_kinds(settings, section.get(path[-1]), kind)


def build(tree: dict[str, Any], source: str) -> Config:
    """Validate a whole tree; `source` is named in messages."""
    settings = gan_module(tree.get("gan"), source).Config
    model = tree.get("model", {})
    problems: list[str] = []
    parsed, known = None, options_of(settings)
    try:
        parsed = settings.model_validate(model)
    except ValidationError as error:
        problems += messages(error, settings, model, ("model",), known)
    # A stand-in lets the rest be checked too, so that all mistakes are told at once.
    rest = tree | {"model": parsed or GANSettings()}
    try:
        config = Config.model_validate(rest)
    except ValidationError as error:
        problems += messages(error, Config, rest, (), known)
    if problems:
        raise ConfigError(f"{source}: " + "\n  ".join(map(sentence, problems)))
    return config


def options_of(settings: type[Settings]) -> list[str]:
    """The dotted names of all options of a recipe whose model has these settings."""
    return [*names_in(Config), *names_in(settings, "model.")]


def gan_module(name: Any, source: str) -> Any:
    """The module of trainers/gans, in whichever room, that `gan: NAME` means."""
    import trainers.gans

    found = pkgutil.walk_packages(trainers.gans.__path__, "trainers.gans.")
    paths = {module.name.rpartition(".")[2]: module.name for module in found if not module.ispkg}
    if name not in paths:
        raise ConfigError(f"{source}: gan is {name!r}{hint(str(name), sorted(paths))}")
    return importlib.import_module(paths[name])


def recipe_path(recipe: str) -> Path:
    known = {path.stem: path for path in sorted(RECIPES.glob("*/*.yaml"))}
    if recipe in known:
        return known[recipe]
    if Path(recipe).is_file():
        return Path(recipe)
    raise ConfigError(f"There is no recipe or file {recipe!r}{hint(recipe, list(known))}")


def parse(text: str) -> Any:
    """Override text -> value; numbers and booleans are left to the field's type."""
    if text in ("null", "None") or text[:1] in ("[", "{"):
        try:
            return None if text == "None" else yaml_files.read(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{text!r} cannot be read as a YAML value: {error}.") from error
    return text


def insert(tree: dict[str, Any], option: str, value: Any) -> None:
    """Set the dotted `option` of a nested mapping."""
    *parents, last = option.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--{option}: `{parent}` is a value, not a section.")
    tree[last] = value
