// Batches of per-task networks: parameters, losses, MAML's gradient descent.

#pragma once

#include <cmath>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "operators.h"
#include "vectors.h"

namespace lft {

// to(first_to + j, i) = from(first + i, j) for i < rows and all columns j, in blocks of 4 x 4.
inline void transpose(const Matrix& from, int64_t first, int64_t rows, Matrix& to,
                      int64_t first_to) {
  for (int64_t i = 0; i < rows; i += 4) {
    const int64_t height = std::min<int64_t>(4, rows - i);
    const float* block = from.row(first + i);
    float* transposed = to.row(first_to) + i;
    int64_t j = 0;
#if defined(__SSE__)
    for (; height == 4 && j + 4 <= from.columns; j += 4, transposed += 4 * to.stride) {
      __m128 rows[4];
      for (int r = 0; r < 4; ++r) rows[r] = _mm_loadu_ps(block + r * from.stride + j);
      _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
      for (int r = 0; r < 4; ++r) _mm_storeu_ps(transposed + r * to.stride, rows[r]);
    }
#endif
    for (; j < from.columns; ++j, transposed += to.stride)
      for (int64_t r = 0; r < height; ++r) transposed[r] = block[r * from.stride + j];
  }
}

// ---- a task's parameters, or anything of the same shapes

// Weights are (in, out), or (taps, in) x out for a convolution, whose tensor is (out, in, taps).
struct Layer {
  int64_t in, out, taps = 1;
  Matrix w{taps * in, out}, b{1, out};
  Matrix w_transposed{0, 0};  // for the backward pass, where it is needed

  // w_transposed = (taps, out) x in, with the taps in the given order
  void transpose(const std::vector<int64_t>& order) {
    if (w_transposed.rows == 0) w_transposed = {taps * out, in};
    for (int64_t k = 0; k < taps; ++k)
      lft::transpose(w, order[k] * in, in, w_transposed, k * out);
  }
  // Calls f(weight) in the order of a convolution's tensor.
  template <class F>
  void for_each_weight(const F& f) {
    for (int64_t o = 0; o < out; ++o)
      for (int64_t c = 0; c < in; ++c)
        for (int64_t tap = 0; tap < taps; ++tap) f(w.row(tap * in + c)[o]);
  }
};
using Layers = std::vector<Layer>;

inline void load(const std::vector<at::Tensor>& params, int64_t task, Layers& to) {
  for (size_t l = 0; l < to.size(); ++l) {
    const float* weight = part<const float>(params[2 * l], task);
    if (to[l].taps == 1)
      to[l].w.load(weight);
    else
      to[l].for_each_weight([&](float& element) { element = *weight++; });
    to[l].b.load(part<const float>(params[2 * l + 1], task));
  }
}
inline void store(Layers& from, int64_t task, const std::vector<at::Tensor>& params) {
  for (size_t l = 0; l < from.size(); ++l) {
    float* weight = part<float>(params[2 * l], task);
    if (from[l].taps == 1)
      from[l].w.store(weight);
    else
      from[l].for_each_weight([&](float element) { *weight++ = element; });
    from[l].b.store(part<float>(params[2 * l + 1], task));
  }
}

// to = from + factor * change
inline void set_sum(const Layers& from, float factor, const Layers& change, Layers& to) {
  const auto set = [&](const Floats& from, const Floats& change, Floats& to) {
    for (size_t k = 0; k < from.size(); ++k) to[k] = from[k] + factor * change[k];
  };
  for (size_t l = 0; l < from.size(); ++l) {
    set(from[l].w.data, change[l].w.data, to[l].w.data);
    set(from[l].b.data, change[l].b.data, to[l].b.data);
  }
}

// The linear layer of params k and k + 1: weights (B, in, out) and biases (B, 1, out).
inline Layer linear_layer(const std::vector<at::Tensor>& params, size_t k, int64_t n_tasks,
                          int64_t in) {
  TORCH_CHECK(params[k].dim() == 3, "weights of linear layers must be (B, in, out)");
  const int64_t out = params[k].size(2);
  check(params[k], {n_tasks, in, out}, "weight");
  check(params[k + 1], {n_tasks, 1, out}, "bias");
  return {in, out};
}

// ---- losses

// Writes the probabilities of n logits to p; returns the logarithm of the sum of exp(logits).
inline float softmax(const float* logits, int64_t n, float* p) {
  const float largest = *std::max_element(logits, logits + n);
  float sum = 0.0f;
  for (int64_t k = 0; k < n; ++k) sum += p[k] = std::exp(logits[k] - largest);
  for (int64_t k = 0; k < n; ++k) p[k] /= sum;
  return std::log(sum) + largest;
}

// The examples of one task. The loss is the mean cross-entropy of softmax(outputs) against labels,
// or the mean squared error against targets.
struct Examples {
  int64_t n, outputs;
  const float* x;
  const int64_t* labels;  // null where there are targets
  const float* targets;

  // y: labels (B, n) or targets (B, n, outputs)
  static void check(const at::Tensor& x, const at::Tensor& y, int64_t outputs) {
    if (y.scalar_type() != at::kLong)
      return lft::check(y, {x.size(0), x.size(1), outputs}, "targets");
    lft::check(y, {x.size(0), x.size(1)}, "labels", at::kLong);
    const int64_t* labels = y.const_data_ptr<int64_t>();
    TORCH_CHECK(std::all_of(labels, labels + y.numel(),
                            [&](int64_t label) { return 0 <= label && label < outputs; }),
                "labels must be in [0, ", outputs, ")");
  }

