// What the native kernels share: vectors and blocks of them, checks of arguments, losses and MAML's
// gradient descent.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

// Before loops over vectors that are to stay in registers: by itself GCC unrolls them too late.
#define LFT_UNROLL _Pragma("GCC unroll 16")

namespace lft {

// ---- vectors

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), may_alias, aligned(4)));

inline vec& vec_at(float* p) { return *reinterpret_cast<vec*>(p); }
inline vec vec_at(const float* p) { return *reinterpret_cast<const vec*>(p); }

// The floats of whole vectors that hold so many.
constexpr int64_t padded(int64_t floats) { return (floats + LANES - 1) / LANES * LANES; }

// Calls f<N>(begin) over [begin, end) in blocks of N <= MAX as equal as can be: the sums of a small
// block would leave the multipliers waiting.
template <int MAX, class F>
void in_blocks(int64_t begin, int64_t end, const F& f) {
  if (begin == end) return;
  const int64_t blocks = (end - begin + MAX - 1) / MAX;
  const int64_t size = (end - begin + blocks - 1) / blocks;
  const auto call = [&](int64_t n) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
      ((n == I + 1 ? f.template operator()<I + 1>(begin) : void()), ...);
    }(std::make_integer_sequence<int, MAX>());
  };
  for (; begin < end; begin += size) call(std::min(size, end - begin));
}

// ---- arguments

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

// ---- losses

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

// ---- gradient descent

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
