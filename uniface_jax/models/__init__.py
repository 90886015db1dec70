"""Networks by name, with one signature for all of them; register_network adds one.

A network maps images [B, 112, 112, 3], float in [-1, 1], RGB, to features [B, D]:
`network.apply(variables, images, train=False)`. One that takes landmarks (takes_landmarks) is given
those of each image too, `landmarks=` [B, 5, 2].
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.errors import UserError
from uniface_jax.models.iresnet import IResNet, kaiming_linear
from uniface_jax.models.kprpe import KPRPE, create_kprpe
from uniface_jax.models.kprpe import VARIANTS as KPRPES
from uniface_jax.models.layers import BatchNorm, PReLU
from uniface_jax.models.mobilefacenet import VARIANTS as MOBILEFACENETS
from uniface_jax.models.mobilefacenet import MobileFaceNet, create_mobilefacenet
from uniface_jax.models.outside import Outside
from uniface_jax.models.vit import VARIANTS as VITS
from uniface_jax.models.vit import ViT, create_vit
from uniface_jax.registry import Range, Registry

__all__ = [
    "FAMILIES", "IMAGE_SIZE", "KPRPE", "NETWORKS", "REGISTRY", "IResNet", "Marks", "MobileFaceNet",
    "Network", "NetworkFactory", "ViT", "create", "create_iresnet", "family", "features",
    "initialize", "marks", "normalize", "register_network", "takes_landmarks", "train_forward",
]  # fmt: skip

Tree = Any

_RELEASE: Mapping[str, Any] = dict(
    strided_kernel=2, shortcut_kernel=2, tail_bias=False, zero_last_scale=True,
    kernel_init=kaiming_linear, dropout=0.4,
)  # fmt: skip
_INSIGHTFACE: Mapping[str, Any] = dict(
    strided_kernel=3, shortcut_kernel=1, tail_bias=True, zero_last_scale=False,
    kernel_init=nn.initializers.normal(0.1), dropout=0.0,
)  # fmt: skip

# Name -> (the family's settings, blocks in each of the four stages).
NETWORKS: Mapping[str, tuple[Mapping[str, Any], tuple[int, ...]]] = {
    "lresnet18": (_RELEASE, (2, 2, 2, 2)),
    "lresnet50": (_RELEASE, (3, 4, 14, 3)),
    "lresnet100": (_RELEASE, (3, 13, 30, 3)),
    "lresnet200": (_RELEASE, (3, 33, 60, 3)),
    "iresnet18": (_INSIGHTFACE, (2, 2, 2, 2)),
    "iresnet34": (_INSIGHTFACE, (3, 4, 6, 3)),
    "iresnet50": (_INSIGHTFACE, (3, 4, 14, 3)),
    "iresnet100": (_INSIGHTFACE, (3, 13, 30, 3)),
    "iresnet200": (_INSIGHTFACE, (6, 26, 60, 6)),
}


# Family of the networks that come with this package, of which config.model has a section of its
# own but for "iresnet", whose keys are config.model's -> names of its networks.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "iresnet": tuple(NETWORKS),
    "vit": tuple(VITS),
    "kprpe": tuple(KPRPES),
    "mobilefacenet": tuple(MOBILEFACENETS),
}


def family(name: str) -> str:
    """Return the family of the network `name`, of FAMILIES; "" for one from outside.

    Raises UserError for a name that is not known.
    """
    REGISTRY.entry(name, f"model.name={name!r}")
    return next((family for family, names in FAMILIES.items() if name in names), "")


class Network(Protocol):
    """Network that trains and embeds: an IResNet, or a module from outside in its adapter."""

    @property
    def embedding_size(self) -> int:
        """Return D, the size of a feature."""

    def init(self, rngs: Any, images: jax.Array, *, train: bool) -> Any:
        """Return the first variables, as nn.Module.init does."""

    def apply(
        self,
        variables: Mapping[str, Any],
        images: jax.Array,
        *,
        train: bool,
        mutable: Any = False,
        rngs: Any = None,
    ) -> Any:
        """Return the features of images [B, 112, 112, 3], as nn.Module.apply does."""


class NetworkFactory(Protocol):
    """Takes embedding_size: int, dtype: DTypeLike and hyperparameters by keyword; gives a module.

    The module maps images [B, 112, 112, 3], float32 in [-1, 1], RGB, to features
    [B, embedding_size]; `dtype` is that of the computation, parameters are float32.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Return the module."""


Factory = TypeVar("Factory", bound=NetworkFactory)

_FIELDS = tuple(field.name for field in fields(IResNet))
REGISTRY: Registry[NetworkFactory] = Registry(
    "network",
    "model",
    given=("embedding_size", "dtype"),
    reserved=(*_FIELDS, "bn_momentum", "kernels", *FAMILIES),
)


def register_network(name: str, **ranges: Range) -> Callable[[Factory], Factory]:
    """Return a decorator that registers a Flax module, or a function that makes one, as `name`.

    It is chosen by --config.model.name=NAME, is given model.embedding_size and model.dtype, and its
    hyperparameters are the config's keys model.NAME.KEY. Batch statistics of Flax's nn.BatchNorm
    move by its own momentum, once a step, by the mean over all micro-batches and devices;
    those of models.layers.BatchNorm move by model.bn_momentum.

    Args:
        name: Lower-case letters, digits and underscores.
        **ranges: The Range of each hyperparameter, by its name in the signature.

    Raises:
        UserError: At what is decorated, for a name that is taken, or a hyperparameter without a
            default or range.

    >>> import flax.linen as nn
    >>> from jax.typing import DTypeLike
    >>> from uniface_jax import Range, register_network
    >>> @register_network("doc_linear", bias=Range("True or False", lambda b: isinstance(b, bool)))
    ... class DocLinear(nn.Module):
    ...     embedding_size: int
    ...     dtype: DTypeLike
    ...     bias: bool = True
    ...
    ...     @nn.compact
    ...     def __call__(self, images):
    ...         flat = images.reshape(len(images), -1)
    ...         return nn.Dense(self.embedding_size, self.bias, dtype=self.dtype)(flat)
    >>> from uniface_jax.models import create
    >>> create("doc_linear", embedding_size=64, bias=False).embedding_size
    64
    """
    return REGISTRY.decorator(name, ranges)


def create(name: str, **overrides: Any) -> Network:
    """Return the network `name` with fields or hyperparameters replaced (None: the default).

    Args:
        name: One of REGISTRY.
        **overrides: Fields of IResNet, ViT, KPRPE or MobileFaceNet for the networks of FAMILIES;
            embedding_size, dtype and its own hyperparameters for one from outside.

    Returns:
        A network from images [B, 112, 112, 3] in [-1, 1] to features [B, embedding_size].

    Raises:
        UserError: For a name that is not known, and for what is no such network (Outside.checked).

    >>> from uniface_jax import models
    >>> models.create("lresnet18", embedding_size=256).embedding_size
    256
    """
    entry = REGISTRY.entry(name, f"model.name={name!r}")
    if entry.builtin:
        network: Any = entry.part(**overrides)
        return cast(Network, network)
    given = {key: value for key, value in overrides.items() if value is not None}
    size = given.pop("embedding_size", 512)
    dtype = jnp.dtype(given.pop("dtype", jnp.float32))
    values = entry.checked(given, f"model.{name}.")
    module = entry.part(embedding_size=size, dtype=dtype, **values)
    if not isinstance(module, nn.Module):
        made = type(module).__name__
        raise UserError(f"model.name={name!r}: made a {made}; expected a flax.linen.Module")
    return Outside(name, module, size).checked(IMAGE_SIZE)


def create_iresnet(name: str, **overrides: Any) -> IResNet:
    """Return the network `name` of NETWORKS with fields of IResNet replaced by `overrides`."""
    family, stage_sizes = NETWORKS[name]
    given = {key: value for key, value in overrides.items() if value is not None}
    return IResNet(**{**family, "stage_sizes": stage_sizes, **given})


_FACTORIES: Mapping[str, Callable[..., nn.Module]] = {
    "iresnet": create_iresnet, "vit": create_vit, "kprpe": create_kprpe,
    "mobilefacenet": create_mobilefacenet,
}  # fmt: skip
for _family, _names in FAMILIES.items():
    for _name in _names:
        REGISTRY.add(_name, partial(_FACTORIES[_family], _name), builtin=True)


def normalize(images: jax.Array) -> jax.Array:
    """Return uint8 images in 0..255 as float32 in [-1, 1]: (x - 127.5) / 127.5."""
    return (images.astype(jnp.float32) - 127.5) / 127.5


def initialize(network: Network, key: jax.Array) -> tuple[Tree, Tree]:
    """Return random parameters and neutral statistics (mean 0, variance 1): (params, batch_stats).

    batch_stats is {} for a network without any.
    """
    images = jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3))
    variables = network.init(key, images, train=False)
    return variables["params"], variables.get("batch_stats", {})


def takes_landmarks(network: Network) -> bool:
    """Return True for a network whose features depend on each image's own landmarks.

    >>> takes_landmarks(create("vit_kprpe_base")), takes_landmarks(create("vit_b"))
    (True, False)
    """
    return bool(getattr(network, "takes_landmarks", False))


def features(
    network: Network,
    variables: Mapping[str, Any],
    images: jax.Array,
    landmarks: jax.Array | None = None,
) -> jax.Array:
    """Return the features [B, D] of images [B, 112, 112, 3] in [-1, 1], as at test time.

    landmarks: [B, 5, 2], for a network that takes them.
    """
    found: jax.Array = network.apply(variables, images, train=False, **_given(landmarks))
    return found


def train_forward(
    network: Network,
    variables: Mapping[str, Tree],
    images: jax.Array,
    dropout_key: jax.Array,
    landmarks: jax.Array | None = None,
) -> tuple[jax.Array, Tree]:
    """Return features [B, D] in training, and the batch statistics as the network updates them.

    variables: {"params": …, "batch_stats": …}, the latter {} where the network has none.
    landmarks: [B, 5, 2], for a network that takes them.
    """
    found, updated = network.apply(
        variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key},
        **_given(landmarks),
    )  # fmt: skip
    return found, updated.get("batch_stats", {})


def _given(landmarks: jax.Array | None) -> dict[str, jax.Array]:
    return {} if landmarks is None else {"landmarks": landmarks}


class Marks(NamedTuple):
    """Which variables of a network are treated apart in training, as trees of bool.

    folded, of batch_stats' form: True for the statistics of layers.BatchNorm, which are those of
    one batch and are folded into the running ones by the step. All others, such as Flax's
    nn.BatchNorm's, come out of their layer as running ones already.
    slopes, of params' form: True for the slopes of layers.PReLU, which are kept positive.
    """

    folded: Tree
    slopes: Tree


def marks(network: Network) -> Marks:
    """Return the marks of the network's variables, found by a look at one run; nothing computes."""
    places: dict[type[nn.Module], set[tuple[str, ...]]] = {BatchNorm: set(), PReLU: set()}

    def look(following: Any, given: Any, named: Any, context: Any) -> Any:
        if type(context.module) in places:
            places[type(context.module)].add(tuple(context.module.path))
        return following(*given, **named)

    def mark(tree: Tree, kind: type[nn.Module]) -> Tree:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: tuple(getattr(key, "key", key) for key in path[:-1]) in places[kind],
            tree,
        )

    with nn.intercept_methods(look):
        params, batch_stats = jax.eval_shape(lambda: initialize(network, jax.random.key(0)))
    return Marks(mark(batch_stats, BatchNorm), mark(params, PReLU))
