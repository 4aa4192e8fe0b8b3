// Fully connected ReLU networks whose weights differ from task to task, for float32 on CPU;
// lft/kernels/mlp.py states the mathematics.
//
// One task at a time: its weights, activations and their derivatives stay in cache, through all
// steps of a gradient descent. All products are set_product: numbers of one matrix times rows of
// another, which lie in the vector lanes.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "common.h"

namespace {

using lft::in_blocks, lft::LANES, lft::padded, lft::vec, lft::vec_at;

// Errors name the kernel.
void check(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType type, const char* name) {
  lft::check(tensor, shape, type, "fused MLP", name);
}

// Rows are padded with zeros to whole vectors.
struct Matrix {
  int64_t rows, columns, stride;
  std::vector<float> data;

  Matrix(int64_t rows, int64_t columns)
      : rows(rows),
        columns(columns),
        stride(padded(columns)),
        data(rows * stride) {}

  float* row(int64_t i) { return data.data() + i * stride; }
  const float* row(int64_t i) const { return data.data() + i * stride; }
  void clear() { std::fill(data.begin(), data.end(), 0.0f); }

  void load(const float* from) {
    for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * columns, columns, row(i));
  }
  void store(float* to) const {
    for (int64_t i = 0; i < rows; ++i) std::copy_n(row(i), columns, to + i * columns);
  }
};

// ---- products

// The numbers of a matrix, or of its transpose: element (i, k) is at first[i * row + k * column].
struct Numbers {
  const float* first;
  int64_t rows, columns, row, column;
};
Numbers plain(const Matrix& a) { return {a.data.data(), a.rows, a.columns, a.stride, 1}; }
Numbers transposed(const Matrix& a) { return {a.data.data(), a.columns, a.rows, 1, a.stride}; }

// Rows of whole vectors, stride apart; zeros if there is no first.
struct Rows {
  const float* first;
  int64_t stride;
};

// R rows from i on and V vectors from lane on of `to` = start + a b. Not inlined, as there are many
// of them.
template <int R, int V>
[[gnu::noinline]] void set_block(const Numbers& a, int64_t i, const Matrix& b, int64_t lane,
                                 const Rows& start, Matrix& to) {
  vec sum[R][V];
  LFT_UNROLL for (int r = 0; r < R; ++r)
    LFT_UNROLL for (int v = 0; v < V; ++v) sum[r][v] = vec{};
  const float* numbers = a.first + i * a.row;
  const float* lanes = b.data.data() + lane;
  const int64_t n = a.columns, row = a.row, column = a.column, stride = b.stride;
  for (int64_t k = 0; k < n; ++k, numbers += column, lanes += stride)
    LFT_UNROLL for (int r = 0; r < R; ++r)
      LFT_UNROLL for (int v = 0; v < V; ++v)
        sum[r][v] += numbers[r * row] * vec_at(lanes + v * LANES);
  if (start.first) {
    const float* from = start.first + i * start.stride + lane;
    const int64_t stride = start.stride;
    LFT_UNROLL for (int r = 0; r < R; ++r)
      LFT_UNROLL for (int v = 0; v < V; ++v) sum[r][v] += vec_at(from + r * stride + v * LANES);
  }
  float* results = to.row(i) + lane;
  const int64_t to_stride = to.stride;
  LFT_UNROLL for (int r = 0; r < R; ++r)
    LFT_UNROLL for (int v = 0; v < V; ++v) vec_at(results + r * to_stride + v * LANES) = sum[r][v];
}

// Registers hold so many rows of sums, a row of b and a number of a.
constexpr int most_rows(int vectors) { return std::min((lft::REGISTERS - 1) / vectors - 1, 8); }

