"""Small models on which each rule must fire, or must decline: the tests loop over them and the docs can show them."""

from foldproof.fusion.examples.absorbers import *  # noqa: F403
from foldproof.fusion.examples.batching import *  # noqa: F403
from foldproof.fusion.examples.models import *  # noqa: F403
from foldproof.fusion.examples.motions import *  # noqa: F403
from foldproof.fusion.examples.sources import *  # noqa: F403
