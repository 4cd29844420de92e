"""Changing a JSON file of a work directory as somebody would who knows of its digest."""

import json

from mtl.host.files import DIGEST, seal


def change(file, change_it):
    """Put ``change_it(content)`` in a file, with a digest that is right."""
    content = json.loads(file.read_bytes())
    content.pop(DIGEST)
    file.write_bytes(seal(change_it(content)))
