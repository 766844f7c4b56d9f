// A device with memory of its own as far as PyTorch can tell: its memory is the CPU's, and so are its kernels.
#include <ATen/EmptyTensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorShape.h>
#include <ATen/ops/_copy_from_and_resize_native.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <cstdlib>
#include <torch/library.h>

namespace {

constexpr auto FAR = c10::DeviceType::PrivateUse1;

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    auto* memory = n ? std::malloc(n) : nullptr;
    return {memory, memory, &std::free, c10::Device(FAR, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
};
Allocator allocator;

void check(at::ScalarType type) {
  static const bool lacks_float64 = std::getenv("FAR_WITHOUT_FLOAT64") != nullptr;
  TORCH_CHECK_TYPE(!lacks_float64 || type != at::kDouble, "Cannot convert to float64: the far device has no float64");
}

at::Tensor empty(
    c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<c10::Layout>, std::optional<c10::Device>,
    std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  const auto type = c10::dtype_or_default(dtype);
  check(type);
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type, format);
}

at::Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<c10::Device>, std::optional<bool>) {
  const auto type = c10::dtype_or_default(dtype);
  check(type);
  return at::detail::empty_strided_generic(
      size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type);
}

// The same memory, as a tensor of the CPU.
at::Tensor near(const at::Tensor& x) {
  if (x.device().type() != FAR) return x;
  return at::from_blob(x.data_ptr(), x.sizes(), x.strides(), x.options().device(at::kCPU));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  near(to).copy_(near(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  near(to).copy_(near(from));
  return to;
}

at::Scalar item(const at::Tensor& x) { return at::_local_scalar_dense(near(x)); }

at::Tensor& hold(
    at::Tensor& x, at::Storage memory, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  auto* held = x.unsafeGetTensorImpl();
  held->set_storage_keep_dtype(std::move(memory));
  held->set_storage_offset(offset);
  stride.empty() ? held->set_sizes_contiguous(size) : held->set_sizes_and_strides(size, stride);
  return x;
}

at::Tensor& hold_all(at::Tensor& x, at::Storage memory) {
  const auto count = static_cast<int64_t>(memory.nbytes() / x.itemsize());
  return hold(x, std::move(memory), 0, {count}, {});
}

// Convolutions of a device without a kernel of its own come here, and not to the fallback.
at::Tensor convolve(
    const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, c10::IntArrayRef stride,
    c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed, c10::IntArrayRef output_padding,
    int64_t groups) {
  const auto added = bias && bias->defined() ? std::make_optional(near(*bias)) : std::nullopt;
  return at::convolution(near(x), near(weight), added, stride, padding, dilation, transposed, output_padding, groups)
      .to(x.device());
}

// Kernels of other devices take numbers from the CPU, and no other tensors; indices are the exception.
void run_on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto count = op.schema().arguments().size();
  const auto name = op.schema().name();
  bool far = false;
  std::vector<at::Tensor> others;
  const auto see = [&](const at::Tensor& x) {
    if (!x.defined()) return;
    if (x.device().type() == FAR) far = true;
    else if (x.dim()) others.push_back(x);
  };
  for (const auto& value : torch::jit::last(*stack, count)) {
    if (value.isTensor()) see(value.toTensor());
    else if (value.isTensorList()) for (const at::Tensor& x : value.toTensorVector()) see(x);
  }
  const bool indexes = name == "aten::index" || name == "aten::index_put_" || name == "aten::_index_put_impl_";
  TORCH_CHECK(
      !far || others.empty() || indexes,
      "Expected all tensors to be on the same device, but found far:0 and cpu, in ", name);
  at::native::cpu_fallback(op, stack);
}

} // namespace

namespace c10 { REGISTER_ALLOCATOR(FAR, &allocator) }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", item);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("unfold", at::native::unfold);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("convolution_overrideable", convolve);
  m.impl("resize_", at::native::resize_);
  m.impl("set_.source_Storage", hold_all);
  m.impl("set_.source_Storage_storage_offset", hold);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_the_cpu>()); }
