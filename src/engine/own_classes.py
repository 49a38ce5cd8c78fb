"""Keep transformers' classes as they are where an engine is built of them.

vLLM computes some families (OLMo-2, OLMo-3 and SmolLM3 among them) by transformers' own code, and
decorates the model's class for `torch.compile`. That class is the trainer's as well: a policy of it
in the same process can then be neither called nor built.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import MODEL_MAPPING, PretrainedConfig


@contextmanager
def engine_classes(kind: type[PretrainedConfig]) -> Iterator[None]:
    """Let an engine that is built inside the block have subclasses to decorate.

    Args:
        kind: of the model's configuration.
    """
    if kind not in MODEL_MAPPING:  # code that the model brings
        yield
        return
    theirs, registered = MODEL_MAPPING[kind], MODEL_MAPPING._extra_content
    before = registered.get(kind)
    # `register` takes no class in place of one of transformers' own.
    registered[kind] = type(theirs.__name__, (theirs,), {"__module__": theirs.__module__})
    try:
        yield
    finally:
        if before is None:
            del registered[kind]
        else:
            registered[kind] = before
