"""The model card of a deployed network: Markdown with Hugging Face's metadata, from the record."""

import json
import math
from collections.abc import Sequence

from scipy import stats

from dml_tf.data import STREAMED_DATASETS
from dml_tf.data.pictures import EVALUATED
from dml_tf.tools.trial import Row, int8_changes

_PAPER = "https://arxiv.org/abs/1706.00384"
_USE = {
    ".keras": """import keras

model = keras.saving.load_model("{file}")
probabilities = model.predict(pixels)[0]""",
    "": """import tensorflow as tf

model = tf.saved_model.load("{file}")
probabilities = model.serve(pixels).numpy()[0]""",
    ".tflite": """from ai_edge_litert.interpreter import Interpreter  # pip install ai-edge-litert

model = Interpreter("{file}").get_signature_runner()
probabilities = model(pixels=pixels)["output_0"][0]""",
    ".onnx": """import onnxruntime

model = onnxruntime.InferenceSession("{file}")
probabilities = model.run(None, {{"pixels": pixels}})[0][0]""",
}


def text(record: dict, peer: str, rows: Sequence[Row], images: int) -> str:
    """A card.

    Args:
        record: Of the run.
        peer: The network that was deployed, or `ensemble`.
        rows: The cohort, the network in Keras, then the files, as they were measured.
        images: How many test images they were tried on.
    """
    return "\n".join(
        [
            *_metadata(record, peer),
            *_introduction(record, peer),
            *_accuracies(record),
            *_files(rows, images),
            *_use(record, rows),
            *_limits(record),
        ]
    )


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's 95% interval of an accuracy over test images, as fractions.

    Example:
        >>> [round(end, 3) for end in interval(0.5, 100)]
        [0.404, 0.596]
    """
    found = stats.binomtest(round(accuracy * images), images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _measures(record: dict, peer: str) -> dict:
    return record["test"]["ensemble"] if peer == "ensemble" else record["test"]["peers"][peer]


def _metadata(record: dict, peer: str) -> list[str]:
    """Hugging Face's front matter; JSON is YAML, too."""
    accuracy = round(_measures(record, peer)["accuracy"], 6)
    metadata = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["deep-mutual-learning", "image-classification", "dml_tf"],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": record["run_id"],
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": record["data"], "type": record["config"]["dataset"]},
                        "metrics": [{"type": "accuracy", "value": accuracy, "name": "test"}],
                    }
                ],
            }
        ],
    }
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in metadata.items()), "---", ""]


def _introduction(record: dict, peer: str) -> list[str]:
    config = record["config"]
    trained = record["images"]["train"]
    nets = ", ".join(f"`{net}`" for net in config["net"])
    epochs = f"{config['epochs']} epochs" if not config["steps"] else f"{config['steps']} steps"
    if best := record.get("best_epoch"):
        epochs = f"up to {epochs}; the weights are of epoch {best}, the best on validation images"
    lines = [
        f"# {peer} of {record['run_id']}",
        "",
        f"An image classifier in {len(record['classes'])} classes. It was trained by dml_tf "
        f"{record['versions']['dml_tf']}, which implements [Deep Mutual Learning]({_PAPER}).",
        "",
        "| | |",
        "| --- | --- |",
        f"| data | {record['data']}, {trained} training images |",
        f"| networks | {nets} |",
        f"| method | {config['method']} |",
        f"| length | {epochs}, batches of {config['batch_size']} |",
        f"| optimizer | {config['optimizer']}, learning rate {config['learning_rate']:g} |",
        f"| augmentation | {config['augment']} |",
        f"| seed | {config['seed']} |",
        f"| finished | {record['finished'][:10]} |",
        f"| command | `{record['command'].replace('python train.py', 'dml_tf train')}`, with "
        "`--data_dir` if the data are files |",
        "",
    ]
    return lines


def _accuracies(record: dict) -> list[str]:
    images = record["images"]["test"]
    test = record["test"]
    rows = test["peers"] | ({"ensemble": test["ensemble"]} if "ensemble" in test else {})
    lines = [
        "## Accuracy",
        "",
        f"On {images} test images. The 95% interval (Wilson's) is over images; another training "
        "run would differ, too.",
        "",
        "| network | accuracy, % | 95% interval | cross-entropy | calibration error |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, measures in rows.items():
        low, high = interval(measures["accuracy"], images)
        calibration = measures.get("calibration_error", math.nan)
        lines.append(
            f"| {name} | {100 * measures['accuracy']:.2f} | {100 * low:.2f} to {100 * high:.2f} | "
            f"{measures['cross_entropy']:.4f} | {calibration:.4f} |"
        )
    return [*lines, ""]


def _files(rows: Sequence[Row], images: int) -> list[str]:
    lines = [
        "## Files",
        "",
        f"Tried on {images} test images. Time is that of one image on the machine that wrote "
        "this card; LiteRT and ONNX run on one core.",
        "",
        "| | numbers | MB | ms an image | accuracy, % | same class as Keras, % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.name} | {row.numbers} | {row.megabytes:.3f} | {row.milliseconds:.2f} | "
        f"{100 * row.accuracy:.2f} | {100 * row.agreement:.2f} |"
        for row in rows
    ]
    return [*lines, "", *(f"{sentence}\n" for sentence in int8_changes(rows))]


def _use(record: dict, rows: Sequence[Row]) -> list[str]:
    height, width, channels = record["input"]["shape"]
    mode = "L" if channels == 1 else "RGB"
    lines = [
        "## Use",
        "",
        f"Input: pixels from 0 to 255, float32, `(batch, {height}, {width}, {channels})`, "
        f"{'grey' if channels == 1 else 'RGB'}. They are normalised inside. Output: the "
        "probability of each class, in the order below.",
        "",
        "```python",
        "import numpy as np",
        "from PIL import Image, ImageOps",
        "",
        f'picture = ImageOps.exif_transpose(Image.open("new.jpg")).convert("{mode}")',
        *_central(record),
        f"picture = picture.resize(({width}, {height}), Image.Resampling.BILINEAR)",
        f"pixels = np.asarray(picture, np.float32).reshape(1, {height}, {width}, {channels})",
        f"classes = {record['classes']}",
        "```",
        "",
    ]
    for row in rows[2:]:
        ending = row.name[row.name.rindex(".") :] if "." in row.name else ""
        show = "print(classes[probabilities.argmax()], probabilities.max())"
        lines += ["```python", _USE[ending].format(file=row.name), show, "```", ""]
    return lines


def _central(record: dict) -> list[str]:
    """The program's part that takes the middle of a picture, as ImageNet's evaluation does."""
    if record["config"]["dataset"] not in STREAMED_DATASETS:
        return []
    return [
        "width, height = picture.size",
        f"left, top = int({(1 - EVALUATED) / 2} * width), int({(1 - EVALUATED) / 2} * height)",
        "picture = picture.crop((left, top, width - left, height - top))",
    ]


def _limits(record: dict) -> list[str]:
    return [
        "## Limits",
        "",
        f"It knows the kinds of pictures in {record['data']} only: on others its probabilities "
        "mean nothing. It gives one of its classes to every picture, also to one of no class.",
        "",
    ]
