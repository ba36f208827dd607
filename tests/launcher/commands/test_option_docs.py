"""Help after a recipe's name, the table of options, and the JSON schema for editors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from launcher.commands import cli, option_docs
from launcher.recipe import config
from launcher.recipe.config import RECIPES

NAMES = sorted(path.stem for path in RECIPES.glob("*/*.yaml"))


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *words: str) -> str:
    """What a command prints that ends well."""
    monkeypatch.setattr("sys.argv", ["organza", *words])
    monkeypatch.setenv("PAGER", "cat")
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code
    printed = capsys.readouterr()
    return printed.out + printed.err


@pytest.mark.parametrize("name", NAMES)
def test_every_option_says_what_it_is(name: str) -> None:
    found = option_docs.options(config.load(name))
    assert len(found) > 40
    assert [option.name for option in found if not option.text] == []
    assert [option.name for option in found if "any" in option.kind.split()] == []


def test_the_names_are_those_of_a_resolved_recipe() -> None:
    def leaves(tree: object, prefix: str = "") -> list[str]:
        if not isinstance(tree, dict) or not tree:
            return [prefix[:-1]]
        return [leaf for name, inner in tree.items() for leaf in leaves(inner, f"{prefix}{name}.")]

    resolved = config.load("pix2pix", {"optim.lr": "3e-4", "data.domains": "[x, y]"})
    found = option_docs.options(resolved)
    assert [option.name for option in found] == leaves(yaml.safe_load(resolved.to_yaml()))
    by_name = {option.name: option for option in found}
    lr, norm = by_name["optim.lr"], by_name["model.generator.norm"]
    assert (lr.kind, lr.value) == ("number > 0", "0.0003")
    assert norm.kind == "instance, batch, sync-batch, none"
    assert by_name["batch.micro"].kind == "integer >= 1 or null"
    assert by_name["data.domains"].kind == "[string, string] or null"
    assert by_name["data.domains"].value == '["x", "y"]'


@pytest.mark.parametrize(
    "words",
    [
        ["show", "pix2pix", "--help"],
        ["train", "pix2pix", "--optim.lr=3e-4", "-h"],
        ["doctor", "pix2pix", "--help"],
        ["plan", "pix2pix", "--help"],
        ["submit", "pix2pix", "--help"],
        ["submit", "pix2pix", "--dry", "--sbatch.none", "--help"],
    ],
)
def test_help_after_a_recipe_shows_the_command_s_and_the_recipe_s_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: list[str]
) -> None:
    output = said(monkeypatch, capsys, *words)
    assert f"organza {words[0]} - " in output
    lr = "0.0003" if "--optim.lr=3e-4" in words else "0.0002"
    assert f"--optim.lr={lr}   (number > 0)\n      Learning rate" in output
    assert "Weight of the distance to the real image." in output


def test_help_after_a_run_shows_the_options_of_its_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    tmp_path.joinpath("config.yaml").write_text(config.load("cyclegan").to_yaml())
    output = said(monkeypatch, capsys, "translate", str(tmp_path), "--help")
    assert "organza translate - " in output and "--model.lambda_A=10.0" in output
    output = said(monkeypatch, capsys, "translate", str(tmp_path / "none"), "--help")
    assert "organza translate - " in output and "OPTIONS OF" not in output


def test_a_table_has_a_line_for_each_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines = said(monkeypatch, capsys, "options", "cyclegan").splitlines()
    assert lines[0].split() == ["option", "type", "value", "meaning"]
    assert len(lines) == 1 + len(option_docs.options(config.load("cyclegan")))


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_takes_every_resolved_recipe(name: str) -> None:
    resolved = config.load(name)
    schema = option_docs.schema(resolved)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(resolved.to_yaml()), schema)


def test_the_schema_refuses_what_training_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    schema = json.loads(said(monkeypatch, capsys, "options", "cyclegan", "--json-schema"))
    validator = jsonschema.Draft202012Validator(schema)
    least = {"gan": "cyclegan", "run_dir": "r", "data": {"shards": "p"}}
    assert validator.is_valid(least)
    for section, value in (
        ("optim", {"lr": 0}),
        ("optim", {"rate": 1}),
        ("precision", "fp8"),
        ("gan", "pix2pix"),
        ("model", {"generator": {"kind": "unet", "num_blocks": 3}}),
        ("model", {"discriminator": {"kind": "pixel", "num_layers": 2}}),
        ("data", {}),
    ):
        assert not validator.is_valid(least | {section: value}), (section, value)
    for section, value in (
        ("model", {"generator": {"num_blocks": 3}}),
        ("model", {"generator": {"kind": "unet", "num_downsamples": 7}}),
        ("schedule", {"constant": "10 epochs", "decay": 400}),
        ("batch", {"micro": None}),
    ):
        assert validator.is_valid(least | {section: value}), (section, value)


def test_a_command_that_does_not_exist_has_no_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["organza", "nonsense", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
