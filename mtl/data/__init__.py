"""Data: tables of inputs, labels and masks, their splits, and the names by which a config asks for them."""

from __future__ import annotations

from mtl.data.asked import Asked, nearest
from mtl.data.contact_sheet import contact_sheet
from mtl.data.cut import cut
from mtl.data.picture import Picture
from mtl.data.problems import DataError
from mtl.data.readers.arff import arff_table
from mtl.data.readers.csv_file import csv_table
from mtl.data.readers.frames import arrays_table, frame_table
from mtl.data.readers.images import images_table
from mtl.data.readers.mixed import mixed_frame, mixed_table
from mtl.data.readers.molecules import molecules_table
from mtl.data.readers.npz import npz_table
from mtl.data.readers.parquet import parquet_table
from mtl.data.registry import SOURCES, forget, load, load_with, register
from mtl.data.sets.about import About
from mtl.data.sets.digits import digits_table
from mtl.data.sets.latent import latent_table
from mtl.data.sets.mnist import fashion_mnist_table, mnist_table, multi_mnist_table
from mtl.data.sets.road_scenes import road_scenes_table
from mtl.data.sets.spam_assassin import spam_assassin_table
from mtl.data.sets.tox21 import tox21_table, toxcast_table
from mtl.data.sets.yeast import yeast_table
from mtl.data.splits import Split, transfer_split
from mtl.data.streamed import Streamed
from mtl.data.summary import summary
from mtl.data.table import Table, make_table
from mtl.data.tfds.source import tfds_table
from mtl.data.words import token_ids

__all__ = [
    "SOURCES",
    "About",
    "Asked",
    "DataError",
    "Picture",
    "Split",
    "Streamed",
    "Table",
    "arff_table",
    "arrays_table",
    "contact_sheet",
    "csv_table",
    "cut",
    "digits_table",
    "fashion_mnist_table",
    "forget",
    "frame_table",
    "images_table",
    "latent_table",
    "load",
    "load_with",
    "make_table",
    "mixed_frame",
    "mixed_table",
    "mnist_table",
    "molecules_table",
    "multi_mnist_table",
    "nearest",
    "npz_table",
    "parquet_table",
    "register",
    "road_scenes_table",
    "spam_assassin_table",
    "summary",
    "tfds_table",
    "token_ids",
    "tox21_table",
    "toxcast_table",
    "transfer_split",
    "yeast_table",
]

register("digits")(digits_table)
register("latent")(latent_table)
register("csv")(csv_table)
register("table")(mixed_table)
register("parquet")(parquet_table)
register("npz")(npz_table)
register("images")(images_table)
register("molecules")(molecules_table)
register("tox21")(tox21_table)
register("toxcast")(toxcast_table)
register("arff")(arff_table)
register("yeast")(yeast_table)
register("mnist")(mnist_table)
register("fashion_mnist")(fashion_mnist_table)
register("multi_mnist")(multi_mnist_table)
register("road_scenes")(road_scenes_table)
register("spam_assassin")(spam_assassin_table)
register("tfds")(tfds_table)
