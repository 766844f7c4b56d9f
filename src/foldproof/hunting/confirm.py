"""Confirmation of a fault by a program that needs neither foldproof nor its judgement.

`write` makes a script that stands beside the text of a program. It compiles the program as its compiler's users do,
runs it in eager mode, and in float64, and compares the three: the compiled numbers are wrong if they are much further
from the float64 result than those of eager mode are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from foldproof.auditing.compilers import find_compiler
from foldproof.hunting.setup import Setup

CONFIRMED, UNCONFIRMED = "confirmed", "not confirmed"
WRONG = 1
"""Exit status of a script that finds wrong numbers."""
SECONDS = 180
"""Time that a script may take."""

SCRIPT = '''\
"""Compares the compiled program in program.py with eager mode, and with float64; exit status 1 if it is wrong."""

import copy
import re
import sys
from pathlib import Path

import torch
{imports}

SOURCE = Path(__file__).with_name("program.py").read_text()
WIDE = re.sub(r"torch[.](float16|bfloat16|float32)", "torch.float64", SOURCE)
WIDE = re.sub(r"[.](half|float)[(][)]", ".double()", WIDE)
TRAINING = {training}


def load(source):
    space = {{}}
    exec(compile(source, "program.py", "exec"), space)
    return space["make"]()


def widen(x):
    return (x.double() if x.is_floating_point() else x).clone()


def tensors(x):
    if isinstance(x, torch.Tensor):
        return [x]
    return [t for part in x for t in tensors(part)] if isinstance(x, (list, tuple)) else []


def run(call, model, inputs):
    """Everything that a call changes: outputs, inputs, buffers, and gradients in training."""
    outputs = tensors(call(*inputs))
    found = [("output %d" % i, t) for i, t in enumerate(outputs)]
    if TRAINING:
        torch.manual_seed(1)
        loss = sum((t * torch.randn(t.shape, dtype=torch.float64)).sum() for t in outputs if t.requires_grad)
        loss.backward()
        found += [("gradient of " + n, p.grad) for n, p in model.named_parameters() if p.grad is not None]
    found += [("input %d after the call" % i, t) for i, t in enumerate(tensors(inputs))]
    found += [(n + " after the call", b) for n, b in model.named_buffers()]
    kept = {{n: t.detach().clone() for n, t in found}}
    for i, one in enumerate(outputs):  # a write to an output shows in whatever shares its memory
        others = [(n, t, t.detach().clone()) for n, t in found if n != "output %d" % i]
        try:
            with torch.no_grad():
                one.zero_() if one.numel() and one.any() else one.fill_(1)
        except RuntimeError as error:
            kept["the error of a write to output %d" % i] = str(error)
            continue
        shared = [n for n, t, old in others if not torch.equal(t.detach(), old)]
        for name, t, old in others:
            t.detach().copy_(old)
        kept["the tensors that share memory with output %d" % i] = ", ".join(shared) or "none"
    return kept


def compiled_call(model, inputs):
{compiled}
    return got


def main():
    torch.set_grad_enabled(TRAINING)
    model, inputs = load(SOURCE)
    torch.set_default_dtype(torch.float64)
    wide = load(WIDE)[0]
    torch.set_default_dtype(torch.float32)
    state = {{n: widen(t) for n, t in model.state_dict().items()}}
    wide.load_state_dict(state)
    truth = run(wide, wide, tuple(widen(x) for x in inputs))
    own = copy.deepcopy(model)
    eager = run(own, own, copy.deepcopy(inputs))
    other = copy.deepcopy(model)
    given = copy.deepcopy(inputs)
    try:
        compiled = run(lambda *args: compiled_call(other, args), other, given)
    except Exception as error:
        print("WRONG: the compiler fails:", type(error).__name__, str(error)[:500])
        return 1
    half = re.search("float16|half", SOURCE)
    unit = 2.0**-8 if "bfloat16" in SOURCE else 2.0**-10 if half else 2.0**-23
    wrong = 0
    if compiled.keys() != eager.keys():
        print("WRONG: only one side has", ", ".join(sorted(compiled.keys() ^ eager.keys())))
        return 1
    for name, t in truth.items():
        e, c = eager[name], compiled[name]
        if isinstance(t, str):
            if e != c:
                print("WRONG:", name, "are", c, "and not", e)
                wrong += 1
            continue
        if (e.dtype, e.shape) != (c.dtype, c.shape):
            print("WRONG:", name, "is", c.dtype, tuple(c.shape), "and not", e.dtype, tuple(e.shape))
            wrong += 1
            continue
        if not e.is_floating_point():
            differs = bool((c != e).any()) and bool((e == t).all())
            far, near = float((c != e).sum()), float((e != t).sum())
        else:
            t, e, c = t.double(), e.double(), c.double()
            clear = t.isfinite() & e.isfinite()
            lost = bool((clear & ~c.isfinite()).any()) or bool((t.isnan() & e.isnan() & ~c.isnan()).any())
            both = clear & c.isfinite()
            far, near = (float((x - t)[both].abs().max()) if both.any() else 0.0 for x in (c, e))
            size = float(t[both].abs().max()) if both.any() else 0.0
            differs = lost or far > 10 * near + 64 * unit * size
        print("WRONG:" * differs, name, "to float64: compiled %.3g, eager %.3g" % (far, near))
        wrong += differs
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
'''


def write(folder: Path, setup: Setup, text: str) -> Path:
    """Write ``program.py`` and ``confirm.py`` to a folder; return the latter."""
    imports, lines = find_compiler(setup.compiler).write_script(dict(setup.options))
    if setup.training:
        lines = [*lines[:-1], "got = torch.compile(model)(*inputs)"]
    body = "\n".join(f"    {line}" for line in lines)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.py").write_text(text, encoding="utf-8")
    script = folder / "confirm.py"
    script.write_text(
        SCRIPT.format(imports="\n".join(imports), compiled=body, training=setup.training), encoding="utf-8"
    )
    return script


def confirm(script: Path) -> str:
    """Run a script, and keep its output beside it; return `CONFIRMED`, `UNCONFIRMED`, or the reason for neither."""
    try:
        done = subprocess.run(
            [sys.executable, script.name], cwd=script.parent, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "it does not end"
    (script.parent / "confirm.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode == WRONG and "WRONG:" in done.stdout:
        return CONFIRMED
    return UNCONFIRMED if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it fails"])[-1][:200]
