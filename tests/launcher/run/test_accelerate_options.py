"""What `accelerate launch` is asked for is what the recipe says, or a refusal."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher.recipe import config
from launcher.recipe.arguments import prepared
from launcher.recipe.config import ConfigError
from launcher.run import accelerate_options
from tests.launcher.sample import ROOT, environment

UNASKED = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_USE_CPU": "False",
}
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
ZERO_2 = {"backend.kind": "deepspeed", "backend.zero": "2"}


def check(
    environment: dict[str, str], overrides: dict[str, str], parent: tuple[str, ...] = ()
) -> None:
    accelerate_options.check(config.load("cyclegan", overrides), UNASKED | environment, parent)


@pytest.mark.parametrize(
    ("environment", "overrides", "sentence"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {}, "give --precision=bf16, which is fp32 now"),
        (
            {"ACCELERATE_MIXED_PRECISION": "fp8"},
            {},
            "mixed_precision=fp8: --precision takes fp32, bf16, fp16",
        ),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, {}, "give --compile=fuse"),
        ({"ACCELERATE_USE_FSDP": "true"}, {}, "use_fsdp: give --backend.kind=deepspeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, {}, "use_megatron_lm"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, {}, "use_parallelism_config"),
        (DEEPSPEED, {}, "give --backend.kind=deepspeed --backend.zero=2"),
        (DEEPSPEED, ZERO_2 | {"backend.zero": "1"}, "--backend.zero=2"),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            ZERO_2,
            "zero_stage=3: --backend.zero takes 0, 1, 2",
        ),
        (DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "1.0"}, ZERO_2, "--optim.clip=1.0"),
        (DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "one"}, ZERO_2, "gradient_clipping=one"),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"},
            ZERO_2,
            "offload_param_device=cpu",
        ),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"},
            ZERO_2,
            "deepspeed_config_file",
        ),
        (
            DEEPSPEED | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
            ZERO_2,
            "gradient_accumulation_steps=4: leave it out, and give --batch.total",
        ),
    ],
)
def test_a_wish_that_the_recipe_does_not_hold_is_refused(
    environment: dict[str, str], overrides: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match="accelerate launch") as refused:
        check(environment, overrides)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "overrides"),
    [
        ({}, {}),
        ({}, {"precision": "bf16"}),  # accelerate's "no" is what it says unasked
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {"precision": "bf16"}),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, {"compile": "fuse"}),
        (DEEPSPEED, ZERO_2),
        (DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "1.0"}, ZERO_2 | {"optim.clip": "1"}),
        (DEEPSPEED | {"ACCELERATE_GRADIENT_CLIPPING": "auto"}, ZERO_2),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none"}, ZERO_2),
    ],
)
def test_a_wish_that_the_recipe_holds_is_granted(
    environment: dict[str, str], overrides: dict[str, str]
) -> None:
    check(environment, overrides)


def test_the_only_trace_of_accumulation_is_the_command_line() -> None:
    launch = ("python", "/venv/bin/accelerate", "launch")
    work = ("-m", "launcher", "train", "x")
    for asked in (
        ("--gradient_accumulation_steps", "4"),
        ("--gradient-accumulation-steps=4",),
    ):
        with pytest.raises(ConfigError, match="gradient_accumulation_steps=4"):
            check({}, {}, (*launch, *asked, *work))
        check({}, {}, (*launch, *work, *asked))
        check({}, {}, ("bash", *asked, *work))
    check({}, {}, (*launch, "--gradient_accumulation_steps", "1", *work))


@pytest.mark.parametrize(
    ("asked", "sentence", "environment", "overrides"),
    [
        ("--gradient_clipping=1.0", "--optim.clip=1.0", {}, {"optim.clip": "1"}),
        ("--num_processes=2", "but starts 1: give it --multi_gpu", {"WORLD_SIZE": "2"}, {}),
    ],
)
def test_of_other_options_too(
    asked: str, sentence: str, environment: dict[str, str], overrides: dict[str, str]
) -> None:
    command = ("python", "/venv/bin/accelerate", "launch", asked, "-m", "launcher", "train", "x")
    with pytest.raises(ConfigError, match=sentence):
        check({}, {}, command)
    check(environment, overrides, command)


def test_accelerate_s_default_configuration_file_is_not_ignored(tmp_path: Path) -> None:
    settings = tmp_path / "accelerate" / "default_config.yaml"
    settings.parent.mkdir()
    text = (ROOT / "cluster" / "accelerate-one-box.yaml").read_text()
    text = text.replace("mixed_precision: 'no'", "mixed_precision: bf16")
    settings.write_text(text.replace("num_processes: 8", "num_processes: 1"))
    command = ["accelerate", "launch", "-m", "launcher", "train", "cyclegan"]
    ended = subprocess.run(
        [*command, f"--run_dir={tmp_path}/run"],
        cwd=ROOT,
        env=environment() | {"HF_HOME": str(tmp_path)},
        text=True,
        capture_output=True,
    )
    assert ended.returncode == 1 and not (tmp_path / "run").exists()
    assert "give --precision=bf16, which is fp32 now" in ended.stderr, ended.stderr


@pytest.mark.parametrize("flag", ["--deepspeed", "--deepspeed_config=ds.json"])
def test_deepspeed_s_own_configuration_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match="give --backend.kind=deepspeed, --backend.zero=STAGE"):
        prepared(["train", "cyclegan", flag])