// to = start + a b
void set_product(const Numbers& a, const Matrix& b, const Rows& start, Matrix& to) {
  in_blocks<5>(0, to.stride / LANES, [&]<int V>(int64_t v) {
    in_blocks<most_rows(V)>(0, a.rows, [&]<int R>(int64_t i) {
      set_block<R, V>(a, i, b, v * LANES, start, to);
    });
  });
}
void set_product(const Numbers& a, const Matrix& b, Matrix& to) {
  set_product(a, b, {nullptr, 0}, to);
}
void add_product(const Numbers& a, const Matrix& b, Matrix& to) {
  set_product(a, b, {to.data.data(), to.stride}, to);
}

// Four rows, from row i on; returns how many columns are done.
int64_t transpose_rows(const Matrix& from, int64_t i, Matrix& to) {
  int64_t j = 0;
#if defined(__SSE__)
  const int64_t stride = from.stride, to_stride = to.stride;
  const float* block = from.row(i);
  float* transposed = to.data.data() + i;
  for (; j + 4 <= from.columns; j += 4, block += 4, transposed += 4 * to_stride) {
    __m128 a = _mm_loadu_ps(block), b = _mm_loadu_ps(block + stride),
           c = _mm_loadu_ps(block + 2 * stride), d = _mm_loadu_ps(block + 3 * stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(transposed, a);
    _mm_storeu_ps(transposed + to_stride, b);
    _mm_storeu_ps(transposed + 2 * to_stride, c);
    _mm_storeu_ps(transposed + 3 * to_stride, d);
  }
#endif
  return j;
}

void transpose(const Matrix& from, Matrix& to) {
  for (int64_t i = 0; i < from.rows; i += 4) {
    const int64_t rows = std::min<int64_t>(4, from.rows - i);
    for (int64_t j = rows == 4 ? transpose_rows(from, i, to) : 0; j < from.columns; ++j)
      for (int64_t r = 0; r < rows; ++r) to.row(j)[i + r] = from.row(i + r)[j];
  }
}

// Where h <= 0 (and not NaN), d becomes 0; element by element.
void mask(const Matrix& h, Matrix& d) {
  for (int64_t k = 0; k < int64_t(d.data.size()); k += LANES) {
    vec& lanes = vec_at(&d.data[k]);
    lanes = vec_at(&h.data[k]) <= 0.0f ? vec{} : lanes;
  }
}

// ---- one task

struct Layer {
  Matrix w, b;
  Matrix w_transposed;  // set by transpose()

  Layer(int64_t in, int64_t out) : w(in, out), b(1, out), w_transposed(out, in) {}

  void transpose() { ::transpose(w, w_transposed); }
  // to = inputs w + b
  void apply(const Numbers& inputs, Matrix& to) const {
    set_product(inputs, w, {b.data.data(), 0}, to);
  }
  // From inputs and gradients in the outputs.
  void set_gradient(const Numbers& inputs_transposed, const Matrix& d) {
    set_product(inputs_transposed, d, w);
    b.clear();
    for (int64_t i = 0; i < d.rows; ++i)
      for (int64_t j = 0; j < d.stride; ++j) b.data[j] += d.row(i)[j];
  }
};

// A network's parameters, or anything else of their shapes.
using Layers = std::vector<Layer>;

Layers layers(const std::vector<int64_t>& widths) {
  Layers result;
  for (size_t l = 0; l + 1 < widths.size(); ++l) result.emplace_back(widths[l], widths[l + 1]);
  return result;
}

// to = from + factor * change
void set_sum(const Matrix& from, float factor, const Matrix& change, Matrix& to) {
  for (size_t k = 0; k < from.data.size(); ++k)
    to.data[k] = from.data[k] + factor * change.data[k];
}
void set_sum(const Layers& from, float factor, const Layers& change, Layers& to) {
  for (size_t l = 0; l < from.size(); ++l) {
    set_sum(from[l].w, factor, change[l].w, to[l].w);
    set_sum(from[l].b, factor, change[l].b, to[l].b);
  }
}

// One of each hidden layer and of the outputs.
std::vector<Matrix> values(const Layers& net, int64_t n) {
  std::vector<Matrix> result;
  for (const Layer& layer : net) result.emplace_back(n, layer.w.columns);
  return result;
}

// A task's network and the pass of n examples through it.
class Point {
 public:
  Layers net;

  Point(const std::vector<int64_t>& widths, int64_t n)
      : net(layers(widths)), h_(values(net, n)), d_(h_) {}

  const Matrix& outputs() const { return h_.back(); }

  // x: row by row; it has to stay where it is for the way back.
  void forward(const float* x) {
    x_ = x;
    for (size_t l = 0; l < net.size(); ++l) {
      net[l].apply(input(l), h_[l]);
      if (l + 1 < net.size()) mask(h_[l], h_[l]);
    }
  }

  // The gradient of the loss in the parameters, after forward; sets net's transposes.
  template <class Loss>
  void gradient(const Loss& loss, Layers& to) {
    const size_t last = net.size() - 1;
    loss.gradient(outputs(), d_.back());
    for (size_t l = last; l > 0; --l) {
      net[l].transpose();
      set_product(plain(d_[l]), net[l].w_transposed, d_[l - 1]);
      mask(h_[l - 1], d_[l - 1]);
    }
    for (size_t l = 0; l <= last; ++l) to[l].set_gradient(input_transposed(l), d_[l]);
  }

  // Its derivative along v, after it: the Hessian times v. Sets v's transposes; r_h and r_d: room
  // for the derivatives of h and d.
  template <class Loss>
  void gradient_tangent(const Loss& loss, Layers& v, std::vector<Matrix>& r_h,
                        std::vector<Matrix>& r_d, Layers& to) const {
    const size_t last = net.size() - 1;
    for (size_t l = 0; l <= last; ++l) {
      v[l].apply(input(l), r_h[l]);
      if (l > 0) add_product(plain(r_h[l - 1]), net[l].w, r_h[l]);
      if (l < last) mask(h_[l], r_h[l]);
    }
    loss.tangent(outputs(), r_h.back(), r_d.back());
    for (size_t l = last; l > 0; --l) {
      v[l].transpose();
      set_product(plain(r_d[l]), net[l].w_transposed, r_d[l - 1]);
      add_product(plain(d_[l]), v[l].w_transposed, r_d[l - 1]);
      mask(h_[l - 1], r_d[l - 1]);
    }
    for (size_t l = 0; l <= last; ++l) {
      to[l].set_gradient(input_transposed(l), r_d[l]);
      if (l > 0) add_product(transposed(r_h[l - 1]), d_[l], to[l].w);
    }
  }

 private:
  Numbers input(size_t l) const {
    const int64_t in = net[0].w.rows;
    return l > 0 ? plain(h_[l - 1]) : Numbers{x_, outputs().rows, in, in, 1};
  }
  Numbers input_transposed(size_t l) const {
    const Numbers rows = input(l);
    return {rows.first, rows.columns, rows.rows, rows.column, rows.row};
  }

  const float* x_ = nullptr;
  std::vector<Matrix> h_, d_;  // outputs of each layer, gradients in them before their ReLU
};

// to.net = from.net + factor * change
void set_sum(const Point& from, float factor, const Layers& change, Point& to) {
  set_sum(from.net, factor, change, to.net);
}

// ---- losses

// Mean squared error against y (n, outputs). `gradient` sets d to the gradient in the outputs,
// `tangent` sets r_d to its derivative along a change r of the outputs.
struct SquaredError {
  const float* y;

  float operator()(const Matrix& outputs) const {
    double total = 0.0;
    for (int64_t i = 0; i < outputs.rows; ++i)
      for (int64_t j = 0; j < outputs.columns; ++j) total += std::pow(error(outputs, i, j), 2.0f);
    return total / (outputs.rows * outputs.columns);
  }
  void gradient(const Matrix& outputs, Matrix& d) const {
    const float scale = 2.0f / (outputs.rows * outputs.columns);
    for (int64_t i = 0; i < outputs.rows; ++i)
      for (int64_t j = 0; j < outputs.columns; ++j) d.row(i)[j] = scale * error(outputs, i, j);
  }
  void tangent(const Matrix&, const Matrix& r, Matrix& r_d) const {
    const float scale = 2.0f / (r.rows * r.columns);
    for (int64_t i = 0; i < r.rows; ++i)
      for (int64_t j = 0; j < r.columns; ++j) r_d.row(i)[j] = scale * r.row(i)[j];
  }

 private:
  float error(const Matrix& outputs, int64_t i, int64_t j) const {
    return outputs.row(i)[j] - y[i * outputs.columns + j];
  }
};

// Mean cross-entropy of softmax(outputs) against labels y (n); likewise.
struct CrossEntropy {
  const int64_t* y;

  float operator()(const Matrix& outputs) const {
    double total = 0.0;
    std::vector<float> d(outputs.columns);
    for (int64_t i = 0; i < outputs.rows; ++i)
      total += lft::cross_entropy(outputs.row(i), outputs.columns, y[i], 1.0f, d.data());
    return total / outputs.rows;
  }
  void gradient(const Matrix& outputs, Matrix& d) const {
    for (int64_t i = 0; i < outputs.rows; ++i)
      lft::cross_entropy(outputs.row(i), outputs.columns, y[i], 1.0f / outputs.rows, d.row(i));
  }
  void tangent(const Matrix& outputs, const Matrix& r, Matrix& r_d) const {
    for (int64_t i = 0; i < outputs.rows; ++i)
      lft::cross_entropy_tangent(outputs.row(i), r.row(i), outputs.columns, 1.0f / outputs.rows,
                                 r_d.row(i));
  }
};

// Calls f(loss of a task's examples, task).
template <class F>
void with_loss(const at::Tensor& y, int64_t task, const F& f) {
  if (y.scalar_type() == at::kLong)
    f(CrossEntropy{lft::part<const int64_t>(y, task)});
  else
    f(SquaredError{lft::part<const float>(y, task)});
}

// ---- operators

// Input, hidden and output widths. params: (B, in, out) and (B, 1, out) of each layer.
std::vector<int64_t> check_network(const std::vector<at::Tensor>& params, const at::Tensor& x,
                                   const at::Tensor& y) {
  TORCH_CHECK(params.size() >= 2 && params.size() % 2 == 0 && x.dim() == 3 && x.size(0) > 0 &&
                  x.size(1) > 0,
              "fused MLP: weights and a bias of each layer and inputs (B, n, in) are needed");
  const int64_t n_tasks = x.size(0), n = x.size(1);
  std::vector<int64_t> widths{x.size(2)};
  for (size_t k = 0; k < params.size(); k += 2) {
    TORCH_CHECK(params[k].dim() == 3, "fused MLP: weights must be (B, in, out)");
    const int64_t in = widths.back(), out = params[k].size(2);
    check(params[k], {n_tasks, in, out}, at::kFloat, "weight");
    check(params[k + 1], {n_tasks, 1, out}, at::kFloat, "bias");
    widths.push_back(out);
  }
  check(x, x.sizes(), at::kFloat, "inputs");
  if (y.scalar_type() != at::kLong) {
    check(y, {n_tasks, n, widths.back()}, at::kFloat, "targets");
    return widths;
  }
  lft::check_labels(y, {n_tasks, n}, widths.back(), "fused MLP");
  return widths;
}

// A network's parameters for one task.
class Parameters {
 public:
  explicit Parameters(const std::vector<at::Tensor>& params) : params_(params) {}

  void load(int64_t task, Layers& to) const {
    for (size_t l = 0; l < to.size(); ++l) {
      to[l].w.load(lft::part<const float>(params_[2 * l], task));
      to[l].b.load(lft::part<const float>(params_[2 * l + 1], task));
    }
  }
  void store(int64_t task, const Layers& from) const {
    for (size_t l = 0; l < from.size(); ++l) {
      from[l].w.store(lft::part<float>(params_[2 * l], task));
      from[l].b.store(lft::part<float>(params_[2 * l + 1], task));
    }
  }

 private:
  const std::vector<at::Tensor>& params_;
};

// The loss of each task (B), and its gradients, as params.
std::tuple<at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y) {
  const std::vector<int64_t> widths = check_network(params, x, y);
  const int64_t n_tasks = x.size(0);
  at::Tensor losses = at::empty({n_tasks}, x.options());
  const std::vector<at::Tensor> gradients = lft::like(params);
  at::parallel_for(0, n_tasks, 1, [&](int64_t begin, int64_t end) {
    Point point(widths, x.size(1));
    Layers gradient = layers(widths);
    for (int64_t b = begin; b < end; ++b) {
      Parameters(params).load(b, point.net);
      point.forward(lft::part<const float>(x, b));
      with_loss(y, b, [&](const auto& loss) {
        losses.mutable_data_ptr<float>()[b] = loss(point.outputs());
        point.gradient(loss, gradient);
      });
      Parameters(gradients).store(b, gradient);
    }
  });
  return {losses, gradients};
}

