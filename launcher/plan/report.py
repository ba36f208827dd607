"""The text of a plan: tables, and the assumptions behind them as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cluster.links import BETWEEN_NODES, BUCKET, EFFICIENCY, Hiding, Link, inside_node
from launcher.estimate.gpus import GIB, Card
from launcher.estimate.memory import FACTOR, FIXED, Work
from launcher.plan.expected_data import DECODE, SIZE, ExpectedData
from launcher.plan.step_time import COMPRESSED, LAUNCH, Fleet, Outlook, hiding_of, sent_share
from launcher.recipe.building import build
from launcher.recipe.config import Config
from launcher.status.monitoring import duration
from launcher.text.tables import table
from shards.records import size_text
from trainers.engine.tracing import fake_gpu

FLEETS = (64, 512)
"""Numbers of GPUs that are foretold besides the one asked for."""
HIDES_BEHIND: dict[Hiding, str] = {
    "nothing": "nothing: DeepSpeed's engines wait for them",
    "backward": "the rest of their own backward (DDP)",
    "phases": "the rest of their own backward and the later phases (backend.overlap=true)",
}


def heading(
    recipe: str, config: Config, gpu: str, fleet: Fleet, work: Work, data: ExpectedData
) -> str:
    """What is planned, in a few lines."""
    several = fleet.num_nodes > 1
    nodes = f"{fleet.num_nodes} nodes of {fleet.on_each_node}" if several else "one node"
    micro = f" in {work.num_micro} micro-batches" if work.num_micro > 1 else ""
    share = work.num_images * work.num_micro
    height, width = work.size
    return (
        f"{recipe} on {fleet.num_gpus} x {gpu}, {nodes}: floors and estimates, not measured on a "
        "GPU yet\n"
        f"{config.precision}, {width}x{height}, batch.total={config.batch.total}, {share} of "
        f"them on each GPU{micro}\n{data.origin}"
    )


def sections(outlook: Outlook) -> Iterator[str]:
    yield work_of_a_step(outlook)
    known = [card for card in outlook.cards if card.flops]
    if known:
        yield times(outlook, known)
        fastest = min(known, key=lambda card: outlook.floors(card).step)
        yield communication(outlook, fastest)
        yield data_rate(outlook, fastest)
    else:
        yield "Times: the speed of such a card is unknown: name one, --gpu=H200 for example."
    yield checkpoint(outlook)
    yield "Assumed:\n" + "\n".join(f"- {sentence}" for sentence in assumptions(outlook))


def work_of_a_step(outlook: Outlook) -> str:
    """FLOPs, traffic and kernels by phase and stage."""
    rows: list[tuple[str, str, int, int, int]] = []
    for part in outlook.costs.parts:
        flops, num_bytes = (sum(numbers) for numbers in zip(*part.kernels, strict=True))
        rows.append((part.phase, part.stage, flops, num_bytes, len(part.kernels)))
    columns = zip(*(row[2:] for row in rows), strict=True)
    flops, num_bytes, num_kernels = (sum(column) for column in columns)
    rows.append(("all", "", flops, num_bytes, num_kernels))
    cells = [
        [phase, stage, f"{flops / 1e12:.2f}", f"{num_bytes / 1e9:.1f}", str(num_kernels)]
        for phase, stage, flops, num_bytes, num_kernels in rows
    ]
    trained = outlook.costs.num_trained.items()
    sizes = ", ".join(f"{phase} {count / 1e6:.1f} M" for phase, count in trained)
    head = ["phase", "stage", "TFLOP", "GB moved", "kernels"]
    return f"A step of one GPU; parameters: {sizes}\n{table(head, cells)}"


def times(outlook: Outlook, cards: list[Card]) -> str:
    """A step by card, and what follows for an epoch and the whole run."""
    schedule = outlook.config.schedule
    num_images = schedule.constant + schedule.decay
    rows = []
    for card in cards:
        floors = outlook.floors(card)
        parts = (floors.arithmetic, floors.traffic, floors.kernels, floors.launches, floors.step)
        pace = outlook.config.batch.total / floors.step
        rows.append(
            [
                card.name,
                *map(milliseconds, parts),
                f"{pace:.1f}",
                duration(outlook.data.num_images / pace),
                duration(num_images / pace),
            ]
        )
    head = ["GPU", "arithmetic", "traffic", "kernel by kernel", "launches", "step"]
    head += ["images/s", "epoch", f"all {num_images} images"]
    return f"A step at the least, in ms, without communication\n{table(head, rows)}"


def communication(outlook: Outlook, card: Card) -> str:
    """All-reduces of the fleet and of larger ones, with and without compression."""
    rows = []
    for fleet, link in networks(outlook.fleet):
        row = [str(fleet.num_gpus), link.name if fleet.num_nodes > 1 else "(one node)"]
        for compress in COMPRESSED:
            found = outlook.synchronised(card, fleet, link, compress)
            row += [milliseconds(found.all_reduce), milliseconds(found.exposed)]
            row.append(f"{found.efficiency:.0%}")
        rows.append(row)
    head = ["GPUs", "between nodes", "fp32 ms", "exposed", "efficiency"]
    head += ["bf16 ms", "exposed", "efficiency"]
    inside = inside_node(card.nvlink).name
    nodes = f"{inside} inside nodes of {outlook.fleet.gpus_per_node}"
    what = "Gradients and weights (ZeRO)" if outlook.config.backend.zero else "Gradients"
    return (
        f"{what} of a step, {card.name}, {nodes}: {volume(outlook)}\n"
        f"{table(head, rows)}\n"
        f"They hide behind {HIDES_BEHIND[hiding_of(outlook.config.backend)]}."
    )


def networks(asked: Fleet) -> Iterator[tuple[Fleet, Link]]:
    """Fleets of full nodes and the links between these; one node needs none."""
    for num_gpus in sorted({asked.num_gpus, *FLEETS}):
        fleet = Fleet(num_gpus, asked.gpus_per_node)
        if fleet.even:
            links = BETWEEN_NODES if fleet.num_nodes > 1 else BETWEEN_NODES[:1]
            yield from ((fleet, link) for link in links)


def volume(outlook: Outlook) -> str:
    """MB by phase, as they are and compressed."""
    amounts = []
    for compress in COMPRESSED:
        backend = outlook.config.backend.model_copy(update={"compress": compress})
        megabytes = 4 * sent_share(backend, outlook.work.num_micro) / 1e6
        trained = outlook.costs.num_trained.items()
        amounts.append(", ".join(f"{n} {count * megabytes:.1f} MB" for n, count in trained))
    return f"{amounts[0]}; with backend.compress=bf16 {amounts[1]}"


def data_rate(outlook: Outlook, card: Card) -> str:
    """What a node must read and decode so that the fastest possible step never waits."""
    per_gpu = outlook.num_images / outlook.floors(card).step
    per_node = per_gpu * outlook.fleet.on_each_node
    data = outlook.data
    read = f"{per_node * data.sample_bytes / 1e6:.0f} MB/s read" if data.sample_bytes else ""
    cores = per_node * data.decode_seconds
    workers = math.ceil(per_gpu * data.decode_seconds)
    wishes = [f"{per_node:.1f} images/s", read, f"{cores:.1f} CPU cores to decode"]
    return (
        f"Data for the step at the least ({card.name}), on each node: "
        f"{', '.join(filter(None, wishes))}; data.workers={workers} for each GPU."
    )


def checkpoint(outlook: Outlook) -> str:
    """Its size: weights, Adam's two moments and the moving average, all in fp32."""
    with fake_gpu():
        gan = build(outlook.config)
        averaged = [gan.nets.get_submodule(path) for path in gan.ema]
        weights = sum(tensor.nbytes for tensor in gan.nets.state_dict().values())
        average = sum(t.nbytes for net in averaged for t in net.state_dict().values())
    moments = 8 * sum(outlook.costs.num_trained.values())
    size = weights + moments + (average if outlook.config.ema.halflife else 0)
    kept = outlook.config.cadence.keep_last
    return (
        f"A checkpoint has {size / 1e9:.2f} GB; cadence.keep_last={kept} of them "
        f"{kept * size / 1e9:.1f} GB."
    )