  Examples(const at::Tensor& x, const at::Tensor& y, int64_t task, int64_t outputs)
      : n(x.size(1)),
        outputs(outputs),
        x(part<const float>(x, task)),
        labels(y.scalar_type() == at::kLong ? part<const int64_t>(y, task) : nullptr),
        targets(labels ? nullptr : part<const float>(y, task)) {}

  // The number of terms of which the loss is the mean.
  int64_t terms() const { return labels ? n : n * outputs; }

  // Writes the loss's gradient with respect to example k's outputs to d; returns the sum of the
  // example's terms.
  double gradient(int64_t k, const float* out, float* d) const {
    if (labels) {
      const float scale = 1.0f / n, logarithm = softmax(out, outputs, d);
      for (int64_t o = 0; o < outputs; ++o) d[o] *= scale;
      d[labels[k]] -= scale;
      return logarithm - out[labels[k]];
    }
    const float scale = 2.0f / terms();
    double total = 0.0;
    for (int64_t o = 0; o < outputs; ++o) {
      const float error = out[o] - targets[k * outputs + o];
      d[o] = scale * error;
      total += error * error;
    }
    return total;
  }

  // Writes the derivative of that gradient along a change r of the outputs to r_d.
  void tangent(const float* out, const float* r, float* r_d) const {
    if (labels) {
      softmax(out, outputs, r_d);
      float mean = 0.0f;
      for (int64_t o = 0; o < outputs; ++o) mean += r_d[o] * r[o];
      for (int64_t o = 0; o < outputs; ++o) r_d[o] *= 1.0f / n * (r[o] - mean);
    } else {
      for (int64_t o = 0; o < outputs; ++o) r_d[o] = 2.0f / terms() * r[o];
    }
  }
};


// ---- operators
//
// A kernel defines
//   Network(params, x): checks both; its `layers` are all zeros;
//   Point{network}: a task's parameters `net`, and whatever its gradient keeps for the Hessian;
//   Task(network, order): a thread's memory for derivatives up to this order, with
//     gradient(point, examples, to): writes the gradient in the parameters, returns the loss;
//     hessian_product(point, examples, v, to): writes the Hessian times v; call it after gradient.

// The loss of each task (B), and its gradients, shaped as params.
template <class Network, class Point, class Task>
std::tuple<at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y) {
  const Network network(params, x);
  Examples::check(x, y, network.outputs());
  at::Tensor losses = at::empty({x.size(0)}, x.options());
  const std::vector<at::Tensor> gradients = like(params);
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    Task task(network, 1);
    Point point{network};
    Layers gradient = network.layers;
    for (int64_t b = begin; b < end; ++b) {
      load(params, b, point.net);
      losses.mutable_data_ptr<float>()[b] =
          task.gradient(point, Examples(x, y, b, network.outputs()), gradient);
      store(gradient, b, gradients);
    }
  });
  return {losses, gradients};
}

// Gradient descent on (x, y). Returns the loss on (query_x, query_y) after the last step (B), its
// gradient in the parameters before the first step, and the parameters after the last step, both
// shaped as params. Going back one step turns the gradient v into v - step_size * Hessian v.
template <class Network, class Point, class Task>
std::tuple<at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>> descend(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y,
    const at::Tensor& query_x, const at::Tensor& query_y, int64_t steps, double step_size) {
  const Network network(params, x), query_network(params, query_x);
  const int64_t outputs = network.outputs();
  Examples::check(x, y, outputs);
  Examples::check(query_x, query_y, outputs);
  at::Tensor losses = at::empty({x.size(0)}, x.options());
  const std::vector<at::Tensor> gradients = like(params), ends = like(params);
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    Task task(network, 2);
    std::vector<Point> path;
    for (int64_t k = 0; k <= steps; ++k) path.push_back({k < steps ? network : query_network});
    Layers v = network.layers, change = v;
    for (int64_t b = begin; b < end; ++b) {
      const Examples support(x, y, b, outputs), query(query_x, query_y, b, outputs);
      load(params, b, path[0].net);
      for (int64_t k = 0; k < steps; ++k) {
        task.gradient(path[k], support, change);
        set_sum(path[k].net, -step_size, change, path[k + 1].net);
      }
      losses.mutable_data_ptr<float>()[b] = task.gradient(path[steps], query, v);
      for (int64_t k = steps; k-- > 0;) {
        task.hessian_product(path[k], support, v, change);
        set_sum(v, -step_size, change, v);
      }
      store(v, b, gradients);
      store(path[steps].net, b, ends);
    }
  });
  return {losses, gradients, ends};
}

// Registers both operators under the kernel's name.
template <class Network, class Point, class Task>
void define_network(torch::Library& library, const std::string& name) {
  define(library, name + "_loss_and_gradients(Tensor[] params, Tensor x, Tensor y) -> "
                         "(Tensor, Tensor[])",
         loss_and_gradients<Network, Point, Task>);
  define(library, name + "_descend(Tensor[] params, Tensor x, Tensor y, Tensor query_x, "
                         "Tensor query_y, int steps, float step_size) -> "
                         "(Tensor, Tensor[], Tensor[])",
         descend<Network, Point, Task>);
}

}  // namespace lft
