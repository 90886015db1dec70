"""Every key of the configuration with its default.

A recipe in configs/ takes `base()` and changes what it needs. Keys and types are fixed by base().
What is registered from outside adds keys of its own (registry.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from uniface_jax import losses, models
from uniface_jax.data.input.augment import AUGMENTATIONS
from uniface_jax.files.paths import expanded
from uniface_jax.registry import Entry, Registry, import_parts
from uniface_jax.runtime.hooks import HOOKS

# Keys of paths, in which ~ is a home folder.
PATH_KEYS = (
    "data.train", "data.prepare", "eval.data", "finetune", "distill.teacher", "compilation_cache",
)  # fmt: skip


def base(imports: Sequence[str] = ()) -> ConfigDict:
    """Return the release's CASIA recipe without its data set.

    None means "as the named thing has it". imports: modules whose parts are registered first, so
    that their hyperparameters are keys; they become config.imports.

    >>> base().optim.lr
    0.1
    """
    import_parts(imports)
    config = ConfigDict()
    config.seed = 0  # of initialization, shuffling, augmentation, dropout and class sampling
    config.imports = tuple(imports)  # modules that register losses, networks, … from outside
    for add in (_data, _model, _loss, _head, _quality, _distill, _optim, _run, _hooks):
        add(config)
    for path, entry in parts_from_outside():
        section = config
        for key in path.split("."):
            section = section[key]
        section[entry.name] = ConfigDict(entry.defaults)
    return config


def _data(config: ConfigDict) -> None:
    """Add the data and what is done to its images."""
    config.data = ConfigDict()
    # What convert wrote, any source it reads, or synthetic:CLASSES:IMAGES; several by commas.
    config.data.train = ""
    # People of several sets: kept "apart", or joined "by_name" (sources.joined).
    config.data.people = "apart"
    # How often an epoch sees each image of each set, in their order: 0.5 sees half of them, others
    # in the next one; 2 sees each twice. () is all once.
    config.data.ratios = ()
    # Images of each class in an epoch: as there are ("none"), the same of all ("classes"), or by
    # the "square_root" of how many there are.
    config.data.balance = "none"
    config.data.class_cap = placeholder(int)  # the most images of a class in an epoch
    # Share of the images that exchange their labels by the seed, for experiments; 0 is none.
    config.data.label_noise = 0.0
    # What makes data.train where it is missing: NAME:FOLDER, of data.faces.preparation.
    config.data.prepare = ""
    # Leave out, in each epoch, the last images that fill no batch, as PyTorch's loader of that name
    # does: epochs are whole steps then.
    config.data.drop_last = False
    config.data.threads = 2  # that decode and augment
    config.data.decoders = "auto"  # or "threads", or "processes", one a thread
    # An image that cannot be used: "fail", or "skip": the next usable one stands in for it.
    config.data.on_error = "fail"
    # A resumed run finds other images in data.train: "fail", or "accept": go on with these.
    config.data.on_change = "fail"
    config.data.augment = ConfigDict()  # see data.augment.Augment
    config.data.augment.flip = True  # mirror half of the images
    config.data.augment.downscale = 0.0  # probability; insightface's 0.1
    config.data.augment.blur = 0.0  # probability; insightface's 0.2
    config.data.augment.colour = 0.0  # probability of hue and saturation; insightface's 0.2
    config.data.augment.grey = 0.0  # probability; insightface's 0.1
    config.data.augment.crop = 0.0  # at most this share of the side cut off
    config.data.augment.rotate = 0.0  # at most so many degrees
    config.data.augment.translate = 0.0  # at most so many pixels
    config.data.augment.scale = 0.0  # at most this fraction larger or smaller
    config.data.augment.brightness = 0.0  # at most this fraction of the range, added
    config.data.augment.contrast = 0.0  # at most this fraction more or less
    config.data.augment.erase = 0.0  # probability of a rectangle
    config.data.augment.mask = 0.0  # probability of a face mask over nose, mouth and chin


def _model(config: ConfigDict) -> None:
    """Add the network. Those from outside have embedding_size, dtype and keys of their own."""
    config.model = ConfigDict()
    config.model.name = "lresnet50"  # of models.NETWORKS
    config.model.stage_sizes = placeholder(tuple)  # blocks a stage
    config.model.width = 64  # channels of an IResNet's stem; stage k has width * 2**k
    config.model.embedding_size = 512  # D, the length of a feature
    config.model.stem_stride = 1  # 2 halves all maps of an IResNet: a quarter of the work
    config.model.dropout = placeholder(float)  # before an IResNet's last linear layer
    config.model.dtype = "float32"  # of the computation; parameters stay float32
    # How an IResNet trains: "plain", layer by layer; "folded", in fewer bytes (models.folded);
    # "auto" is folded on GPUs, else plain. A run keeps what it began with.
    config.model.kernels = "auto"
    config.model.remat = False  # recompute blocks in the backward pass: less memory, more time
    # Normalize by the running statistics in training too, and leave them as they are.
    config.model.frozen_statistics = False
    config.model.bn_momentum = 0.1  # weight of new statistics in the running ones
    config.model.vit = ConfigDict()  # of vit_t and its like; see models.vit.ViT
    config.model.vit.dim = placeholder(int)  # D of a token
    config.model.vit.depth = placeholder(int)  # blocks
    config.model.vit.heads = placeholder(int)  # of the attention
    config.model.vit.patch = placeholder(int)  # side of a patch, in pixels
    config.model.vit.mlp_ratio = placeholder(int)  # hidden size of a block's MLP, in dims
    config.model.vit.drop_path = placeholder(float)  # rate of the last block
    config.model.vit.mask_ratio = placeholder(float)  # share of tokens that training leaves out
    config.model.vit.mask_as_published = False  # leave out 10 % wherever mask_ratio is not 0
    config.model.vit.attention = "einsum"  # fused: "cudnn" (CUDA, bfloat16), "pallas" (TPU)
    # Of the factors of the blocks' linear layers in training, float8_e4m3fn or int8; sums: float32.
    config.model.vit.product_dtype = placeholder(str)
    config.model.kprpe = ConfigDict()  # of vit_kprpe_base and _small; see models.kprpe.KPRPE
    config.model.kprpe.dim = placeholder(int)  # D of a token
    config.model.kprpe.depth = placeholder(int)  # blocks
    config.model.kprpe.heads = placeholder(int)  # of the attention
    config.model.kprpe.patch = placeholder(int)  # side of a patch, in pixels
    config.model.kprpe.mlp_ratio = placeholder(int)  # hidden size of a block's MLP, in dims
    config.model.kprpe.drop_path = placeholder(float)  # rate of the last block
    config.model.kprpe.product_dtype = placeholder(str)  # as model.vit.product_dtype
    # Five landmarks an image: those of the "data", or the "template"'s for all.
    config.model.kprpe.landmarks = "data"
    config.model.mobilefacenet = ConfigDict()  # of mbf and mbf_large; see models.mobilefacenet
    config.model.mobilefacenet.blocks = placeholder(tuple)  # residual blocks a stage
    config.model.mobilefacenet.scale = placeholder(int)  # channels of the stem, in 64


def _loss(config: ConfigDict) -> None:
    """Add the loss. None is the loss's own default; those from outside have their own keys."""
    config.loss = ConfigDict()
    config.loss.name = "uce"  # of losses.LOSSES
    config.loss.scale = placeholder(float)  # s, by which cosines are multiplied
    config.loss.margin = placeholder(float)  # m, of the cosine or, for arcface, in radians
    config.loss.negative_weight = placeholder(float)  # λ of uce and bce
    config.loss.m1 = placeholder(float)  # factor of the angle: combined, sphereface…
    config.loss.m2 = placeholder(float)  # radians added to the angle: combined
    config.loss.m3 = placeholder(float)  # taken from the cosine: combined
    config.loss.interclass_filtering = placeholder(float)  # arcface, cosface, combined; 0 is off
    config.loss.gradient = placeholder(
        str
    )  # formula or detached: of losses with an angle, sphereface2
    config.loss.balance = placeholder(float)  # λ of sphereface2
    config.loss.exponent = placeholder(float)  # t of sphereface2
    config.loss.loss_weight = placeholder(float)  # sphereface2, sphereface_r
    config.loss.concentration = placeholder(float)  # h of adaface
    # Add USS (UniTSFace) to whichever loss it is: samples against the last feature of each class.
    config.loss.with_samples = False
    config.loss.sample_scale = placeholder(float)  # s of USS
    config.loss.sample_margin = placeholder(float)  # m of USS
    # Epochs of the classes' loss alone, in which the memory of features fills, before USS counts.
    config.loss.sample_after_epochs = placeholder(float)  # 1 where None
    config.loss.deviation = placeholder(float)  # σ of the margins of elastic_arc and its like
    # Deal out the margins of elastic_arc_plus and elastic_cos_plus as the release's code does.
    config.loss.as_published = placeholder(bool)
    config.loss.low_norm = placeholder(float)  # magface: of the smallest margin
    config.loss.high_norm = placeholder(float)  # magface: of the largest margin
    config.loss.low_margin = placeholder(float)  # radians, magface
    config.loss.high_margin = placeholder(float)  # radians, magface
    config.loss.norm_weight = placeholder(float)  # λ_g of magface: draws norms up
    config.loss.expectation_margin = placeholder(float)  # m2 of pco, against class expectations
    # Mean of squared cosines beyond which pco takes expectations, and beyond which all classes.
    config.loss.expectation_after = placeholder(float)
    config.loss.all_classes_after = placeholder(float)  # as the key before, the later switch of pco


