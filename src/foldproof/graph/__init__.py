"""PyTorch graphs: facts about nodes and operators, and running, viewing, comparing and cutting of graphs.

Modules of this package import `torch.fx` and know nothing of proofs, rules or compilers, so that any work on graphs can
build on them.
"""
