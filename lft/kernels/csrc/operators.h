// Helpers of every operator: check arguments, make results, register with torch.

#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <string>
#include <vector>

namespace lft {

// Raises an error that names the tensor, unless it is contiguous, on the CPU, and of this shape and
// type.
inline void check(const at::Tensor& tensor, at::IntArrayRef shape, const char* name,
                  at::ScalarType type = at::kFloat) {
  TORCH_CHECK(tensor.scalar_type() == type && tensor.device().is_cpu() && tensor.is_contiguous() &&
                  tensor.sizes() == shape,
              name, " must be contiguous ", type, " of shape ", shape, " on the CPU, not ",
              tensor.scalar_type(), " of shape ", tensor.sizes(), " on ", tensor.device());
}

inline std::vector<at::Tensor> like(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(at::empty_like(tensor));
  return result;
}

// Part k of a tensor along its first dimension.
template <class T>
T* part(const at::Tensor& tensor, int64_t k) {
  return static_cast<T*>(tensor.data_ptr()) + k * (tensor.numel() / tensor.size(0));
}

// Registers f for the CPU under its schema. Autograd falls through to it: derivatives are separate
// operators.
template <class F>
void define(torch::Library& library, const std::string& schema, F* f) {
  const std::string name = schema.substr(0, schema.find('('));
  library.def(schema.c_str());
  library.impl(name.c_str(), torch::dispatch(c10::DispatchKey::CPU, f));
  library.impl(name.c_str(), torch::dispatch(c10::DispatchKey::Autograd,
                                             torch::CppFunction::makeFallthrough()));
}

}  // namespace lft
