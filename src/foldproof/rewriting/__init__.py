"""Changing a program: new constants as expressions over old ones, an editor, and the region that a rewrite touches.

In the order in which they depend on each other: ``refusal`` (why a rewrite is not made), ``expression`` and ``vectors``
(new constants as functions of old ones), ``constants`` (which nodes are constant), ``sizes`` (shapes at the example),
``edit`` (a change of one node), ``host`` with ``exported`` and ``module`` (forms of programs), ``editor`` (changing one
of them), ``region`` (what is to be proved of a rewrite).
"""
