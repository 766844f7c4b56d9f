"""Numbers that affect verdicts, each with the reason for its value.

A verdict is PROVED by exact arithmetic, and only `MAX_LOG2_ERROR` affects it. The other numbers limit rounding, the
effort before an answer, and the length of searches. Scores are in standard deviations of rounding (sigma), or in
multiples of the largest score that rounding alone reached.

Block sizes, timeouts and lengths of printed lists are beside the code that uses them.
"""

from __future__ import annotations

# Proofs.

MAX_LOG2_ERROR = -40.0
"""Base-2 logarithm of the largest probability that a PROVED is wrong; a memory fault during the proof is likelier."""
MAX_LOG2_ERROR_OF_ONE = MAX_LOG2_ERROR - 3
"""The same bound for one comparison: eight fit into `MAX_LOG2_ERROR`, and no obligation takes more."""
MAX_UNCUT_DEGREE = 64
"""Largest degree of a value that is not cut: with it, the chance of equal residues is half that of degree 0."""
MAX_UNCUT_BITS = 512.0
"""Largest coefficient, in bits, of a value that is not cut; one float32 constant has some 50."""
MAX_PRIMES_UNCUT = 8
"""Largest number of primes for which programs are compared without cut points: a recording costs two runs."""
MIN_PRIMES_WITH_TURNS = 64
"""Smallest number of primes to draw from for a proof with Fourier coefficients as algebraic numbers: fewer are not
enough to tell any two numbers apart."""
MAX_CONSTANT_ROUNDINGS = 4.0
"""Largest distance of two constants that are read as one, in epsilons of their dtype (of float32, for shorter ones):
sines and powers that two programs compute in another order differ by a few."""
MAX_TABLE_ELEMENTS = 1 << 20
"""Largest number of elements of a table of constants that is read so."""
MAX_DISTURBED_RUNS = 12
"""Largest number of runs during random draws of other threads, before the program is held to draw them."""
MAX_LIMIT_ELEMENTS = 16
"""Largest number of elements of a limit or divisor; larger tensors suggest no scale of inputs."""

# Counterexamples.

MIN_COUNTEREXAMPLE_RATIO = 16.0
"""Smallest ratio of a difference to explained rounding that makes a counterexample; below it, UNDECIDED."""
MAX_PLACINGS = 32
"""Largest number of trials with numbers of the programs among the elements of inputs that are too small for all."""
CONSTANT_ROUNDINGS = 4.0
"""Roundings by which constants are perturbed before a REFUTED: a fold is a handful of operations."""
AMPLIFIED_ROUNDING = 2.0**-14
"""Additional relative perturbation of constants: a float32 constant may come from a chain of operations that amplifies
a rounding a thousand times, as the cosine of a large angle does."""
SMALLEST_SCALE = 1e-3
"""Root mean square of the smallest inputs in a search: it shows the epsilons of norms."""
LARGEST_SCALE = 64.0
"""Factor of large gains and biases in a search: values pass the limits that activations and logits may have."""
LARGEST_COMPARED_NUMBER = 1e6
"""Largest constant that suggests a scale of inputs: no value of a model comes near larger ones, as -1e9 in masks."""
MAX_SCALES = 8
"""Largest number of scales of inputs in a search, the largest first: a trial runs both programs."""

MAX_KERNEL_ROUNDINGS = 1024
"""Largest difference of a kernel and its loop, in roundings of the largest number: a kernel sums in another order."""

MAX_SHARED_ELEMENTS = 1 << 22
"""Largest number of elements of values whose facts are kept for equal ones: the facts keep operands alive."""

MAX_ALIKE = 1e-5
"""Largest distance of two values of modules, relative to the largest element, that counts as rounding when the first
modules that part are looked for; float32 rounds a layer by less."""
MAX_PARTING_DISTANCE = 0.3
"""Largest relative distance of corresponding values in the search for the first difference of two graphs: a wrong
constant moves a value by less, and the distance of an unrelated value is about its own size."""

# Coverage of choices.