def _head(config: ConfigDict) -> None:
    """Add the head."""
    config.head = ConfigDict()
    config.head.sampling_rate = 1.0  # r, the share of classes in each step
    # w of UNPG: negative pairs of samples, but outliers, are logits of every row; None: none are.
    config.head.pair_whisker = placeholder(float)
    config.head.subcentres = 1  # K prototypes a class, of whose cosines the largest counts
    # Standard deviation of the prototypes before training; 1/sqrt(embedding_size) where None.
    config.head.init_std = placeholder(float)  # insightface's 0.01
    # MiB for the block of classes in work. The kernel of uce, bce and USS on CPUs has blocks of its
    # own.
    config.head.block_memory = placeholder(float)
    # Of the factors of matrix products, bfloat16, float8_e4m3fn or int8 too; sums are float32.
    config.head.product_dtype = "float32"


def _quality(config: ConfigDict) -> None:
    """Add the head that learns an image's quality; see head/quality."""
    config.quality = ConfigDict()
    # λ of CR-FIQA's regression beside the loss; the paper's is 10, and 0 is without such a head.
    config.quality.weight = 0.0
    config.quality.beta = 0.5  # β of smooth L1, below which the distance is squared
    # Targets as in the release's code: own / nearest rather than own / (nearest + 1).
    config.quality.as_published = False


