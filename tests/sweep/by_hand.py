"""The shards of a work directory, read and changed without the code that keeps them."""

import json

import numpy as np

from mtl.checkpoint import dump_tree, load_tree


def shards(work):
    """Return the files that hold results, the oldest first."""
    return sorted(work.glob("results/[0-9]*.safetensors"))


def results(work):
    """Return each trial's newest result, by hash."""
    return {digest: result for shard in shards(work) for digest, result in facts(shard).items()}


def facts(shard):
    """Return the results in a shard, by hash."""
    return json.loads(load_tree(shard)[0]["results"].tobytes())


def shard_of(work, digest):
    """Return the newest shard that holds a trial."""
    return [shard for shard in shards(work) if digest in facts(shard)][-1]


def stamps(work):
    """Return what changes when a trial is written again, by hash."""
    return {digest: (shard.name, shard.stat().st_mtime_ns) for shard in shards(work) for digest in facts(shard)}


def change(work, digest, result=lambda found: found, predictions=lambda found: found):
    """Change a trial's result (nothing: remove it) and its {task: {name: array}}, and give its shard a right sha256."""
    shard = shard_of(work, digest)
    tree, about = load_tree(shard)
    found, own = json.loads(tree["results"].tobytes()), tree.get("predictions", {})
    new = result(found.pop(digest))
    changed = predictions(own.pop(digest, {}))
    found |= {} if new is None else {digest: new}
    own |= {} if new is None else {digest: changed}
    tree = {"results": np.frombuffer(json.dumps(found).encode(), np.uint8), "predictions": own}
    shard.write_bytes(dump_tree(tree, about))


def forget(work, digest):
    """Remove a trial's result, as if it had never been run."""
    change(work, digest, lambda found: None)
