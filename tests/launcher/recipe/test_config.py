"""The configuration is strict, and its messages name option, value and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from launcher.commands import cli
from launcher.recipe import building, config, epochs, originals_options, yaml_files
from launcher.recipe.arguments import prepared
from launcher.recipe.building import num_micro_of
from launcher.recipe.config import ConfigError
from trainers.recipe import OptimizerRecipe

MINIMAL = {
    "gan": "pix2pixhd",
    "run_dir": "runs/x",
    "model": {"lambda_vgg": 0},
    "data": {"shards": "shards"},
}


@pytest.fixture()
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return str(path)


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("optm.lr", "1", "unknown option `optm`; did you mean `optim`?"),
        ("optim.lrr", "1", "unknown option `optim.lrr`; did you mean `optim.lr`?"),
        ("model.num_label", "8", "`model.num_label`; did you mean `model.num_labels`"),
        ("optim.lr", "fast", "`optim.lr` is 'fast': input should be a valid number"),
        ("optim.lr", "-1", "`optim.lr` is '-1': input should be greater than 0"),
        ("model.ngf", "0", "`model.ngf` is '0': input should be greater than or equal to 1"),
        ("model.ngf", "8.5", "`model.ngf` is '8.5'"),
        ("precision", "float16", "`precision` is 'float16': input should be 'fp32', 'bf16' or"),
        ("model.memory", "lots", "`model.memory` is 'lots': input should be 'none', 'blocks'"),
        ("schedule.decay", "ten epochs", "`schedule.decay` is 'ten epochs'"),
        ("schedule.constant", "-3", "`schedule.constant` is '-3': give a number of images"),
        ("cadence.log", "0.5", "`cadence.log` is '0.5': give a number of images"),
        ("cadence.log", "true", "`cadence.log` is 'true'"),
        ("model.fix_global", "ten", "`model.fix_global` is 'ten': give a number of images"),
        ("data.preprocess.mode", "crop", "data.preprocess.crop_size is missing"),
        ("data.preprocess.crop_size", "[1,2,3]", "`data.preprocess.crop_size` is [1, 2, 3]"),
        ("data.order.streams", "2", "data.order.streams=2 needs data.order.shuffle=windowed"),
        ("data.order.window", "0", "`data.order.window` is '0': input should be greater than or"),
        ("data.order.shuffle", "none", "`data.order.shuffle` is 'none': input should be 'full' or"),
        ("data.substitutes", "-1", "`data.substitutes` is '-1'"),
        ("gan", "pix2pixh", "gan is 'pix2pixh'; did you mean `pix2pixhd`?"),
        ("backend.zero", "3", "backend.zero=3 is refused: it shards the parameters"),
        ("backend.zero", "1", "backend.zero=1 needs backend.kind=deepspeed"),
        ("backend.memory_gib", "inf", "`backend.memory_gib` is 'inf': input should be less than"),
        ("backend.memory_gib", "1e30", "`backend.memory_gib` is '1e30': input should be less"),
        ("backend.compress", "fp16", "`backend.compress` is 'fp16': input should be 'none'"),
        ("backend.kind", "ddp", "`backend.kind` is 'ddp': input should be 'accelerate' or"),
        ("backend.offload", "true", "unknown option `backend.offload`"),
        ("optim.lr.x", "1", "`optim.lr` is"),
        ("model", "3", "`model` is"),
    ],
)
def test_mistakes_are_named(recipe: str, option: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(recipe, {option: text})
    assert message in str(caught.value)


def test_names_in_lists_stay_names(recipe: str) -> None:
    resolved = config.load(recipe, {"data.domains": "[0, no]"})
    assert resolved.data.domains == ("0", "no")
    assert config.load(recipe, {"data.preprocess": "{flip: false}"}).data.preprocess.flip is False


def test_loss_scaling_is_refused_where_gradients_are_sharded(recipe: str) -> None:
    with pytest.raises(ConfigError, match="precision=fp16 is refused with backend.kind=deepspeed"):
        config.load(recipe, {"backend.kind": "deepspeed", "precision": "fp16"})
    heads = {"model.form": "three-heads", "model.side": "32", "backend.kind": "deepspeed"}
    with pytest.raises(ConfigError, match="backend.kind=deepspeed is refused for gan=infogan"):
        config.load("infogan", heads)
    loaded = config.load(recipe, {"backend.kind": "deepspeed", "backend.zero": "2"})
    assert (loaded.backend.kind, loaded.backend.zero) == ("deepspeed", 2)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("pix2pix", ["--backend.overlap=true"], "backend.overlap=true is refused for gan=pix2pix"),
        (
            "pix2pixhd-coarse",
            ["--backend.overlap=true", "--backend.kind=deepspeed"],
            "backend.overlap=true is refused with backend.kind=deepspeed",
        ),
    ],
)
def test_overlap_is_refused_where_it_would_change_numbers_or_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: list[str],
    sentence: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["organza", "train", name, *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


def test_all_mistakes_are_told_at_once(recipe: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(recipe, {"optim.lr": "x", "model.ngf": "y", "nonsense": "z"})
    assert all(word in str(caught.value) for word in ("optim.lr", "model.ngf", "nonsense"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("gan: pix2pixhd\nrun_dir: r\ndata: {}\n")
    with pytest.raises(ConfigError, match="option `data.shards` is missing: give it"):
        config.load(str(path))


@pytest.mark.parametrize("text", ["a: [", "- list", "", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="YAML"):
        config.load(str(path))


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean `pix2pixhd-full`"):
        config.load("pix2pixhd-ful")


def test_overrides_are_typed_by_their_field(recipe: str) -> None:
    loaded = config.load(
        recipe,
        {
            "optim.lr": "1e-3",
            "data.shards": "1e5",
            "data.preprocess.mode": "none",
            "data.preprocess.flip": "no",
            "optim.clip": "null",
            "data.preprocess.crop_size": "[8, 16]",
            "schedule.constant": "12000",
            "schedule.decay": "2.5 epochs",
        },
    )
    assert loaded.optim.lr == 1e-3 and loaded.optim.clip is None
    assert loaded.data.shards == Path("1e5")
    assert loaded.data.preprocess.mode == "none" and loaded.data.preprocess.flip is False
    assert loaded.data.preprocess.crop_size == (8, 16)
    assert (loaded.schedule.constant, loaded.schedule.decay) == (12000, "2.5 epochs")


def test_epochs_become_images_once_the_data_is_known(recipe: str) -> None:
    resolved = epochs.resolve(config.load(recipe, {"cadence.save": "0.5 epochs"}), 2975)
    assert resolved.schedule.constant == 297500 and resolved.cadence.save == 1488
    tiny = config.load(recipe, {"cadence.save": "0.001 epochs", "cadence.log": "0 epochs"})
    assert (epochs.resolve(tiny, 10).cadence.save, epochs.resolve(tiny, 10).cadence.log) == (1, 0)
    frozen = config.load(recipe, {"model.stage": "full", "model.fix_global": "10 epochs"})
    assert epochs.resolve(frozen, 250).model.fix_global == 2500
    with pytest.raises(ConfigError, match="nothing to train"):
        both = {"schedule.constant": "0", "schedule.decay": "0"}
        epochs.resolve(config.load(recipe, both), 10)


def test_the_resolved_configuration_reads_back_equal(recipe: str, tmp_path: Path) -> None:
    loaded = config.load(recipe, {"optim.lr": "3e-5"})
    path = tmp_path / "resolved.yaml"
    path.write_text(loaded.to_yaml())
    assert config.load(str(path)) == loaded


@pytest.mark.parametrize("path", sorted(config.RECIPES.glob("*/*.yaml")), ids=lambda p: p.stem)
def test_recipes_are_valid_and_say_what_they_are(path: Path) -> None:
    head = path.read_text().split("\ngan:")[0]
    assert all(word in head for word in ("Command:", "Cost:", "Expect")), "a recipe's head"
    assert config.load(path.stem).gan


@pytest.mark.parametrize("line", ["2e-4", "no", "off"])
def test_yaml_surprises_do_not_pass_as_values(tmp_path: Path, line: str) -> None:
    """YAML reads 2e-4 as text and no/off as False."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL) + f"optim:\n  lr: {line}\nprecision: fp32\n")
    if line == "2e-4":
        assert config.load(str(path)).optim.lr == 2e-4
    else:
        with pytest.raises(ConfigError, match="optim.lr"):
            config.load(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {lambda_vgg: 0}\n", "`model` is given in line 4 and again in line 7"),
        ("extra: {a: 1, a: 2}\n", "`a` is given in line 7 and again in line 7"),
        ("extra:\n- b: 1\n  b: 1\n", "`b` is given in line 8 and again in line 9"),
    ],
)
def test_what_is_given_twice_is_refused_with_both_lines(
    recipe: str, text: str, message: str
) -> None:
    path = Path(recipe)
    path.write_text(path.read_text() + text)
    with pytest.raises(ConfigError, match=message):
        config.load(recipe)


