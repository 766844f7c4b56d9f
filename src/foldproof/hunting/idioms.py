"""Idioms that compilers rewrite: the lines of a program with holes, as in ``{a} = torch.add({x}, {y}, alpha={n})``.

A hole with the same name is filled in the same way throughout an idiom:

========================= ============================================================================
``a`` to ``h``            a new value
``x``, ``x2`` to ``x4``   a floating-point tensor, of that many dimensions
``y``, ``z``              another one that broadcasts with the first; any other one
``i``, ``j``, ``any``     a tensor of integers; another one that broadcasts with it; any tensor
``n``, ``pos``, ``k``     a number; a positive one; 1, 2 or 3
``whole``                 an integer that is not 0
``dim``, ``dims``, …      of the first tensor: a dimension, some, a permutation, its shape, its last size
``keep``, ``bool``        True or False
``index``, ``rows`` …     buffers of indices into a dimension, the first, the last, all elements
``vector``, ``weight`` …  parameters and buffers that fit the first tensor
``linear``, ``conv`` …    modules that fit the first tensor
========================= ============================================================================

`PATTERNS` are forms that Inductor's pattern matchers look for, with what is easily overlooked in them left open.
"""

from __future__ import annotations

PATTERNS = """
{a} = {x2} @ {weight}
{b} = torch.add({a}, {y}, alpha={n})
---
{a} = {x2} @ {weight}
{b} = torch.add({y}, {a}, alpha={n})
---
{a} = {x2} @ {weight}
{b} = torch.sub({a}, {vector}, alpha={n})
---
{a} = {x2} @ {weight}
{b} = {a} + {a}.sum({dim}, keepdim=True)
{c} = {b} * {a}
---
{a} = {x2} @ {weight}
{b} = {x2} @ {weight2}
{c} = torch.add({a}, {b}, alpha={n})
---
{a} = {x2} @ {weight}
{b} = {x2} @ {weight}
{c} = {a} + {b}
{d} = {a} * 2
---
{a} = torch.addmm({y}, {x2}, {weight}, beta={n}, alpha={n2})
---
{a} = torch.addmm({vector}, {x2}, {square}, beta={n}, alpha={n2})
{b} = {a}.relu()
---
{a} = {x2} @ {square}
{b} = {a} @ {square}
{c} = {b} @ {square2}
---
{a} = torch.baddbmm({x3}, {x3}, {x3}.transpose(1, 2) @ {x3}, beta={n}, alpha={n2})
---
{a} = torch.bmm({x3}, {x3}.transpose(1, 2))
{b} = torch.bmm({a}, {x3})
---
{a} = {x3}[:1]
{b} = torch.bmm({a}, {a}.transpose(1, 2))
---
{a} = {x} * {y}
{b} = {a} - {a}.amax({dim}, keepdim={keep})
---
{a} = {x} * {vector}
{b} = {a} - {a}.amax({dims}, keepdim=True)
---
{a} = {x} / {y}
{b} = {a} - {a}.amax({dim}, keepdim=True)
{c} = {b}.exp() / {b}.exp().sum({dim}, keepdim=True)
---
{a} = ({x} * {n}).softmax({dim})
---
{a} = ({x} / {pos}).softmax({dim}, dtype={float})
---
{a} = ({x} * {n}).to({dtype})
{b} = {a} - {a}.amax({dim}, keepdim=True)
---
{a} = torch.full(({k}, {k2}), {n}).cumsum(-1, dtype={dtype})
{b} = {x} + {a}.sum()
---
{a} = torch.full_like({x}, {n}).cumsum({dim})
{b} = {a} * {x}
---
{a} = torch.ones_like({x}, dtype={dtype}).cumsum({dim})
{b} = {a} + {x}
---
{a} = torch.zeros_like({x}) + {y}
---
{a} = torch.ones_like({x}) * {y}
---
{a} = {x} * 1
{b} = {a}.add_({n})
{c} = {x} - {a}
---
{a} = {x} + 0
{b} = {a}.mul_(2)
{c} = {x} + {b}
---
{a} = {x}.to({dtype}).to({dtype2})
---
{a} = {x}.to({dtype}).to(torch.float32)
{b} = {a} - {x}
---
{a} = {x}.float().to({float})
{b} = {a}.float() * {n}
---
{a} = {x}.permute({perm})
{b} = {a}.permute({perm}) * 2
---
{a} = {x}.permute({perm}).reshape({flat})
{b} = {a}.view({a}.shape) + 1
---
{a} = {x}.reshape({flat}).reshape({shape})
{b} = {a}.add_(1)
---
{a} = {x}.unsqueeze({dim}).squeeze({dim})
{b} = {a} * 2
{a}.add_(1)
---
{a}, {b} = {x}.chunk(2, {dim})
{c} = torch.cat([{b}, {a}], {dim})
---
{a}, {b} = {x}.chunk(2, {dim})
{c} = torch.cat([{a}, {b}], {other})
---
{a} = torch.cat([{x}, {x}], {dim}).split({x}.shape[{dim}], {dim})
{b} = {a}[0] + {a}[1] * 2
---
{a} = torch.stack({x}.unbind({dim}), {other})
---
{a} = torch.stack([{x}, {y}], {dim})
{b} = {a}.unbind({dim})[1] * 2
---
{a} = torch.cat([t.relu() for t in {x}.split({k}, {dim})], {dim})
---
{a} = torch.cat([t.tanh() + 1 for t in {x}.unbind({dim})], -1)
---
{a} = torch.cat([torch.cat([{x}, {x} * 2], {dim}), {x}], {dim})
{b} = {a}.narrow({dim}, 1, {x}.shape[{dim}])
---
{a} = torch.cat([{x}, {x}[..., :1]], -1)
{b} = torch.cat([{a}[..., {k}:], {a}[..., :{k}]], -1)
---
{a} = torch.slice_scatter({x}, {x}.narrow({dim}, 0, 1) * 2, {dim}, 0, 1)
---
{a} = torch.slice_scatter({x}, {x}[:{k}] * 0 + {n}, 0, 0, {k})
{b} = {a}[:{k}] + 1
---
{a} = torch.slice_scatter({x}, {x}[::2] + 1, 0, 0, {x}.shape[0], 2)
{b} = {a} * {x}
---
{a} = torch.select_scatter({x}, {x}.select({dim}, 0) + 1, {dim}, -1)
---
{a} = torch.diagonal_scatter({x2}, {x2}.diagonal() * 2)
---
{a} = torch.zeros_like({x}).scatter_({dim}, {places}[..., :1], {n})
---
{a} = torch.full_like({x}, {n}).scatter({dim}, {places}.argmax({dim}, keepdim=True), {n2})
---
{a} = {x}.index_add({dim}, {unique}, {x}.index_select({dim}, {unique}), alpha={n})
---
{a} = {x}.index_select({dim}, {unique})
{b} = {x}.index_copy({dim}, {unique}, {a} * 2)
---
{a} = torch.constant_pad_nd({x}, (1, 2), {n})
{b} = {a}[..., 1:-2] + 1
---
{a} = torch.constant_pad_nd({x}, (0, 0), {n})
{b} = {a}.add_(1)
---
{a} = torch.cat([{x}, torch.zeros_like({x})], {dim})
{b} = torch.constant_pad_nd({a}, (-1, 1))
---
{a} = {x}.repeat_interleave({k}, {dim})
---
{a} = {x}.expand(2, *{shape}).sum(0)
{b} = {a} * {n}
---
{a} = {linear}({x})
{b} = {a}.relu() + {linear}({x})
---
{a} = torch.cat([{linear}({x}), {linear2}({x}), {linear3}({x})], -1)
---
{a} = F.linear({x}.transpose(-1, -2).transpose(-1, -2), {square}, {vector})
---
{a} = F.linear({x}.permute({perm}), {x}.permute({perm}))
---
{a} = torch.matmul({x}.transpose(-1, -2), {x})
---
{a} = {conv}({x4})
{b} = torch.add({a}, {a}.mean((2, 3), keepdim=True), alpha={n})
---
{a} = {conv}({x4})
{b} = {norm2d}({a})
{c} = {act}({b}) + {b}
---
{a} = {norm2d}({x4})
{b} = {conv}({a})
{c} = {conv}({x4}) - {b}
---
{a} = {conv}({x4}).add_({n}).relu_()
{b} = {a} * {n2}
---
{a} = {conv}({x4})
{b} = {a}.clamp(0, 6) / 6
{c} = {a} * {b}
---
{a} = {norm}({x})
{b} = {linear}({a}) * {vector}
---
{a} = {x} * torch.rsqrt({x}.pow(2).mean({dim}, keepdim=True) + {pos}) * {vector}
---
{a} = ({x} - {x}.mean({dim}, keepdim=True)) / ({x}.var({dim}, keepdim=True, unbiased={bool}) + {pos}).sqrt()
---
{a} = F.scaled_dot_product_attention({x3}, {x3}, {x3}, scale={n})
---
{a} = F.scaled_dot_product_attention({x4}, {x4}, {x4} * 2, is_causal={bool})
---
{a} = ({x4} @ {x4}.transpose(-2, -1) * {n}).softmax(dim=-1) @ {x4}
---
{a} = ({x4} @ {x4}.transpose(-2, -1)).div({pos}).softmax(dim={dim}).matmul({x4})
---
{a} = {x4} @ {x4}.transpose(-2, -1) / {pos}
{b} = ({a} + {a}.tril()).softmax(-1) @ {x4}
{c} = {a} * 2
---
{a} = {x3} @ {x3}.transpose(-2, -1) * {n}
{b} = {a}.masked_fill(torch.ones_like({a}).triu(1) > 0, {n2}).softmax(-1) @ {x3}
---
{a} = ({x4} @ {x4}.transpose(-2, -1) * {n}).softmax(-1, dtype={float}).to({x4}.dtype) @ {x4}
---
{a} = {x4}.permute(0, 2, 1, 3)
{b} = ({a} @ {a}.transpose(-2, -1) / {pos}).softmax(-1)
{c} = F.dropout({b}, {rate}, False) @ {a}
---
{a} = ({x} / {pos}).round().clamp(-8, 7).to(torch.int8)
{b} = {a}.to({float}) * {pos}
---
{a} = torch.fake_quantize_per_tensor_affine({x}, {pos}, 2, -128, 127)
---
{a} = torch.where({x} > {n}, {x}, {y})
{b} = torch.where({x} > {n}, {a}, {n2})
---
{a} = torch.arange({x}.shape[{dim}], dtype={dtype})
{b} = {x}.sum() + {a} * {n}
---
{a} = {x}.mean({dims}, keepdim={keep}) * torch.tensor({n})
---
{a} = torch.ones({size}, dtype={dtype}).sum() * {x}
---
{a} = torch.full(({k}, {k2}), {n}).sum(-1) + {x}.sum()
---
{a} = torch.einsum("ij,kj->ik", {x2}, {x2})
{b} = {a} + {a}.T
---
{a} = {x}.view({shape}).add_({y})
{b} = {x} * 2
---
{a} = {x}.t() if {x}.dim() < 3 else {x}.mT
{b} = {a}.contiguous().add_(1) + {a}
---
{a} = {x}[..., 0]
{a}.add_({n})
{b} = {x} * {n2}
---
{a} = {x}.clone()
{b} = {a}.narrow({dim}, 0, 1)
{c} = {a} * 2
{b}.mul_({n})
{d} = {a} + {c}
---
{a} = {x}.clone()
{b} = {a}.permute({perm})
{a}.copy_({a}.flip({dim}))
{c} = {b} * 2
---
{a} = {x}.relu()
{b} = {a}.detach()
{b}.add_({n})
{c} = {a} * {n2}
---
{a} = {x}.clone()
{b} = {a}.view(-1)
{b}[::2] = {n}
{c} = {a} + {x}
---
{a} = {x}.clone()
{a}.copy_({y}.to({dtype}))
{b} = {a} * {n}
---
{buffer}.add_({x}.detach())
{a} = {x} * {buffer}
---
{a} = {x} * {count}
{count}.mul_(2)
{b} = {a} + {count}
---
{buffer}.copy_({x}.detach().clamp({n}))
{a} = {buffer} * 2
{buffer}.neg_()
---
{a} = {buffer} + {x}
{buffer}[..., 0] = {n}
{b} = {buffer} * {x}
---
{a} = {x}.as_strided({shape}, {x}.stride())
{b} = {a} + 1
---
{a} = {x}.unfold({dim}, 1, 1).squeeze(-1)
{b} = {a} - {x}
---
{a} = {x}.unfold({dim}, 2, 1) * {n}
---
{a} = {y}.clone().expand_as({x}).clone()
{a}[:] = {x}[:]
{x}.add_(1)
---
{x}[1:] = {x}[:-1].clone()
{a} = {x} * {n}
---
torch._foreach_add_([{x}], [{x}.flip({dim})])
{a} = {x} * {n}
---
{x}.index_put_(({unique},), {x}[{unique}] * 2)
{x}.add_({x}.flip({dim}))
{a} = {x} + 1
---
{a} = {x}.index_fill_(0, {unique}, {n})
{b} = {x}.clone()
{x}.clamp_(0, 1)
---
{a} = F.dropout({x}, {rate}, False)
{a} += {y}
{b} = {a} * {n}
---
{a} = torch.slice_scatter({x}, {x}[:1] * 2, 0, -1)
{x}.zero_()
---
{a} = torch.diagonal_scatter({x2}, {x2}.diagonal())
{x2}.fill_({n})
---
{a} = {x}.index_copy({dim}, {unique}, {x}.index_select({dim}, {unique}) * {n})
{x}.neg_()
---
{a} = {x}.contiguous()
{a}.mul_({n})
{b} = {x} + {a}
---
{a} = {x}.expand(2, *{shape})
{x}.add_(1)
{b} = {a}.sum(0)
---
{a} = {x}.reshape({flat})
{x}.mul_({n})
{b} = {a} + 1
---
{a} = torch.where({x} > 0, {x}, {n})
{x}.copy_({a}.flip({dim}))
{b} = {a} - {x}
---
{a} = torch.empty_like({x}).fill_({n})
{b} = torch.add({x}, {a}, out={a})
{c} = {a} * {n2}
---
{a} = {x}.new_zeros({shape})
torch.mul({x}, {n}, out={a})
{b} = {a} - {x}
"""
"""Forms that pattern matchers look for."""

