"""Numbers that decide what a verdict says, each with the reason for its value.

A verdict is PROVED by exact arithmetic; of these numbers only `MAX_LOG2_ERROR` matters to it. The others say how far
rounding may go, how much is tried before an answer is given, and when a search ends. Scores are in standard deviations
of rounding (sigma), or in multiples of the largest score that rounding alone reached.

Block sizes, timeouts and lengths of printed lists are beside the code that uses them.
"""

from __future__ import annotations

# Proofs.

MAX_LOG2_ERROR = -40.0
"""The probability that a PROVED is wrong is below two to this power: below that of a fault of the memory during the
proof."""
MAX_LOG2_ERROR_OF_ONE = MAX_LOG2_ERROR - 3
"""The bound for one comparison: eight of them fit into `MAX_LOG2_ERROR`, and no obligation takes more."""
MAX_DISTURBED_RUNS = 12
"""Runs that are made while other threads draw random numbers, before the program is taken to draw them."""
ROUNDING_SAMPLES = 8
"""Random roundings of stored parameters by which the spread of a derived parameter is measured."""
MAX_LIMIT_ELEMENTS = 16
"""A tensor of more numbers is no limit or divisor, and gives no scale to try inputs at."""

# Counterexamples.

MIN_COUNTEREXAMPLE_RATIO = 16.0
"""A difference is a counterexample from this multiple of what rounding explains; below it, the answer is UNDECIDED."""
CONSTANT_ROUNDINGS = 4.0
"""Roundings by which constants are moved before anything is called wrong: a fold is a handful of operations."""
AMPLIFIED_ROUNDING = 2.0**-14
"""Relative error by which constants are moved besides: one in float32 may come of a chain that makes a rounding a
thousand times larger, as the cosine of a large angle does."""
SMALLEST_SCALE = 1e-3
"""Root mean square of the smallest inputs that are tried: it shows the epsilons of norms."""
LARGEST_COMPARED_NUMBER = 1e6
"""Larger constants, such as masks of -1e9, give no scale to try inputs at: no value of a model comes near them."""
MAX_SCALES = 8
"""Scales of inputs that are tried, the largest first: a trial runs both programs."""

MAX_PARTING_DISTANCE = 0.3
"""Relative distance up to which two values count as meant to be equal, when the place is looked for where graphs part:
a wrong constant moves a value, and another value altogether is about as far as it is large."""

# Coverage of choices.

MAX_COVERAGE_INPUTS = 24
"""Random inputs that are tried to see outcomes of a choice that were not seen yet."""
MAX_IDLE_INPUTS = 4
"""The search ends after this many inputs in a row that show no new outcome."""
MAX_COVERED_INDICES = 256
"""Along longer dimensions, no number of random inputs shows every index of a sort or an argmax."""

# The rounding of constants (ROUNDING of `prove`).

SPREAD_RUNS = 6
"""Perturbed runs of each program by which the spread of rounding is measured."""
MAX_EXPLAINED_RATIO = 4.0
"""Scores up to this multiple of what perturbed runs reach count as rounding: a constant may be the result of some ten
roundings, of which a run moves it by one."""
PRIOR_RUNS = 2.0
"""Weight of an output's typical element, in runs: a few runs know little of a single element."""

# The rounding of operators (`compare`).

RUNS_AT_GIVEN_INPUTS = 16
"""Perturbed runs at the inputs of the caller."""
RUNS_AT_OTHER_INPUTS = 4
"""Perturbed runs at other inputs; a suspicion asks for `RUNS_BEFORE_WRONG`."""
RUNS_BEFORE_WRONG = 48
"""Perturbed runs before anything is called wrong."""
RUNS_OF_LAYERS = 4
"""Perturbed runs for the error along the depth: a root mean square over all elements of a layer needs no more."""
MAX_ROUNDING_RATIO = 2.0
"""Scores up to this multiple of the largest that perturbed runs reach count as rounding."""
MIN_WRONG_RATIO = 4.0
"""From this multiple on, scores are no rounding; between it and `MAX_ROUNDING_RATIO` the answer is UNDECIDED."""
CLEAR_FACTOR = 64.0
"""This far beyond `MIN_WRONG_RATIO` a floor of few runs will do; larger noise is tried all the same."""
JUMP_AMPLITUDE = 4.0
"""Amplitude of the noise that looks for jumps: four roundings instead of one."""

# Attribution of a difference to operators (`compare`).

RUNS_OF_OPERATOR = 4
"""Perturbed runs of one operator on equal operands."""
MIN_LOCAL_SIGMAS = 9.0
"""From this many standard deviations on, an operator's local error is no rounding of its own."""
MAX_TRACED_OPERATORS = 64
"""Operators whose contribution to the outputs is computed: those with the largest local errors, in sigmas."""
MAX_SENSIBLE_SHARE = 3.0
"""Above this share of a rounding difference, the candidate's value is not meant to be the reference's."""
MAX_UNREPRODUCED = 0.1
"""The part of a difference, in root mean squares, that may be left when a few operators are said to reproduce it."""
MAX_ERROR_OF_SHARES = 0.25
"""Distance of the shares' sum from 1 above which they say nothing of what each operator does."""
MAX_COMPILATIONS = 6
"""Compilations of a program to watch its values."""
MAX_COMPILED_ALONE = 4
"""Operators that are compiled alone."""

# Rewrites.

ACCURACY_LIMIT = 16.0
"""A fold may cost four bits: it rounds the weight once more, and sums may cancel."""
MIN_SPEEDUP = 1.1
"""Speedup below which linears are not batched. Caches hold other things in a whole program than in the measurement,
and smaller gains were found to be lost again there (``benchmarks/test_batching.py``, K = 1024)."""
BITWISE_INPUTS = 8
"""Inputs on which all bits have to be the same, of several magnitudes."""

# Audits.

COMPARED_INPUTS = 24
"""Inputs on which the compiled model is compared with the original."""
MIN_REDUCED_DIFFERENCE = 1e-2
"""Relative difference that a reduced program has to show: no rounding in float64, and visible in float32."""
MAX_RERUN_SECONDS = 5.0
"""A pass that takes longer is not run again to find out where its constants come from."""
