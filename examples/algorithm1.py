"""Deep Mutual Learning (Zhang et al., CVPR 2018), Algorithm 1 in one file, for reading.

Run it with `python examples/algorithm1.py`. It takes less than a minute on one core.

Two small networks learn to read the handwritten digits that scikit-learn ships. First each learns
alone, then both learn together from the same initial weights. Numbers of equations and lines are
the paper's. Nothing of the package dml_tf is used here. The package's `Cohort` makes the same step
with fewer forward passes, and a test holds the weights of both equal, bit for bit.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow is to report errors only

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

CLASSES = 10
TRAINING_IMAGES = 512  # few, so that there is something left to learn from a peer
BATCH_SIZE = 32
EPOCHS = 15
SEEDS = (0, 1, 2)


# Data and networks


def load_data():
    """Training and test parts, each `(images, labels)`; images are `(count, 8, 8, 1)` in [0, 1]."""
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    labels = digits.target.astype("int64")
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]
    return (images[train], labels[train]), (images[test], labels[test])


def convolutional(seed):
    """A network of two convolutions, 5,130 parameters. It returns logits.

    There is no BatchNorm and no dropout here, so a forward pass changes nothing in the network.
    """
    weights = keras.initializers.HeNormal(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", kernel_initializer=weights),
            keras.layers.Conv2D(32, 3, activation="relu", kernel_initializer=weights),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(CLASSES, kernel_initializer=weights),
        ],
        name="convolutional",
    )


def dense(seed):
    """A network of one hidden layer, 2,410 parameters. It returns logits."""
    weights = keras.initializers.HeNormal(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", kernel_initializer=weights),
            keras.layers.Dense(CLASSES, kernel_initializer=weights),
        ],
        name="dense",
    )


def build_networks(seed):
    """Theta_1 and Theta_2, initialised to different conditions."""
    return convolutional(2 * seed), dense(2 * seed + 1)


def build_optimizer():
    """Nesterov's SGD, one for each network."""
    return keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)


# The losses of Sec. 3.1. The paper sums over the images of a batch; these are means.


def log_posterior(logits):
    """Logarithm of the class posterior p, Eq. (1)."""
    return tf.nn.log_softmax(logits)


def cross_entropy(labels, logits):
    """The supervised loss L_C of a student, Eqs. (2) and (3)."""
    log_q = log_posterior(logits)
    return tf.reduce_mean(-tf.reduce_sum(tf.one_hot(labels, CLASSES) * log_q, axis=1))


def kl_divergence(log_p, logits):
    """The mimicry loss D_KL(p || q), Eq. (4): p is the peer's posterior, q the student's."""
    log_q = log_posterior(logits)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=1))


# Algorithm 1


def make_mutual_step(network_1, network_2, optimizer_1, optimizer_2):
    """The body of Algorithm 1's loop, a function of one mini-batch `(x, labels)`."""

    @tf.function(autograph=False)
    def step(x, labels):
        # "Compute predictions p1 and p2 by (1)." Outside of a tape they are constants.
        log_p1 = log_posterior(network_1(x, training=True))
        log_p2 = log_posterior(network_2(x, training=True))

        # Line 1: "Compute the stochastic gradient and update Theta_1", Eq. (8), with the loss of
        # Eq. (5). The paper prints a plus sign in Eq. (8); gradient descent has a minus sign.
        with tf.GradientTape() as tape:
            logits_1 = network_1(x, training=True)
            loss_1 = cross_entropy(labels, logits_1) + kl_divergence(log_p2, logits_1)
        weights_1 = network_1.trainable_variables
        optimizer_1.apply(tape.gradient(loss_1, weights_1), weights_1)

        # Line 2: "Update the predictions p1 of x by (1)", with the new weights.
        log_p1 = log_posterior(network_1(x, training=True))

        # Line 3: "Compute the stochastic gradient and update Theta_2", Eq. (9), with the
        # loss of Eq. (6). The peer's prediction is the refreshed one.
        with tf.GradientTape() as tape:
            logits_2 = network_2(x, training=True)
            loss_2 = cross_entropy(labels, logits_2) + kl_divergence(log_p1, logits_2)
        weights_2 = network_2.trainable_variables
        optimizer_2.apply(tape.gradient(loss_2, weights_2), weights_2)

        # Line 4: "Update the predictions p2 of x by (1)." Nobody would use them: the next
        # mini-batch holds other images.

    return step


def make_independent_step(network_1, network_2, optimizer_1, optimizer_2):
    """The same for two networks that learn alone, from the labels only."""

    @tf.function(autograph=False)
    def step(x, labels):
        for network, optimizer in ((network_1, optimizer_1), (network_2, optimizer_2)):
            with tf.GradientTape() as tape:
                loss = cross_entropy(labels, network(x, training=True))
            weights = network.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)

    return step


# Training


def batches(images, labels, seed, epoch):
    """The mini-batches of one epoch, in an order that only seed and epoch decide."""
    order = np.random.default_rng([seed, epoch]).permutation(len(images))
    for start in range(0, len(order), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield tf.constant(images[chosen]), tf.constant(labels[chosen])


def accuracy(network, images, labels):
    """Percent of images whose most probable class is the label."""
    return 100 * np.mean(np.argmax(network(images), axis=1) == labels)


def train(make_step, seed, train_part, test_part):
    """Trains two new networks; yields the test accuracy of each after every epoch."""
    networks = build_networks(seed)
    step = make_step(*networks, build_optimizer(), build_optimizer())
    for epoch in range(EPOCHS):
        for x, labels in batches(*train_part, seed, epoch):
            step(x, labels)
        yield [accuracy(network, *test_part) for network in networks]


def train_both_ways(seed, train_part, test_part):
    """Test accuracy after the last epoch: row 0 independent, row 1 mutual."""
    alone = train(make_independent_step, seed, train_part, test_part)
    together = train(make_mutual_step, seed, train_part, test_part)
    history = []
    for epoch, (independent, mutual) in enumerate(zip(alone, together, strict=True), start=1):
        print(
            f"seed {seed}, epoch {epoch:2} of {EPOCHS}:  independent {independent[0]:5.1f}"
            f" {independent[1]:5.1f}   mutual {mutual[0]:5.1f} {mutual[1]:5.1f}",
            flush=True,
        )
        history.append((independent, mutual))
    return history[-1]


def print_table(found):
    """The comparison; `found` has the axes seed, method and network."""
    independent, mutual = found[:, 0], found[:, 1]
    print(f"\nTest accuracy in percent, mean and standard deviation of {len(found)} seeds:\n")
    print(f"{'network':15}{'independent':>15}{'mutual':>15}{'gain':>15}")
    for i, network in enumerate(build_networks(seed=0)):
        row = f"{network.name:15}"
        for values in (independent[:, i], mutual[:, i], mutual[:, i] - independent[:, i]):
            row += f"{values.mean():8.2f} ± {values.std(ddof=1):4.2f}"
        print(row)
    print(
        f"\n{len(found)} seeds of so small a data set do not decide whether mutual learning helps."
    )


def main():
    """Trains with every seed and prints the comparison."""
    train_part, test_part = load_data()
    print("Test accuracy in percent, of the convolutional and of the dense network:\n")
    print_table(np.array([train_both_ways(seed, train_part, test_part) for seed in SEEDS]))


if __name__ == "__main__":
    main()