MAX_SAMPLED_ELEMENTS = 1 << 14
"""Elements of inputs at a size beyond a number in the graph, to which the size may be compared; twice those of the
given inputs, if that is more."""
MAX_COVERAGE_INPUTS = 24
"""Largest number of random inputs in a search for unseen outcomes of choices."""
MAX_IDLE_INPUTS = 4
"""Number of inputs in a row without a new outcome that ends the search."""
MAX_COVERED_INDICES = 256
"""Longest dimension with coverage of each index: random inputs do not show every index of a longer sort or argmax."""

# Loops.

MAX_TRIPS = 1 << 14
"""Largest number of trips of a loop operator. A loop that ends by a value may have no end at inputs that are drawn."""
MAX_ITERATIONS = 1 << 25
"""Largest number of iterations of a compiler's loop nest, which is recorded over all of them at once: residues of that
many elements take two gigabytes for each operation."""
MAX_OPERATORS = 1 << 20
"""Largest number of operators of a float64 run, for loops of Python: a language model of 100 layers calls some 10^4."""

# The rounding of constants (ROUNDING of `prove`).

SPREAD_RUNS = 6
"""Perturbed runs of each program that measure the spread of rounding."""
MAX_EXPLAINED_RATIO = 4.0
"""Largest multiple of the perturbed runs' scores that counts as rounding: a constant may be the result of some ten
roundings, and a run perturbs it by one."""
MAX_RELATIVE_SPREAD = 0.25
"""Standard deviation of rounding, relative to the largest element of an output, above which agreement shows nothing."""
PRIOR_RUNS = 2.0
"""Weight of an output's typical element, in runs: a few runs are weak evidence on a single element."""

# The rounding of operators (`compare`).

COMPARED_INPUTS = 24
"""Inputs on which two programs are compared, the given ones included."""
FEWEST_COMPARED_INPUTS = 4
"""The same where inputs are large; an interval of confidence takes a few."""
MAX_COMPARED_ELEMENTS = 1 << 22
"""Elements of all compared inputs together, but for the fewest: large inputs show kernels many places at once."""
RUNS_AT_GIVEN_INPUTS = 16
"""Perturbed runs at the inputs of the caller; half of them where the difference is clearly rounding."""
CLEARLY_ROUNDING = 0.5
"""Largest multiple of the perturbed runs' largest score that more runs would not change to more than rounding."""
RUNS_AT_OTHER_INPUTS = 4
"""Perturbed runs at other inputs; a suspicious difference takes `RUNS_BEFORE_WRONG`."""
MAX_UNLIKE = 1.5
"""Largest factor between the reference's own errors at two inputs, in sigmas, for which one floor holds."""
MAX_UNEVEN = 8.0
"""Largest element of such a floor, in multiples of the median."""
RUNS_BEFORE_WRONG = 48
"""Perturbed runs before a REFUTED."""
RUNS_OF_LAYERS = 4
"""Perturbed runs for the error of each layer, a root mean square over all its elements, which needs no more."""
MAX_ROUNDING_RATIO = 2.0
"""Largest multiple of the perturbed runs' largest score that counts as rounding."""
MIN_WRONG_RATIO = 4.0
"""Smallest multiple that rules out rounding; between it and `MAX_ROUNDING_RATIO` the answer is UNDECIDED."""
CLEAR_FACTOR = 64.0
"""Factor beyond `MIN_WRONG_RATIO` from which a floor of few runs suffices; larger noise is tried all the same."""
MAX_FLOAT64_SIGMAS = 2.0**-19
"""Largest distance of two float64 results that are equal, in standard deviations of float32's rounding: that of
float64's is 2^-29, and sums take many."""
MIN_TIMES_AS_FAR = 4.0
"""Smallest ratio of the candidate's distance from the float64 result to the reference's, on every input, for which a
proof is asked whether the two are one function."""
MAX_TIMES_AS_FAR = 32.0
"""Largest such ratio that other algorithms of the same care explain: Winograd convolutions lose four bits."""
ROUNDINGS_OF_NEAR = 8.0
"""Roundings of a value that count as near the float64 result, however near the reference is: it may be exact."""
ROUNDINGS_OF_AGREEMENT = 64.0
"""Roundings of an output's size, in its dtype, that count as agreement where the noise floor is as large as it is."""
TIMES_AN_OWN_ERROR = 16.0
"""The same in distances of the reference from its float64 result (root mean square): single elements are farther."""
MAX_AGREEMENT = 0.01
"""Largest such agreement, relative to an output's size, however far the reference is from its float64 result."""
MIN_UNKNOWN_RATIO = 100.0
"""Smallest multiple of the reference's own distance from its float64 result that is no rounding of an operator whose
bound is not known: other algorithms lose five bits (see `MAX_TIMES_AS_FAR`)."""
MAX_PLAIN_SIGMA = 6.0
"""Largest score of an element, in sigmas, that needs no word on how unevenly rounding moves the elements."""
JUMP_AMPLITUDE = 4.0
"""Amplitude of the noise in the search for jumps: four roundings instead of one."""

