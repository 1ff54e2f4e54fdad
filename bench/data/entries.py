"""The datasets with a name, and every fact of each. A new dataset is one entry of `ENTRIES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.data import binary_formats, embedded, image_folder, imagenet
from bench.data.splits import Parts


def _torchvision(name: str) -> Callable[[Path], object]:
    """A download by torchvision, which compares the md5 before it unpacks."""

    def fetch(folder: Path) -> object:
        from torchvision import datasets

        return getattr(datasets, name)(str(folder), download=True)

    return fetch


def _tiny_imagenet(folder: Path) -> object:
    from torchvision.datasets.utils import download_url

    return download_url(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        str(folder),
        md5="90528d7ca1a48142e341f4ef8d21d0de",
    )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The facts of a dataset.

    Attributes:
        about: One line for lists.
        train: The number of training images.
        test: The number of test images.
        side: The height and width of an image, in pixels.
        channels: 1 for grey, 3 for RGB.
        classes: The number of classes.
        flip: Whether a mirrored image keeps its class.
        embedded: Makes the dataset, where it comes with a library and needs no files.
        places: The names of its folder or archive, in the order of preference.
        read: Reads what is at one of those places; the second argument is the side in pixels to
            which images are scaled, None for the usual one.
        download: Fetches the dataset into a folder; None without a publisher.
        training: The fields of a recipe that differ from section 4.1 of the paper.
        victim: The network that is attacked unless another is asked for.
        victim_epochs: How long it is trained.
        eps: The largest change of a value, in [0, 1], of an attack that finds adversarial points
            and does not name its own.
        points: The attack that finds the adversarial points of the dataset. AdvMask's published
            constants are made for CIFAR; where they break too few images or leave masks below
            AdvMask's lower bound, the entry says what replaces them.
    """

    about: str
    train: int
    test: int
    side: int
    channels: int = 3
    classes: int = 10
    flip: bool = True
    embedded: Callable[[], Parts] | None = None
    places: tuple[str, ...] = ()
    read: Callable[[Path, int | None], Parts] = image_folder.read
    download: Callable[[Path], object] | None = None
    training: Mapping[str, int | float] = field(default_factory=dict)
    victim: str = "resnet20"
    victim_epochs: int = 30
    eps: float = 8 / 255
    points: str = "advmask.published"


ENTRIES: dict[str, Entry] = {
    "digits": Entry(
        about="1,797 scans of digits, 8x8, grey; inside scikit-learn",
        train=1438,
        test=359,
        side=8,
        channels=1,
        flip=False,
        embedded=embedded.digits,
        # seconds per epoch for a ResNet-18 on two cores; the accuracy has settled by then
        training={"epochs": 12, "batch_size": 64, "learning_rate": 0.05},
        victim="resnet8",
        victim_epochs=20,
        # 8/255 breaks 3 % of these high-contrast images only
        eps=0.5,
        # at 4/255 no image breaks; with gamma 10 a fifth of the masks stay below AdvMask's bound
        points="advmask.published(eps=0.3, step_size=0.15, sparsity_slope=1.0)",
    ),
    "photos": Entry(
        about="patches of ten photographs, 32x32, colour; no download",
        train=2000,
        test=500,
        side=32,
        embedded=embedded.photos,
        training={"epochs": 30, "batch_size": 64, "learning_rate": 0.05},
        victim="resnet8",  # trained within half a minute, for the first evaluation of attacks
        # at 8/255 half of these smooth images break
        points="advmask.published(eps=32/255, step_size=16/255)",
    ),
    "fashion-mnist": Entry(
        about="70,000 images of clothes, 28x28, grey",
        train=60_000,
        test=10_000,
        side=28,
        channels=1,
        places=("fashion-mnist", "FashionMNIST/raw"),
        read=lambda path, _: binary_formats.fashion_mnist(path),
        download=_torchvision("FashionMNIST"),
    ),
    "cifar10": Entry(
        about="60,000 images of ten classes, 32x32, colour",
        train=50_000,
        test=10_000,
        side=32,
        places=(
            *("cifar-10-batches-py", "cifar-10-batches-bin"),
            *("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
        ),
        read=lambda path, _: binary_formats.cifar10(path),
        download=_torchvision("CIFAR10"),
    ),
    "cifar100": Entry(
        about="60,000 images of a hundred classes, 32x32, colour",
        train=50_000,
        test=10_000,
        side=32,
        classes=100,
        places=(
            *("cifar-100-python", "cifar-100-binary"),
            *("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
        ),
        read=lambda path, _: binary_formats.cifar100(path),
        download=_torchvision("CIFAR100"),
    ),
    "tiny-imagenet": Entry(
        about="110,000 images of two hundred classes, 64x64, colour",
        train=100_000,
        test=10_000,
        side=64,
        classes=200,
        places=("tiny-imagenet-200", "tiny-imagenet-200.zip"),
        # at 4/255 a third of the images of a ResNet-8 do not break, nor a quarter with alpha_end 5,
        # the paper's value
        points="advmask.published(eps=8/255, step_size=4/255)",
        download=_tiny_imagenet,
    ),
    "flowers102": Entry(
        about="7,169 flowers of 102 classes, official training and test part, scaled to 64x64",
        train=1020,
        test=6149,
        side=64,
        classes=102,
        places=("flowers-102",),
        read=image_folder.flowers102,
        download=_torchvision("Flowers102"),
    ),
    "imagenet": Entry(
        about="1,331,167 images of a thousand classes (ILSVRC 2012), scaled to 224x224",
        train=1_281_167,
        test=50_000,
        side=224,
        classes=1000,
        places=("imagenet", "ILSVRC2012", "imagenet-object-localization-challenge"),
        read=imagenet.read,
        victim="resnet18",
    ),
    "cifar10-jpeg": Entry(
        about="CIFAR-10 re-encoded as JPEG: not the official pixels",
        train=50_000,
        test=10_000,
        side=32,
        places=("cifar10-jpeg", "cifar10-jpeg.zip"),
    ),
}
FOLDER = Entry(about="a folder or zip of images", train=50_000, test=10_000, side=32)
"""What is assumed of a folder of images until it is read: the numbers of CIFAR-10."""
