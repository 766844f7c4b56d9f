"""Inductor's loops, recorded as graphs, so that lowering and scheduling are steps like any graph pass.

Below its last graph Inductor works on loop nests: for each buffer an index space, and a body that loads, computes and
stores. They are data, functions of a handler that they call for each operation. A handler of ours writes an ATen
operator for each call, over all iterations at once. The result is a graph with the inputs, outputs and writes of the
graph that was lowered. Two of these are taken for each compilation:

* **lowering**: the last graph → the loops as the scheduler gets them. Wrong decompositions into loops, views, index
  expressions, paddings, reductions in parts, and choices of kernels show here.
* **scheduling**: these loops → the loops in the order and form in which kernels are generated, after fusion,
  reordering and merging.

Claim
-----
If both steps are PROVED, the loops, run one after the other and each iteration by itself, compute the function of the
model's last graph, over the real numbers. What is left is the text of the kernels: how a nest is cut into tiles and
vectors, the types of registers, and the memory that is used for a buffer after another one is dead. The comparison of
numbers covers it.

Why it is sound
---------------
* *A buffer is its memory.* Every buffer is one flat tensor, replaced by a new one at each write. Loads and stores use
  the addresses that the kernels use, so a wrong stride or offset reads other elements here, too. Parts of a
  concatenation and buffers that are written in place share the memory of their home (`memory`).
* *What is not known to be written is arbitrary.* Memory without contents, and memory outside of a buffer, has an
  arbitrary number, another one for each buffer. A program that depends on it is unequal to one that does not, which is
  true of it: the memory may hold that number.
* *All iterations at once* is the meaning of a nest only if none reads what another one writes. `nest` checks it.
* *Numbers stay as they are*, and conversions between floating-point types are identities, as in all proofs here.
* *Nothing is guessed.* A kind of node, an operation, an index or a layout without a reading ends the recording. The
  step is then UNDECIDED, and names it.
"""

from foldproof.auditing.loops.loop import BUFFERS, LABEL, Loop, find_loop
from foldproof.auditing.loops.program import record_loops
from foldproof.auditing.loops.recorder import Element, Unreadable

__all__ = [
    "BUFFERS",
    "LABEL",
    "LOOP_STEPS",
    "LOWERING",
    "SCHEDULING",
    "Element",
    "Loop",
    "Unreadable",
    "find_loop",
    "record_loops",
]

LOWERING, SCHEDULING = "lowering", "scheduling"
LOOP_STEPS = {LOWERING, SCHEDULING}
"""Names of the steps whose results are loops."""
