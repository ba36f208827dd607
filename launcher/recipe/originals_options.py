"""The options of the authors' code, and where their meaning lies here."""

from __future__ import annotations

RENAMED: dict[str, tuple[str, ...]] = {
    "lr_policy": ("schedule.kind",), "learning_rate": ("optim.lr",),
    "niter": ("schedule.constant",),
    "n_epochs": ("schedule.constant",), "niter_decay": ("schedule.decay",),
    "n_epochs_decay": ("schedule.decay",), "epochs": ("schedule.constant",),
    "num_epochs": ("schedule.constant",), "num_workers": ("data.workers",),
    "batchSize": ("batch.total",),
    "batch_size": ("batch.total",), "loadSize": ("data.preprocess.load_size",),
    "fineSize": ("data.preprocess.crop_size",), "resize_or_crop": ("data.preprocess.mode",),
    "preprocess": ("data.preprocess.mode",), "no_flip": ("data.preprocess.flip",),
    "nThreads": ("data.workers",), "num_threads": ("data.workers",),
    "serial_batches": ("data.order.shuffle",), "dataroot": ("data.shards",),
    "name": ("run_dir",), "checkpoints_dir": ("run_dir",), "load_pretrain": ("start_from",),
    "save_epoch_freq": ("cadence.save",), "save_latest_freq": ("cadence.save",),
    "print_freq": ("cadence.log",), "display_freq": ("cadence.pictures",),
    "update_html_freq": ("cadence.pictures",), "fp16": ("precision",), "amp": ("precision",),
    "netG": ("model.generator.kind", "model.stage"),
    "which_model_netG": ("model.generator.kind", "model.stage"),
    "netD": ("model.discriminator.kind",), "which_model_netD": ("model.discriminator.kind",),
    "n_layers_D": ("model.discriminator.num_layers", "model.num_layers"),
    "num_D": ("model.num_scales",), "n_downsample_global": ("model.num_downsamples",),
    "n_blocks_global": ("model.num_blocks",), "n_local_enhancers": ("model.num_enhancers",),
    "n_blocks_local": ("model.num_local_blocks",), "niter_fix_global": ("model.fix_global",),
    "label_nc": ("model.num_labels",), "no_instance": ("model.edges",),
    "instance_feat": ("model.encoder",), "label_feat": ("model.features_of",),
    "feat_num": ("model.feat_channels",),
    "nef": ("model.encoder_ngf",), "n_downsample_E": ("model.num_encoder_downsamples",),
    "no_ganFeat_loss": ("model.lambda_feat",), "no_vgg_loss": ("model.lambda_vgg",),
    "no_lsgan": ("model.gan_loss",), "gan_mode": ("model.gan_loss",),
    "which_direction": ("model.direction",), "no_dropout": ("model.generator.dropout",),
    "use_dropout": ("model.generator.dropout",),
    "input_nc": ("model.input_nc",), "output_nc": ("model.output_nc",),
}
"""Name there -> dotted names here, of which a recipe has one at most."""
WITHOUT: dict[str, str] = {
    "gpus": "start one process for each GPU: accelerate launch --multi_gpu --num_processes N",
    "gpu_ids": "start one process for each GPU: accelerate launch --multi_gpu --num_processes N",
    "continue_train": "the same command again resumes the run",
    "epoch_count": "the same command again resumes the run",
    "which_epoch": "give `translate` a checkpoint folder in place of the run",
    "load_iter": "give `translate` a checkpoint folder in place of the run",
    "phase": "give `pack` or `translate` --split", "isTrain": "the command says it",
    "results_dir": "give `translate` its OUT", "how_many": "give `translate` a folder of these",
    "num_test": "give `translate` a folder of these", "model": "the recipe says it: gan",
    "dataset_mode": "the recipe says it: gan", "display_id": "TensorBoard is in RUN/board",
    "no_html": "TensorBoard is in RUN/board", "tf_log": "TensorBoard is in RUN/board",
    "local_rank": "the launcher says it", "max_dataset_size": "pack a list of fewer files",
    "n_clusters": "give it to `features`: --num_clusters",
    "cluster_path": "give it to `translate`: --features=FILE",
    "use_encoded_image": "`translate` does so where there are photos",
    "aspect_ratio": "give --data.preprocess.load_size=[HEIGHT, WIDTH]",
}


def meant(option: str, known: list[str]) -> str | None:
    """What an option of the originals' is here: a dotted name among `known`, or a sentence."""
    here = next((name for name in RENAMED.get(option, ()) if name in known), None)
    return f"did you mean `{here}`?" if here else WITHOUT.get(option)
