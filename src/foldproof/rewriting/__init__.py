"""Changing a program: new constants as expressions over old ones, an editor, and the region that a rewrite touches.

In order of dependence: ``refusal`` (reasons against a rewrite), ``expression`` and ``vectors`` (new constants as
functions of old ones), ``constants`` (constant nodes), ``sizes`` (shapes at the example), ``edit`` (a change of one
node), ``functional`` (in-place operators without their writes), ``host`` with ``exported_host`` and ``module`` (forms
of programs), ``editor`` (changes of any of these), and ``rewrite`` (the programs that a proof of a rewrite compares).
"""