def _distill(config: ConfigDict) -> None:
    """Add the teacher, to whose features those of the network are drawn; see head/distillation."""
    config.distill = ConfigDict()
    config.distill.teacher = ""  # a workdir, one of its checkpoints/STEP, or an ONNX file
    # cosine: 1 - cos(student, teacher) beside the loss; centers: AdaDistill, in which the loss has
    # class centers of the teacher's features in place of learned prototypes.
    config.distill.method = "cosine"
    config.distill.weight = 128.0  # of 1 - cos(student, teacher), of method "cosine"
    config.distill.input_scale = "auto"  # pixels of an ONNX file: unit, raw or zero_one
    config.distill.channel_order = "auto"  # or rgb, bgr
    config.distill.output_name = ""  # of an ONNX file's features, where it has several outputs


def _optim(config: ConfigDict) -> None:
    """Add the optimizer and its schedule."""
    config.optim = ConfigDict()
    config.optim.lr = 0.1  # learning rate, the highest one of the schedule
    config.optim.name = "sgd"  # or adamw, lamb, muon
    config.optim.momentum = 0.9  # of sgd, and of muon's matrices
    config.optim.beta1 = 0.9  # of adamw, lamb and muon: of the first moment
    config.optim.beta2 = 0.999  # of the second moment
    config.optim.eps = 1e-8  # beside the root of the second moment
    config.optim.weight_decay = 5e-4  # of all weights, biases and slopes
    # coupled: added to the gradient; decoupled: weights shrink by lr * weight_decay; auto: coupled
    # for sgd, decoupled for the others.
    config.optim.decay = "auto"
    config.optim.decay_on = "all"  # or matrices: arrays of two axes or more
    config.optim.decays = ""  # PATTERN=DECAY,…: instead of weight_decay, of parameters by name
    config.optim.clip = 10.0  # of the gradient's norm
    config.optim.clip_on = "all"  # or network: its gradient by its own norm, the head's not at all
    config.optim.ema = 0.0  # decay of the mean of the network's weights, kept beside; 0: none
    # PATTERN=FACTOR,…: of the learning rate of parameters by name; 0 freezes. config/multipliers.py
    config.optim.multipliers = ""
    config.optim.schedule = "steps"  # how the learning rate falls: or polynomial, cosine, constant
    config.optim.milestones = (16, 24)  # epochs, of schedule "steps"
    config.optim.factor = 0.1  # at each milestone
    config.optim.power = 2.0  # of schedule "polynomial"
    config.optim.warmup_epochs = 0.0  # from 0, linearly; of every schedule but "steps"
    config.optim.warmup_steps = placeholder(int)  # instead of warmup_epochs
    # Take the first step at the full rate, before the warm-up, as arcface_torch's code does.
    config.optim.as_published = False  # of schedule "polynomial"


