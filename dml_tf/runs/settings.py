"""The settings of a run, as fields of a dataclass: name, type, default, help and range.

Each is declared here, once. A data set's defaults are in `flags/<dataset>.flags`, a scale's in
`flags/<scale>/<dataset>.flags`. Explicit settings override the scale's file, which overrides the
data set's file.
"""

import dataclasses
from collections.abc import Sequence

from dml_tf.data import AUGMENTATIONS, DATASETS, STREAMED_AUGMENTATIONS
from dml_tf.runs.values import Size

SCALES = ("smoke", "mini", "cpu", "paper")
METHODS = ("independent", "dml", "dml_e", "distill")

LARGEST = 1_000_000  # of numbers that have no limit of their own
MOST_STEPS = 2**31 - 1  # TensorFlow counts them in 32 bits


def _setting(default, help_text: str, choices: Sequence[str] = (), low=None, high=LARGEST):
    """A field; a number's range is finite, so that NaN and infinity lie outside."""
    return dataclasses.field(
        default=default,
        metadata={"help": help_text, "choices": tuple(choices), "low": low, "high": high},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The fields of a `Config`."""

    dataset: str = _setting("", "Data set; its flag file gives the other defaults.", DATASETS)
    scale: str = _setting("paper", "Scale of the experiment.", SCALES)
    data_dir: str = _setting("", "Folder or archive with the data. Generated data is made there.")
    strict: bool = _setting(
        False, "Refuse data of which anything would be skipped or converted (docs/reliability.md)."
    )
    net: tuple[str, ...] = _setting(
        (),
        "Networks, comma-separated, as resnet32, efficientnetb0 or my_module:my_network; one name "
        "serves all peers.",
    )
    cohort: int = _setting(0, "Number of peers; 0: one for each name in --net.", low=0, high=1000)
    method: str = _setting(
        "", "Default: dml for a cohort of two or more, else independent.", METHODS
    )
    update: str = _setting(
        "sequential",
        "Update peers in turn (Algorithm 1), or all from the same predictions (Sec. 4.5).",
        ("sequential", "simultaneous"),
    )
    mimicry: str = _setting(
        "kl", "Divergence of the mimicry loss: Eq. (4), Eq. (7) as printed, DKD or DIST "
        "(docs/peers.md).", ("kl", "js", "dkd", "dist"),
    )  # fmt: skip
    target: str = _setting(
        "each", "Who teaches: each peer (Eq. 10), the mean of their posteriors (Eq. 11) or of "
        "their logits, or KDCL's naive or min-logit target of all networks.",
        ("each", "mean", "logit_mean", "naive", "min_logit"),
    )  # fmt: skip
    standardise: bool = _setting(
        False, "Mimicry loss: give each network's logits mean 0 and deviation 1 over the classes."
    )
    peer_reduction: str = _setting(
        "mean", "Mean over the peers (Eq. 10), or sum, as in the authors' code.", ("mean", "sum")
    )
    ensemble_average: str = _setting(
        "probability", "dml_e: the teacher averages probabilities (Eq. 11), or logits.",
        ("probability", "logit"),
    )  # fmt: skip
    mimicry_weight: float = _setting(1.0, "Factor of the mimicry loss.", low=0.0)
    ramp_epochs: float = _setting(
        0.0, "Epochs in which the factor rises as exp(-5 (1 - t)^2); 0: it is whole at once.",
        low=0.0,
    )  # fmt: skip
    burn_in_epochs: float = _setting(0.0, "Epochs without the mimicry loss at the start.", low=0.0)
    stale_steps: int = _setting(
        0, "Learn from copies of the peers that are renewed every so many steps (codistillation); "
        "0: from the peers themselves.", low=0,
    )  # fmt: skip
    temperature: float = _setting(1.0, "Divisor of the logits in the mimicry loss.", low=1e-3)
    feature_weight: float = _setting(0.0, "Factor of the feature distance (Table 5, L2).", low=0.0)
    entropy_weight: float = _setting(0.0, "Factor of the confidence penalty (Table 5).", low=0.0)
    teacher: str = _setting(
        "", "distill: a .keras file or a run id. Default: the independent run of all networks but "
        "the last. dml: then the first network is this frozen teacher of the others.",
    )  # fmt: skip
    init: str = _setting(
        "goyal", "First weights: a small classifier and residual blocks that begin as the identity "
        "(Goyal et al. 2017), or only He's rule.",
        ("goyal", "he"),
    )  # fmt: skip
    pretrained: str = _setting(
        "",
        "Start from: imagenet (mobilenet, and networks of keras.applications), a run id, or a "
        ".keras or .weights.h5 file.",
    )
    optimizer: str = _setting(
        "sgd", "Optimizer (Sec. 4.1; Table 5's 'Entropy' is entropy_sgd).",
        ("sgd", "adam", "adamw", "rmsprop", "entropy_sgd"),
    )  # fmt: skip
    learning_rate: float = _setting(0.1, "Initial learning rate.", low=0.0, high=1e30)
    decay_epochs: int = _setting(0, "Epochs between drops of the rate; 0: no drops.", low=0)
    decay_rate: float = _setting(0.1, "Factor of each drop.", low=0.0, high=1.0)
    momentum: float = _setting(0.0, "Momentum; Nesterov's, but in rmsprop.", low=0.0, high=1.0)
    beta_1: float = _setting(0.9, "adam, adamw: decay of the first moment.", low=0.0, high=1.0)
    beta_2: float = _setting(0.999, "adam, adamw: decay of the second moment.", low=0.0, high=1.0)
    rho: float = _setting(0.9, "rmsprop: decay of the mean square.", low=0.0, high=1.0)
    epsilon: float = _setting(1e-7, "adam, adamw, rmsprop: added to the denominator.", low=0.0)
    mean_square_start: float = _setting(
        0.0, "rmsprop: initial mean square; 1 is TensorFlow 1's start.", low=0.0
    )
    langevin_steps: int = _setting(
        20, "entropy_sgd: Langevin steps for each move of the weights.", low=1
    )
    langevin_rate: float = _setting(0.1, "entropy_sgd: step size of the inner loop.", low=0.0)
    langevin_noise: float = _setting(1e-4, "entropy_sgd: thermal noise.", low=0.0)
    langevin_average: float = _setting(
        0.75, "entropy_sgd: share of the newest sample in their mean.", low=0.0, high=1.0
    )
    scope: float = _setting(0.03, "entropy_sgd: initial pull towards the weights.", low=0.0)
    scope_growth: float = _setting(1e-3, "entropy_sgd: growth of the pull with each move.", low=0.0)
    epochs: int = _setting(0, "Passes over the training images.", low=0)
    steps: int = _setting(
        0, "Training steps, in place of --epochs; 0: use --epochs.", low=0, high=MOST_STEPS
    )
    batch_size: int = _setting(64, "Images in a mini-batch, the same for all peers.", low=1)
    weight_decay: float = _setting(
        0.0, "Coupled L2 on kernels: gradient w x theta; with adamw decoupled.", low=0.0
    )
    decay_depthwise: bool = _setting(True, "Whether depthwise kernels have weight decay, too.")
    batch_norm_momentum: float = _setting(
        0.0, "BatchNorm: decay of its averages; 0: the networks' own.", low=0.0, high=1.0
    )
    batch_norm_epsilon: float = _setting(
        0.0, "BatchNorm: added to the variance; 0: each network's own.", low=0.0
    )
    dropout: float = _setting(0.0, "Rate of dropout before the classifier.", low=0.0, high=0.99)
    label_smoothing: float = _setting(0.0, "Label mass for all classes.", low=0.0, high=0.99)
    ema: float = _setting(
        0.0, "Decay of the averaged weights that are evaluated; 0: no averages.", low=0.0, high=1.0
    )
    ema_statistics: bool = _setting(
        False, "With --ema: average BatchNorm's statistics likewise. Otherwise they settle at the "
        "averaged weights, on 50 training batches.",
    )  # fmt: skip
    augment: str = _setting(
        "none", "Random flips; flips and reflect-padded crops; these and Keras's RandAugment; "
        "Inception's crops (ImageNet).",
        dict.fromkeys((*AUGMENTATIONS, *STREAMED_AUGMENTATIONS)),
    )  # fmt: skip
    own_views: bool = _setting(False, "Each peer has crops and flips of its own.")
    mixup: float = _setting(
        0.0, "Mix images and labels in pairs, by Keras's MixUp with this alpha; 0: no.",
        low=0.0, high=1.0,
    )  # fmt: skip
    image_size: Size = _setting(
        0, "Side of the images in pixels, or HEIGHTxWIDTH for re-identification; 0: the data's own."
    )
    stored_size: Size = _setting(
        0, "Re-identification: size in memory, from which a batch is resized to --image_size; 0: "
        "--image_size itself.",
    )  # fmt: skip
    train_images: int = _setting(
        0, "Number of training images, chosen by seed; 0: all.", low=0, high=10**9
    )
    validation_fraction: float = _setting(
        0.0, "Fraction of the training images for validation.", low=0.0, high=0.9
    )
    patience: int = _setting(
        0, "Stop after so many epochs without a better validation accuracy (mean of the peers), "
        "and keep the best epoch's weights; 0: never.", low=0,
    )  # fmt: skip
    watch_test: bool = _setting(
        False, "Also measure the test images after every epoch, for curves (Fig. 2a). Nothing is "
        "chosen by it.",
    )  # fmt: skip
    labelled_fraction: float = _setting(
        1.0,
        "Fraction of each class that has labels (Sec. 4.10).",
        low=0.0,
        high=1.0,
    )
    labelled_identities: int = _setting(
        0,
        "Re-identification: training identities with labels (Sec. 4.10); 0: all.",
        low=0,
    )
    unlabelled: str = _setting(
        "use",
        "Unlabelled images: use them in the mimicry loss, or drop them.",
        ("use", "drop"),
    )
    placement: str = _setting(
        "one",
        "one: all peers on one device. peers: one device, or with TF_CONFIG one process, for each "
        "peer. data: each peer on all devices, with a part of the batch on each.",
        ("one", "peers", "data"),
    )
    wait_minutes: float = _setting(
        5.0, "With TF_CONFIG: the longest wait for the other processes to start.", low=0.01,
    )  # fmt: skip
    precision: str = _setting(
        "float32",
        "Precision of the networks; weights, logits and losses stay float32. auto: the faster of "
        "float32 and mixed_bfloat16, by a short measurement.",
        ("float32", "mixed_float16", "mixed_bfloat16", "auto"),
    )
    jit_compile: str = _setting(
        "auto",
        "Compile the step with XLA; auto: on a GPU that holds all peers.",
        ("auto", "true", "false"),
    )
    steps_per_execution: int = _setting(
        0, "Training steps in one call of TensorFlow; it divides the steps of an epoch. 0: as many "
        "as take well under a second.", low=0,
    )  # fmt: skip
    save_minutes: float = _setting(
        5.0, "Minutes between checkpoints within an epoch; epochs that end are saved more often.",
        low=0.0,
    )  # fmt: skip
    seed: int = _setting(
        0, "Seed of initial weights, subset, order and augmentation.", low=0, high=2**63 - 1
    )
    max_memory_gb: float = _setting(
        0.0, "Refuse a run that needs more memory; 0: more than is free on this machine.", low=0.0
    )
    pictures_gb: float = _setting(
        0.5, "image_folder: pixels of up to so many GB (10^9 bytes) stay in memory; pictures of a "
        "larger set are decoded when they are needed, to the same batches.", low=0.0,
    )  # fmt: skip
    results_dir: str = _setting(
        "",
        "Folder for records and weights. Default: results/<scale>, or "
        "results/<name of data_dir> for your own pictures.",
    )
    features_out: str = _setting("", "Re-identification: .npz file for the test features.")
    analyse: bool = _setting(
        False, "Add weight noise, ranked posteriors and t-SNE to the record (Figs. 4 and 5)."
    )
    overwrite: bool = _setting(False, "Train again even if there is a record.")
