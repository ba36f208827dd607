"""What `accelerate launch`, or its configuration file, was asked for must be what the recipe says.

accelerate tells its workers by variables, and of some options by nothing at all; a training loop of
its own would follow them. Ours follows the recipe, so a wish that differs is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from launcher.recipe.config import Config, ConfigError

NOTHING = ("", "no", "none", "false", "0")
ONE = (*NOTHING, "1")
PRECISIONS = ("bf16", "fp16")
STAGES = ("0", "1", "2")


def check(config: Config, environment: Mapping[str, str], parent: Sequence[str]) -> None:
    """Raise ConfigError for wishes that the recipe does not hold, each with the option that does.

    parent: the command line of the process that started this one."""
    found = list(contradictions(config, environment, parent))
    if found:
        raise ConfigError(
            "accelerate launch, or its default configuration file, asks for "
            f"{'; and for '.join(found)}."
        )


def contradictions(
    config: Config, environment: Mapping[str, str], parent: Sequence[str]
) -> Iterator[str]:
    asked = {name: text.lower() for name, text in environment.items()}
    precision = asked.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in (*NOTHING, *PRECISIONS):
        yield f"mixed_precision={precision}: --precision takes fp32, {', '.join(PRECISIONS)}"
    elif precision not in (*NOTHING, config.precision):
        yield f"mixed_precision={precision}: {remedy('precision', config.precision, precision)}"
    if asked.get("ACCELERATE_DYNAMO_BACKEND", "no") not in NOTHING and config.compile == "none":
        yield "a dynamo_backend: give --compile=fuse, or leave it out"
    if asked.get("ACCELERATE_USE_DEEPSPEED", "no") not in NOTHING:
        yield from contradictions_of_deepspeed(config, asked)
    for variable, name in (
        ("ACCELERATE_USE_FSDP", "use_fsdp"),
        ("ACCELERATE_USE_MEGATRON_LM", "use_megatron_lm"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "use_parallelism_config"),
    ):
        if asked.get(variable, "no") not in NOTHING:
            yield f"{name}: give --backend.kind=deepspeed --backend.zero=2 to share memory"
    num_steps = "gradient_accumulation_steps"
    steps = asked.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS") or untold(parent, num_steps)
    if steps not in ONE:
        yield (
            f"gradient_accumulation_steps={steps}: leave it out, and give --batch.total (images of "
            "a step) and --batch.micro (images that a process handles at a time)"
        )
    clip = asked.get("ACCELERATE_GRADIENT_CLIPPING") or untold(parent, "gradient_clipping")
    if clip not in ("", "none", "auto") and not same_number(clip, config.optim.clip or 0.0):
        yield f"gradient_clipping={clip}: {remedy('optim.clip', config.optim.clip, clip)}"
    processes, started = untold(parent, "num_processes"), asked.get("WORLD_SIZE", "1")
    if processes not in ("", started):
        yield (
            f"num_processes={processes}, but starts {started}: give it --multi_gpu, on CPUs too, "
            "and leave out --cpu"
        )


def contradictions_of_deepspeed(config: Config, asked: Mapping[str, str]) -> Iterator[str]:
    stage = asked.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", str(config.backend.zero))
    if stage not in STAGES:
        yield f"DeepSpeed at zero_stage={stage}: --backend.zero takes {', '.join(STAGES)}"
    elif (config.backend.kind, str(config.backend.zero)) != ("deepspeed", stage):
        ours = f"--backend.kind=deepspeed --backend.zero={stage}"
        yield f"DeepSpeed at zero_stage={stage}: give {ours}, or leave it out"
    for what in ("OPTIMIZER", "PARAM"):
        device = asked.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE", "none")
        if device not in NOTHING:
            yield f"offload_{what.lower()}_device={device}: leave it out, there is no offload"
    if asked.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        yield "a deepspeed_config_file: nothing reads it; give options of the recipe"


def same_number(text: str, ours: float) -> bool:
    try:
        return float(text) == ours
    except ValueError:
        return False


def remedy(option: str, ours: object, asked: str) -> str:
    return f"give --{option}={asked}, which is {ours} now, or leave it out"


def untold(parent: Sequence[str], wanted: str) -> str:
    """The value of an option of which `accelerate launch` tells its workers nothing, or does so
    under DeepSpeed alone; "" without it."""
    options = list(parent[: parent.index("launcher")] if "launcher" in parent else parent)
    if not any(Path(word).name.startswith("accelerate") for word in options):
        return ""
    for name, value in zip(options, [*options[1:], ""], strict=True):
        option, equals, text = name.replace("-", "_").partition("=")
        if option == f"__{wanted}":
            return text if equals else value
    return ""


def parent_command() -> list[str]:
    """The command line of the process that started this one; empty where it cannot be read."""
    try:
        return Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")[:-1]
    except (OSError, UnicodeDecodeError):
        return []