OPERATORS = """
torch.add({x}, {y}, alpha={n})
torch.sub({x}, {y}, alpha={n})
torch.rsub({x}, {y}, alpha={n})
torch.add({i}, {j}, alpha={whole})
{i} * {n}
{i} + {x}.sum()
{i} / {whole}
{i} // {whole}
{i} % {whole}
torch.div({i}, {whole}, rounding_mode="trunc")
torch.div({x}, {pos}, rounding_mode="floor")
torch.div({x}, {pos}, rounding_mode="trunc")
torch.remainder({x}, {whole})
torch.fmod({x}, {whole})
torch.fmod({i}, {whole})
torch.floor_divide({x}, {pos})
{i} << {k}
{i} >> {k}
{i} & {j}
{i} ^ {whole}
~{i}
{i}.abs() + {i}.sign()
{i}.to({int}) * 100
{i}.to({int}) - 7
{i}.to({dtype})
{i}.sum({dim}, dtype={dtype})
{i}.prod({dim}, keepdim={keep})
{i}.float().mean({dim}, keepdim={keep})
{i}.cumsum({dim})
{i}.cumprod({dim}, dtype={dtype})
{i}.amax({dims}, keepdim={keep})
{i}.amin({dim}) + {n}
{i}.clamp({whole}, {k})
{i}.clamp_min({n})
{i}.bool().sum({dim})
{i}.bool().any({dim}, keepdim={keep})
({i} > {whole}).all({dim})
({i} == {j}).to({dtype})
{i}.float().argmax({dim}, keepdim={keep})
{i}.pow({k})
{i}.float().pow({n})
torch.where({i} > {whole}, {i}, {n})
torch.maximum({i}, {j})
torch.gcd({i}, {j})
{x}.sum({dims}, keepdim={keep})
{x}.sum({dim}, dtype={float})
{x}.sum(dtype={float})
{x}.mean({dims}, keepdim={keep}, dtype={float})
{x}.prod({dim}, keepdim={keep})
{x}.prod()
{x}.amax({dims}, keepdim={keep})
{x}.amin({dims}, keepdim={keep})
{x}.amax(keepdim={keep})
{x}.max({dim}, keepdim={keep})[0]
{x}.max({dim}, keepdim={keep})[1]
{x}.argmin({dim}, keepdim={keep})
{x}.argmax()
torch.aminmax({x}, dim={dim}, keepdim={keep})[0]
{x}.var({dims}, unbiased={bool}, keepdim={keep})
{x}.std({dim}, correction={kz}, keepdim={keep})
torch.var_mean({x}, {dims}, correction={kz})[0]
torch.std_mean({x}, {dim}, keepdim={keep})[1]
{x}.norm({n}, {dim}, keepdim={keep})
torch.linalg.vector_norm({x}, {n}, {dims}, keepdim={keep}, dtype={float})
{x}.logsumexp({dims}, keepdim={keep})
{x}.softmax({dim}, dtype={float})
{x}.log_softmax({dim})
F.softmin({x}, {dim})
{x}.cumsum({dim}, dtype={float})
{x}.cumprod({dim})
{x}.cummax({dim})[0]
{x}.cummin({dim})[1]
{x}.logcumsumexp({dim})
{x}.nansum({dim}, keepdim={keep})
{x}.nanmean({dim})
{x}.median({dim})[0]
{x}.sort({dim}, descending={bool})[0]
{x}.argsort({dim}, descending={bool})
{x}.topk(1, {dim}, largest={bool})[0]
{x}.kthvalue(1, {dim}, keepdim={keep})[0]
{x}.diff(dim={dim})
{x}.diff(n={k}, dim={dim}, prepend={x}.narrow({dim}, 0, 1))
{x}.count_nonzero({dim})
{x}.any({dim})
{x}.all()
torch.trapezoid({x}, dx={pos}, dim={dim})
torch.cumulative_trapezoid({x}, dim={dim})
{x}.roll({whole}, {dim})
{x}.roll(({k}, {whole}), ({dim}, {other}))
{x}.flip({dims})
{x}.rot90({whole}, (0, 1))
{x}.narrow({dim}, 0, 1)
{x}[..., ::2]
{x}[..., -1:]
{x}[None] + {x}[..., None]
{x}.movedim({dim}, {other})
{x}.transpose({dim}, {other})
{x}.flatten({dim})
{x}.reshape({flat})
{x}.squeeze({dim})
{x}.unsqueeze({dim})
{x}.repeat(2, *(1 for _ in {shape}))
{x}.tile(({k},))
{x}.repeat_interleave({k}, {dim})
{x}.expand(3, *{shape})
{x}.unfold({dim}, {k}, {k2})
{x}.diagonal(0, 0, -1)
torch.diag_embed({x}, {kz})
{x}.tril({kz})
{x}.triu(-{k})
{x2}.diag({kz})
{x}.trace() if {x}.dim() == 2 else {x}
{x}.index_select({dim}, {index})
{x}[{rows}]
{x}[..., {columns}]
{x}.gather({dim}, {places})
{x}.take({elements})
torch.take_along_dim({x}, {places}, {dim})
{x}.scatter({dim}, {places}[..., :1], {n})
{x}.scatter_add({dim}, {places}, {x})
{x}.scatter_reduce({dim}, {places}, {x}, "amax", include_self={bool})
{x}.scatter_reduce({dim}, {places}, {x}, "sum", include_self={bool})
{x}.scatter_reduce({dim}, {places}, {x}, "mean", include_self={bool})
{x}.scatter_reduce({dim}, {places}, {x}, "prod", include_self={bool})
{x}.index_add({dim}, {index}, {x}.index_select({dim}, {index}), alpha={n})
{x}.index_fill({dim}, {index}, {n})
{x}.index_put(({rows},), torch.tensor({n}, dtype={x}.dtype))
{x}.index_put(({rows},), {x}[{rows}], accumulate=True)
{x}.index_reduce({dim}, {index}, {x}.index_select({dim}, {index}), "amin")
{x}.masked_fill({mask}, {n})
{x}.masked_fill(~{mask}, {n})
{x}.masked_scatter({mask}, {x}.flip(0))
torch.where({mask}, {x}, {n})
torch.where({mask}, {n}, {y})
torch.where({x} > 0, 1, 0)
torch.where({x} > 0, {i}.sum(), {n})
F.one_hot({places}, {size})
F.embedding({rows}, {x2})
F.embedding({places}, {x2})
F.embedding_bag({rows}[None], {x2}, mode="mean")
F.pad({x}, ({k}, {k2}), value={n})
F.pad({x}, (-1, {k}), value={n})
F.pad({x3}, (1, 0), mode="reflect")
F.pad({x3}, ({k}, 1), mode="replicate")
F.pad({x4}, (1, 1, 1, 0), mode="circular")
F.pad({x4}, (1, 0, 0, 1), mode="reflect")
F.max_pool2d({x4}, {k}, {k2}, ceil_mode={bool})
F.max_pool2d({x4}, 3, 2, 1, ceil_mode={bool}, return_indices=True)[1]
F.max_pool2d({x4}, 2, 1, 0, 2)
F.max_pool1d({x3}, {k}, {k2}, ceil_mode={bool})
F.avg_pool2d({x4}, {k}, {k2}, ceil_mode={bool})
F.avg_pool2d({x4}, 3, 2, 1, ceil_mode={bool}, count_include_pad={bool2})
F.avg_pool2d({x4}, 2, 2, 1, divisor_override={k})
F.avg_pool1d({x3}, {k}, 2, 0, {bool}, {bool2})
F.adaptive_avg_pool2d({x4}, ({k}, {k2}))
F.adaptive_max_pool2d({x4}, {k})
F.adaptive_avg_pool1d({x3}, {k})
F.lp_pool2d({x4}, {k}, 2)
F.interpolate({x4}, scale_factor={k}, mode="nearest")
F.interpolate({x4}, scale_factor=1.5, mode="bilinear", align_corners={bool})
F.interpolate({x4}, size=({k}, 5), mode="bicubic", align_corners={bool})
F.interpolate({x4}, size=5, mode="nearest-exact")
F.interpolate({x4}, size=3, mode="bilinear", antialias=True)
F.interpolate({x3}, scale_factor=0.7, mode="linear", recompute_scale_factor={bool})
F.grid_sample({x4}, {x4}[:, :1, :, :, None].expand(-1, 1, -1, -1, 2)[:, 0].tanh(), align_corners={bool})
F.pixel_shuffle({x4}, {k})
F.pixel_unshuffle({x4}, {k})
F.channel_shuffle({x4}, {k})
F.unfold({x4}, {k}, padding=1)
F.fold(F.unfold({x4}, 1), {x4}.shape[2:], 1)
F.local_response_norm({x4}, {k})
F.normalize({x}, p={k}, dim={dim})
F.cosine_similarity({x}, {y}, dim={dim})
F.pairwise_distance({x}, {y}, keepdim={keep})
torch.cdist({x3}, {x3}, p={pos})
F.layer_norm({x}, ({size},), eps={pos})
F.layer_norm({x}, {shape}, eps={pos})
F.group_norm({x4}, 1, eps={pos})
F.instance_norm({x4}, eps={pos})
F.rms_norm({x}, ({size},), eps={pos})
F.batch_norm({x2}, {vector} * 0, {vector}.abs() + 1, {vector}, eps={pos})
F.relu({x}) + F.relu6({x} * 5)
F.gelu({x}, approximate="tanh")
F.gelu({x})
F.leaky_relu({x}, {n})
F.elu({x}, {n})
F.celu({x}, {pos})
F.selu({x})
F.hardtanh({x}, {n}, {pos})
F.hardsigmoid({x}) * F.hardswish({x})
F.softplus({x}, beta={k}, threshold={k2})
F.softshrink({x}, {pos})
F.hardshrink({x}, {pos})
F.tanhshrink({x})
F.threshold({x}, {n}, {n2})
F.prelu({x}, torch.tensor([0.2], dtype={x}.dtype))
F.rrelu({x}, 0.1, 0.3, False)
F.glu(torch.cat([{x}, {x}], {dim}), {dim})
F.logsigmoid({x})
F.mish({x})
F.silu({x}) * {y}
{x}.clamp({n}, {n2})
{x}.clamp({y}, {n} + {y})
{x}.clamp(max={n})
{x}.nan_to_num({n})
{x}.round(decimals={kz})
{x}.round() + {x}.floor() * {x}.ceil()
{x}.trunc() - {x}.frac()
{x}.sign() * {x}.abs()
{x}.sgn() + {x}.signbit()
{x}.heaviside({y})
{x}.copysign({y})
{x}.copysign({n})
torch.ldexp({x}, torch.tensor({k}))
torch.frexp({x})[0]
torch.frexp({x})[1]
{x}.abs().pow({n})
{x}.pow({k})
torch.pow({pos}, {x})
{x}.square() - {x}.pow(2)
{x}.abs().sqrt() * {x}.abs().rsqrt().clamp(max=9)
{x}.exp2().log2()
{x}.expm1().log1p()
{x}.sigmoid().logit({pos})
{x}.erf() + {x}.erfc()
{x}.tanh().erfinv()
{x}.sinc() + torch.special.i0({x})
{x}.abs().lgamma().clamp(-9, 9)
torch.special.xlog1py({y}, {x}.abs())
torch.xlogy({y}, {x}.abs() + 1)
torch.special.entr({x}.abs())
torch.special.ndtr({x})
{x}.atan2({y})
torch.hypot({x}, {y})
torch.logaddexp({x}, {y})
torch.logaddexp2({x}, {y})
torch.fmax({x}, {y}) - torch.fmin({x}, {y})
torch.maximum({x}, {y}) * torch.minimum({x}, {y})
torch.lerp({x}, {y}, {n})
torch.lerp({x}, {y}, {x}.sigmoid())
torch.addcmul({x}, {x}, {y}, value={n})
torch.addcdiv({x}, {x}, {y}.abs() + 1, value={n})
torch.addmv({x2}.sum(1), {x2}, {x2}.sum(0), beta={n}, alpha={n2})
torch.addr({x2}, {x2}.sum(1), {x2}.sum(0), beta={n}, alpha={n2})
torch.addbmm({x3}.sum(0), {x3}, {x3}.transpose(1, 2) @ {x3}, beta={n}, alpha={n2})
torch.tensordot({x}, {x}, ([{dim}], [{dim}]))
torch.outer({x}.flatten()[:4], {x}.flatten()[:3])
torch.kron({x2}, {x2}[:1, :2])
torch.cross({x2}[:, :1].expand(-1, 3), {x2}[:, -1:].expand(-1, 3).flip(1) * 2, dim=1)
torch.linalg.multi_dot([{x2}, {weight}])
torch.block_diag({x2}, {x2})
torch.cov({x2}, correction={kz})
torch.renorm({x2}, {k}, 0, {pos})
torch.bucketize({x}, {vector}.sort()[0], right={bool})
torch.searchsorted({vector}.sort()[0], {x}, right={bool}, out_int32={bool2})
torch.isin({i}, {whole})
torch.isclose({x}, {y}, rtol={pos})
torch.histc({x}, {k}, -1, 1)
torch.vander({vector}, {k})
torch.combinations({vector}, {k})
torch.cartesian_prod({vector}, {vector})
torch.meshgrid({vector}, {vector}, indexing="xy")[0]
torch.linspace({n}, {k}, {size}, dtype={x}.dtype) + {x}
torch.logspace(0, {k}, {size}) * {x}
torch.eye({size}, dtype={dtype}) + {x}
torch.arange({size}, 0, -1) * {x}
torch.arange(0, {size}, {k}).sum() + {x}
torch.full_like({x}, {n}, dtype={dtype}) + {x}
torch.tensor({n}, dtype={dtype}) * {x}
torch.tensor({whole}) / {x}.abs().clamp(min=1)
torch.scalar_tensor({n}, dtype={dtype}) + {i}
{x} * True + {x} * {n}
{n} - {x}
{n} / ({x}.abs() + 1)
{x}.to({dtype})
{x}.to({dtype}) * {n}
{x}.to({float}) + {y}
{x}.to({signed}).to({float})
{x}.abs().clamp(max=9).to(torch.uint8) + 250
{x}.clamp(-9, 9).to(torch.int8) * 20
({x} > {n}) * {y}
({x} > {n}) & ({x} < {n2})
({x} > {n}).logical_xor({y} > 0)
({x} > 0).sum({dim}, keepdim={keep})
({x} > 0).cumsum({dim})
({x} > 0).float().mean({dim})
({x} > 0) + ({y} > 0)
({x} > 0).to(torch.int8) - 1
{x}.eq({y}) | {x}.ne({n})
{x}.bool()
{x}.float().view(torch.int32).view(torch.float32)
{x}.int().bitwise_not()
{x}.double().float().half().float()
F.mse_loss({x}, {y}, reduction="none")
F.smooth_l1_loss({x}, {y}, beta={pos})
F.huber_loss({x}, {y}, delta={pos})
F.l1_loss({x}, {y}, reduction="sum")
F.cross_entropy({x2}, {x2}.argmax(1), label_smoothing=0.1)
F.cross_entropy({x2}, {x2}.softmax(1), reduction="sum")
F.nll_loss({x2}.log_softmax(1), {x2}.argmax(1), ignore_index=0, reduction="sum")
F.kl_div({x}.log_softmax(-1), {x}.softmax(-1), reduction="batchmean", log_target={bool})
F.binary_cross_entropy_with_logits({x}, {x}.sigmoid(), pos_weight={vector})
F.gaussian_nll_loss({x}, {y}, {x}.abs() + 1)
F.poisson_nll_loss({x}, {y}.abs(), full={bool})
F.margin_ranking_loss({x}, {y}, {x}.sign(), margin={pos})
F.triplet_margin_loss({x2}, {x2}.flip(0), {x2} * 2)
F.cosine_embedding_loss({x2}, {x2}.flip(0), torch.ones(1))
{linear}({x})
{linear}({x}).relu() * {linear}({x})
{conv}({x4})
{norm2d}({x4})
{norm}({x})
{act}({x})
F.conv1d({x3}, {x3}[:1, :, :1], stride={k}, padding={k2})
F.conv1d({x3}, {x3}[:1], padding="same")
F.bilinear({x2}, {x2}, {x2}[None, :1].expand(3, {size}, {size}))
"""
"""Expressions whose value is a tensor, one a line."""

IDIOMS = tuple(
    [idiom for idiom in PATTERNS.split("---\n") for _ in range(3)]
    + [f"{{a}} = {line}" for line in OPERATORS.strip().splitlines()]
)
"""All idioms; patterns count three times."""