# Attribution of a difference to operators (`compare`).

RUNS_OF_OPERATOR = 4
"""Perturbed runs of one operator on equal operands."""
MIN_LOCAL_SIGMAS = 9.0
"""Smallest local error of an operator, in standard deviations, that its own rounding does not explain."""
MAX_TRACED_OPERATORS = 64
"""Largest number of operators with a computed contribution to the outputs, by local error in sigmas."""
MAX_SENSIBLE_SHARE = 3.0
"""Largest share of a rounding difference for which candidate and reference values are taken to mean the same."""
OTHER_VALUE = 0.05
"""Distance of a candidate's value, over its size, that is no error if all that is computed from it agrees again.

Lower precisions stay below (bfloat16 rounds by 2^-8): such a value stands for something else, such as a convolution
with its BatchNorm folded in.
"""
MAX_UNREPRODUCED = 0.1
"""Largest part of a difference (root mean square) that may remain when a few operators are said to reproduce it."""
MAX_ERROR_OF_SHARES = 0.25
"""Largest distance of the shares' sum from 1; beyond it, shares do not describe each operator's contribution."""
MAX_ALIKE_INSIDE = 1e-3
"""Largest relative distance of a value inside of a file from the reference's that is taken for it under any name."""
MAX_TRIED_INSIDE = 64
"""Largest number of values of a file that are tried in the place of operators without one: each takes a run."""
MAX_COMPARED_PIECES = 1 << 12
"""Largest number of comparisons of pieces that may make up a value, in one walk: a second for small tensors."""
MAX_COMPILATIONS = 6
"""Largest number of compilations of a program to watch its values."""
MAX_COMPILED_ALONE = 4
"""Largest number of operators that are compiled alone."""

# Rewrites.

ACCURACY_LIMIT = 16.0
"""Largest growth of the error by a fold, four bits: it rounds the weight once more, and sums may cancel."""
MIN_SPEEDUP = 1.1
"""Smallest speedup for which linears are batched. Caches hold other data in a whole program than in the measurement,
and smaller gains were lost again there (``benchmarks/test_batching.py``, K = 1024)."""
BITWISE_INPUTS = 8
"""Inputs, of several magnitudes, on which all bits have to be the same."""
MADE_SHARE = 0.01
"""Share of a call's time that compiled code may take to compute constants from parameters (backend.py)."""
WORK_OF_MADE_ELEMENT = 100
"""Floating-point operations that take as long as it takes to compute one element of a constant: 80 were measured where
memory is slowest (a folded weight of 3×3×512×512, one thread)."""
FREE_ELEMENTS = 1 << 12
"""Elements that are computed in less time than it takes to call compiled code at all."""

# Audits.

RANGE_INPUTS = 4
"""Inputs on which the range of quantized values is measured: the given ones, and others of the same elements."""
MIN_REDUCED_DIFFERENCE = 1e-2
"""Smallest relative difference of a reduced program: beyond rounding in float64, and visible in float32."""
MAX_RERUN_SECONDS = 5.0
"""Longest time of a pass that is run again to find the origin of its constants."""
MAX_MOVED_ERRORS = 8.0
"""Times the rounding error of a graph by which a step may move its numbers: another order of a sum rounds anew."""
MAX_MOVED_ROUNDINGS = 1024.0
"""The same in units of the last place of the largest number, where no float64 result measures the error."""
