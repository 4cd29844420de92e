"""Data sets of TensorFlow Datasets: read, and prepared, without TensorFlow."""
