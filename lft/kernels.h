// What the native kernels share: checks of their arguments, losses and MAML's gradient descent.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

// Before loops over vectors that are to stay in registers; left to itself GCC unrolls them too late.
#define UNROLL _Pragma("GCC unroll 16")

namespace lft {

// Raises an error that calls the tensor by its name if it is not a contiguous one of this kind.
inline void check(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType type,
                  const char* kernel, const char* name) {
  TORCH_CHECK(tensor.scalar_type() == type && tensor.device().is_cpu() && tensor.is_contiguous() &&
                  tensor.sizes() == shape,
              kernel, ": ", name, " must be contiguous ", type, " of shape ", shape,
              " on the CPU, not ", tensor.scalar_type(), " of shape ", tensor.sizes(), " on ",
              tensor.device());
}

// Labels (B, n) of so many classes.
inline void check_labels(const at::Tensor& y, at::IntArrayRef shape, int64_t classes,
                         const char* kernel) {
  check(y, shape, at::kLong, kernel, "labels");
  const int64_t* labels = y.const_data_ptr<int64_t>();
  TORCH_CHECK(std::all_of(labels, labels + y.numel(),
                          [&](int64_t label) { return 0 <= label && label < classes; }),
              kernel, ": labels must be in [0, ", classes, ")");
}

inline std::vector<at::Tensor> like(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(at::empty_like(tensor));
  return result;
}

// One task's part of a tensor (B, ...).
template <class T>
T* part(const at::Tensor& tensor, int64_t task) {
  return static_cast<T*>(tensor.data_ptr()) + task * (tensor.numel() / tensor.size(0));
}

// The probabilities of n logits to p; returns the logarithm of the sum of exp(logits).
inline float softmax(const float* logits, int64_t n, float* p) {
  const float largest = *std::max_element(logits, logits + n);
  float sum = 0.0f;
  for (int64_t k = 0; k < n; ++k) sum += p[k] = std::exp(logits[k] - largest);
  for (int64_t k = 0; k < n; ++k) p[k] /= sum;
  return std::log(sum) + largest;
}

// scale times the gradient of the cross-entropy of logits, (p - 1[label]), to d; returns the loss.
inline float cross_entropy(const float* logits, int64_t n, int64_t label, float scale, float* d) {
  const float logarithm = softmax(logits, n, d);
  for (int64_t k = 0; k < n; ++k) d[k] *= scale;
  d[label] -= scale;
  return logarithm - logits[label];
}

// The derivative of that gradient along a change r of the logits, to r_d.
inline void cross_entropy_tangent(const float* logits, const float* r, int64_t n, float scale,
                                  float* r_d) {
  softmax(logits, n, r_d);
  float mean = 0.0f;
  for (int64_t k = 0; k < n; ++k) mean += r_d[k] * r[k];
  for (int64_t k = 0; k < n; ++k) r_d[k] *= scale * (r[k] - mean);
}

// Gradient descent of one task from path[0] to path.back(): returns the query loss there and sets v
// to its gradient in path[0]. With v = d loss / d params, from the last step to the first
// v -= step_size * Hessian v.
//
// gradient(point, to) is that of the support loss, query(point, to) likewise and returns the loss,
// hessian(point, v, to), later, is the product of the support loss's Hessian with v.
// set_sum(from, factor, change, to) sets to = from + factor * change, for points and for v.
template <class Point, class Params, class Gradient, class Query, class Hessian>
float descend(std::vector<Point>& path, Params& v, float step_size, const Gradient& gradient,
              const Query& query, const Hessian& hessian) {
  Params change = v;
  for (size_t k = 0; k + 1 < path.size(); ++k) {
    gradient(path[k], change);
    set_sum(path[k], -step_size, change, path[k + 1]);
  }
  const float loss = query(path.back(), v);
  for (size_t k = path.size() - 1; k-- > 0;) {
    hessian(path[k], v, change);
    set_sum(v, -step_size, change, v);
  }
  return loss;
}

}  // namespace lft
