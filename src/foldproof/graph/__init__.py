"""PyTorch graphs: facts about nodes and operators, running, viewing, comparing and cutting them.

Every module here knows `torch.fx` and nothing of proofs, rules or compilers, so that whatever works on graphs can stand
on it.
"""