def assumptions(outlook: Outlook) -> Iterator[str]:
    """Everything that is not known from the recipe."""
    milli = DECODE * SIZE[0] * SIZE[1] * 1e3
    yield (
        f"Memory: the live tensors of a traced step with compile=none, {FACTOR - 1:.0%} for the "
        f"allocator and {FIXED / GIB:.0f} GiB for the context and workspaces."
    )
    yield (
        "Speeds are the data sheets' peaks. precision=fp32 is counted without TF32, with which "
        "torch's convolutions are faster by default where a card has it. Each kernel reads its "
        "inputs and writes its outputs once, nothing stays in caches, nothing is fused: "
        "`torch.compile` and CUDA graphs save traffic and launches."
    )
    yield (
        f"The host launches a kernel in {LAUNCH * 1e6:.0f} us; a stage of a step takes its kernels "
        "or its launches, whichever are longer. What only runs now and then is not counted: "
        "pictures, checkpoints, evaluation. Every phase trains all that it ever will."
    )
    yield (
        f"Links reach {EFFICIENCY:.0%} of their nominal speed and are free of other traffic; an "
        "all-reduce is a reduce-scatter and an all-gather inside the nodes and a ring or a tree, "
        "the faster one, between them. Hops take what NCCL's tuning table says; 30 us at 25 Gb."
    )
    yield (
        f"Gradients leave in buckets of {BUCKET >> 20} MiB as the last backward makes them, one "
        "bucket after the other. A narrow waist runs the critics' backwards inside the generator's "
        "forward: nothing hides there. Collectives take no time from the kernels they hide behind."
    )
    yield (
        "Other numbers of GPUs have the same images a GPU, so that batch.total grows with them; "
        "efficiency is the step without communication over the step with it."
    )
    yield (
        f"To read and decode a sample takes {milli:.0f} ms of a core at {size_text(SIZE)}, in "
        "proportion to its pixels (JPEG photos; PNG takes about twice as long)."
    )


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"
