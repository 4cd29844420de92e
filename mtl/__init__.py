"""Should you transfer or train jointly, and how sure can you be?"""

__version__ = "0.1.0"