def test_an_anchor_may_be_merged_often_and_overridden(tmp_path: Path) -> None:
    text = "base: &base {a: 1}\none: &one\n  <<: *base\n  a: 2\ntwo:\n  <<: *one\n"
    assert yaml_files.read(text)["two"] == {"a": 2}


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
        "a: &a [*a]\n",
        "a: &a\n  b: *a\n",
    ],
)
def test_aliases_that_stand_for_too_much_are_refused(recipe: str, text: str) -> None:
    path = Path(recipe)
    path.write_text(path.read_text() + text)
    with pytest.raises(ConfigError, match="with its aliases written out it has more than"):
        config.load(recipe)


def test_options_of_one_kind_do_not_outlive_a_change_of_kind() -> None:
    resnet = config.load("pix2pix", {"model.generator.kind": "resnet"}).model.generator
    assert resnet.halvings == 2 and resnet.num_blocks == 9
    assert resnet.norm == "batch" and resnet.dropout == 0.5  # every kind has those
    given = {"model.generator.num_downsamples": "3", "model.generator.kind": "resnet"}
    assert config.load("pix2pix", given).model.generator.halvings == 3
    same = config.load("pix2pix", {"model.generator.kind": "encoder-decoder"})
    assert same.model.generator.halvings == 8
    assert config.load("cyclegan", {"model.generator.kind": "unet"}).model.generator.halvings == 8


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("cyclegan", {"generator.kind": "unet", "generator.num_blocks": "6"}, "num_blocks` is 6"),
        ("pix2pix", {"discriminator.kind": "pixel", "discriminator.num_layers": "2"}, "layers` is"),
        ("pix2pix", {"generatr.kind": "unet"}, "did you mean `model.generator`"),
    ],
)
def test_options_of_another_kind_are_refused(
    recipe: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(recipe, {f"model.{name}": value for name, value in options.items()})


def test_absurd_networks_are_told_and_not_built() -> None:
    options = {"model.generator.kind": "resnet", "model.generator.num_downsamples": "8"}
    absurd = config.load("cyclegan", options)
    with pytest.raises(ConfigError, match="93.4 thousand million parameters.*num_downsamples"):
        building.check_networks(absurd)
    building.check_networks(config.load("pix2pixhd-full"))


def test_home_is_expanded_wherever_a_path_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell expands the `~` in --option=~/x, nor in a recipe."""
    monkeypatch.setenv("HOME", str(tmp_path))
    places = {"run_dir": "~/r", "start_from": "~/s"}
    model = {"lambda_vgg": 1, "vgg_weights": "~/vgg.pth"}
    tree = MINIMAL | places | {"model": model, "data": {"shards": "~/p"}}
    tmp_path.joinpath("recipe.yaml").write_text(yaml.safe_dump(tree))
    for found in (
        config.load(str(tmp_path / "recipe.yaml")),
        config.load(
            "pix2pixhd-full", places | {"data.shards": "~/p", "model.vgg_weights": "~/vgg.pth"}
        ),
    ):
        assert (found.run_dir, found.start_from) == (tmp_path / "r", tmp_path / "s")
        assert found.data.shards == tmp_path / "p"
        assert found.model.vgg_weights == tmp_path / "vgg.pth"
    assert prepared(["stats", "~/p", "--out=~/o.png"]) == [
        "stats",
        repr(f"{tmp_path}/p"),
        f"--out='{tmp_path}/o.png'",
    ]


def test_an_unknown_home_is_told_and_no_folder_of_that_name_is_made() -> None:
    for give in (
        lambda: config.load("cyclegan", {"run_dir": "~nobody-of-that-name/r"}),
        lambda: prepared(["pack", "pics", "~nobody-of-that-name/r"]),
    ):
        with pytest.raises(ConfigError, match="nobody's home is ~nobody-of-that-name here; write "):
            give()


@pytest.mark.parametrize(
    ("recipe_name", "option", "meant"),
    [
        ("cyclegan", "lr", "did you mean `optim.lr`?"),
        ("cyclegan", "norm", "`model.generator.norm` or `model.discriminator.norm`?"),
        ("cyclegan", "optim.crop_size", "did you mean `data.preprocess.crop_size`?"),
        ("cyclegan", "learning_rate", "did you mean `optim.lr`?"),
        ("cyclegan", "batchSize", "did you mean `batch.total`?"),
        ("cyclegan", "netG", "did you mean `model.generator.kind`?"),
        ("pix2pixhd-full", "netG", "did you mean `model.stage`?"),
        ("pix2pixhd-full", "model.label_nc", "did you mean `model.num_labels`?"),
        ("pix2pixhd-full", "n_layers_D", "did you mean `model.num_layers`?"),
        ("cyclegan", "gpu_ids", "start one process for each GPU"),
        ("cyclegan", "continue_train", "the same command again resumes the run"),
    ],
)
def test_options_of_another_section_or_program_are_recognised(
    recipe_name: str, option: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"unknown option `{option}`; ")) as refused:
        config.load(recipe_name, {option: "1"})
    assert meant in str(refused.value)


def test_the_originals_options_lead_to_options_that_exist() -> None:
    here = {o for name in ("cyclegan", "pix2pix", "pix2pixhd-full") for o in known_options(name)}
    lost = {
        (theirs, ours)
        for theirs, names in originals_options.RENAMED.items()
        for ours in names
        if ours not in here
    }
    assert not lost


def known_options(recipe_name: str) -> list[str]:
    return config.options_of(type(config.load(recipe_name).model))


def test_the_originals_spellings_of_rates_and_schedules() -> None:
    found = config.load("cyclegan", {"optim.lr_D": "1e-4", "optim.players.D.beta1": "0"})
    assert found.optim.players["D"].lr == 1e-4 and found.optim.players["D"].beta1 == 0
    plan = building.recipe_of(epochs.resolve(found, 100), 1)
    assert (plan.of("D").lr, plan.of("D").betas) == (1e-4, (0.0, 0.999))
    assert (plan.of("G").lr, plan.of("G").betas) == (2e-4, (0.5, 0.999))
    for option, kind, step, gamma in (
        ("schedule.policy", "plateau", 100, 0.2),
        ("schedule.kind", "step", 5000, 0.1),
    ):
        schedule = building.recipe_of(
            epochs.resolve(config.load("cyclegan", {option: kind}), 100), 1
        ).schedule
        assert (schedule.kind, schedule.step, schedule.gamma) == (kind, step, gamma)
    with pytest.raises(ConfigError, match="`optim.players.E`: gan=cyclegan has the players G, D"):
        config.load("cyclegan", {"optim.lr_E": "1"})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"optim.lr_D": "1e-4", "optim.players.D.lr": "1e-3"},
            "`optim.lr_D` and `optim.players.D.lr` are one option: keep one",
        ),
        ({"optim.players": "3"}, "`optim.players`"),
        ({"optim.players.D": "3"}, "`optim.players.D`"),
        ({"optim.momentum_D": "3"}, "`optim.momentum_D`"),
    ],
)
def test_rates_that_cannot_be_meant(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config.load("cyclegan", options)


def test_each_player_may_have_an_optimizer_of_its_own() -> None:
    options = {"optim.kind": "rmsprop", "optim.lr": "5e-5", "optim.alpha": "0.9"}
    options |= {"optim.players.G.kind": "adamw", "optim.players.G.weight_decay": "0.1"}
    plan = building.recipe_of(epochs.resolve(config.load("cyclegan", options), 100), 1)
    assert plan.of("D") == OptimizerRecipe(5e-5, "rmsprop", (0.5, 0.999), alpha=0.9)
    assert plan.of("G").kind == "adamw" and plan.of("G").weight_decay == 0.1
    again = config.build(yaml.safe_load(config.load("cyclegan", options).to_yaml()), "saved")
    assert again == config.load("cyclegan", options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"optim.momentum": "0.9"}, "`optim.momentum` is 0.9, but adam does not have it"),
        ({"optim.kind": "sgd", "optim.beta1": "0"}, "`optim.beta1` is 0.0, but sgd does not"),
        (
            {"optim.players.D.kind": "rmsprop", "optim.players.D.beta1": "0.5"},
            "`optim.players.D.beta1` is 0.5, but rmsprop does not have it",
        ),
        ({"optim.kind": "lion"}, "optim.kind"),
    ],
)
def test_numbers_of_another_optimizer_are_told(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config.load("cyclegan", options)


def test_a_network_of_another_kind_may_be_chosen_where_a_recipe_names_none() -> None:
    chosen = config.load("gan", {"model.generator.kind": "dcgan"})
    assert chosen.model.generator.kind == "dcgan"
    sized = config.load("biggan", {"model.side": "64", "model.num_classes": "10"})
    assert sized.model.attention == {"G": (32,), "D": (32,)}


def test_what_trains_on_one_process_alone_is_refused_on_two() -> None:
    told = {"model.gan_loss": "wgangp", "model.num_classes": "0", "batch.total": "4"}
    chosen = config.load("sagan", told)
    assert num_micro_of(chosen, 1) == 1
    with pytest.raises(ConfigError, match="trains on one process: the update by the penalty"):
        num_micro_of(chosen, 2)