// Gradient descent on (x, y): the loss on (query_x, query_y) after the last step (B), its gradient
// in the parameters before the first, and the parameters after the last, as params.
std::tuple<at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>> descend(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y,
    const at::Tensor& query_x, const at::Tensor& query_y, int64_t steps, double step_size) {
  const std::vector<int64_t> widths = check_network(params, x, y);
  check_network(params, query_x, query_y);
  at::Tensor losses = at::empty({x.size(0)}, x.options());
  const std::vector<at::Tensor> gradients = lft::like(params), ends = lft::like(params);
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<Point> path(steps, Point(widths, x.size(1)));
    path.emplace_back(widths, query_x.size(1));
    Layers v = layers(widths);
    std::vector<Matrix> r_h = values(v, x.size(1)), r_d = r_h;
    for (int64_t b = begin; b < end; ++b) {
      Parameters(params).load(b, path[0].net);
      const auto gradient = [&](Point& at, const at::Tensor& x, const at::Tensor& y, Layers& to) {
        float value = 0.0f;
        at.forward(lft::part<const float>(x, b));
        with_loss(y, b, [&](const auto& loss) {
          value = loss(at.outputs());
          at.gradient(loss, to);
        });
        return value;
      };
      losses.mutable_data_ptr<float>()[b] = lft::descend(
          path, v, step_size, [&](Point& at, Layers& to) { gradient(at, x, y, to); },
          [&](Point& at, Layers& to) { return gradient(at, query_x, query_y, to); },
          [&](const Point& at, Layers& v, Layers& to) {
            with_loss(y, b, [&](const auto& loss) { at.gradient_tangent(loss, v, r_h, r_d, to); });
          });
      Parameters(gradients).store(b, v);
      Parameters(ends).store(b, path[steps].net);
    }
  });
  return {losses, gradients, ends};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  library.def(
      "mlp_loss_and_gradients(Tensor[] params, Tensor x, Tensor y) -> (Tensor, Tensor[])");
  library.def(
      "mlp_descend(Tensor[] params, Tensor x, Tensor y, Tensor query_x, Tensor query_y, int steps, "
      "float step_size) -> (Tensor, Tensor[], Tensor[])");
}

TORCH_LIBRARY_IMPL(lft, CPU, library) {
  library.impl("mlp_loss_and_gradients", loss_and_gradients);
  library.impl("mlp_descend", descend);
}

// Not differentiable: the gradients are computed with the loss.
TORCH_LIBRARY_IMPL(lft, Autograd, library) {
  library.impl("mlp_loss_and_gradients", torch::CppFunction::makeFallthrough());
  library.impl("mlp_descend", torch::CppFunction::makeFallthrough());
}