def _run(config: ConfigDict) -> None:
    """Add the run: its length, and what happens beside the steps."""
    config.batch_size = 512  # over all devices
    config.micro_batches = 4  # on each device; batch norm sees batch_size/devices/micro_batches
    config.epochs = 28.0  # passes over the training set, fractions too
    config.steps = placeholder(int)  # instead of epochs
    config.parallel = "auto"  # pmap in one process, shard_map in several
    config.finetune = ""  # workdir or checkpoint whose network (and matching head) is the start

    config.eval = ConfigDict()
    config.eval.data = ""  # .bin files, tables, folders of them, lists of pairs; by commas
    config.eval.every_steps = 2000  # and after the last step
    config.eval.batch_size = 64  # images embedded at a time

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 2000  # and after the last step
    config.checkpoint.keep = 3  # the last ones, and the best by ROC-AUC beside them

    config.log = ConfigDict()
    config.log.every_steps = 100  # and after the last step

    config.nonfinite = ConfigDict()  # a loss or gradient that is not finite
    config.nonfinite.action = "stop"  # or "skip": leave the state as it was, count, continue
    config.nonfinite.limit = 20  # skipped steps in a row that stop the run after all

    config.watchdog_seconds = 1800.0  # without any progress end the run; 0 is never

    config.profile = ""  # "10:15" traces steps 10 to 14 into workdir/profile
    config.compilation_cache = "auto"  # the user's cache folder; another folder; "" for none

    config.debug = ConfigDict()
    config.debug.nans = False  # stop where the first NaN is computed, naming the operation; slow
    config.debug.checks = False  # check values inside the step (labels, features, prototypes…)


def _hooks(config: ConfigDict) -> None:
    """Add what is told of the run: trackers beside TensorBoard, and hooks from outside."""
    config.hooks = ConfigDict()
    config.hooks.names = ()  # of runtime.hooks.HOOKS: wandb, mlflow, and those from outside
    config.hooks.wandb = ConfigDict()  # Weights & Biases, in workdir/wandb
    config.hooks.wandb.project = "uniface_jax"  # of W&B, in which runs are listed
    config.hooks.wandb.mode = "offline"  # or "online": as W&B's own settings say
    config.hooks.mlflow = ConfigDict()
    config.hooks.mlflow.experiment = "uniface_jax"  # of MLflow, in which runs are listed
    config.hooks.mlflow.uri = ""  # of a tracking server; workdir/mlflow.db where empty


def parts_from_outside() -> Iterator[tuple[str, Entry[Any]]]:
    """Give every part from outside that has config keys, behind the section they stand in."""
    registries: Sequence[Registry[Any]] = (AUGMENTATIONS, models.REGISTRY, losses.LOSSES, HOOKS)
    for registry in registries:
        for entry in registry.from_outside():
            yield registry.section, entry


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Return every key by its dotted path, {"optim.lr": 0.1, …}, tuples as lists, as JSON has."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, tree: Mapping[str, Any]) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = list(value) if isinstance(value, tuple) else value

    walk("", config.to_dict())
    return flat


def completed(values: Mapping[str, Any]) -> ConfigDict:
    """Return base() with `values`, nested as a config is, laid over it: what they lack is default.

    Keys that base() does not have stay, for those who know them. In paths a ~ becomes the home
    folder.
    """
    config = base(tuple(values.get("imports") or ()))
    with config.unlocked():
        config.update(values)
    for key in PATH_KEYS:
        section, _, name = key.rpartition(".")
        holder = config[section] if section else config
        if isinstance(holder[name], str):
            holder[name] = expanded(holder[name])
    return config
