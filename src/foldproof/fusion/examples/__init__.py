"""Small models on which each rule must fire or decline, for the tests and the documentation."""

from foldproof.fusion.examples.absorbers import *  # noqa: F403
from foldproof.fusion.examples.batching import *  # noqa: F403
from foldproof.fusion.examples.dead import *  # noqa: F403
from foldproof.fusion.examples.merging import *  # noqa: F403
from foldproof.fusion.examples.models import *  # noqa: F403
from foldproof.fusion.examples.motions import *  # noqa: F403
from foldproof.fusion.examples.sources import *  # noqa: F403
