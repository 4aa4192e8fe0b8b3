// Fully connected ReLU networks whose weights differ from task to task, for float32 on CPU;
// lft/tasks/fused_mlp.py states the mathematics.
//
// One task at a time: its weights, activations and their derivatives stay in cache, through all
// steps of a gradient descent. All products are add_product: numbers of one matrix times rows of
// another, which lie in the vector lanes.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "../kernels.h"

namespace {

// Errors name the kernel.
void check(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType type, const char* name) {
  lft::check(tensor, shape, type, "fused MLP", name);
}

// Register blocks are sized for 32 registers of 16 lanes, or 16 registers of at most 8.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 5, VECTORS = 3;
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4, VECTORS = 2;
#else
constexpr int LANES = 4, ROWS = 4, VECTORS = 2;
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline vec& vec_at(float* p) { return *reinterpret_cast<vec*>(p); }
inline vec vec_at(const float* p) { return *reinterpret_cast<const vec*>(p); }

// Rows are padded with zeros to whole vectors.
struct Matrix {
  int64_t rows, columns, stride;
  std::vector<float> data;

  Matrix(int64_t rows, int64_t columns)
      : rows(rows),
        columns(columns),
        stride((columns + LANES - 1) / LANES * LANES),
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

template <int R, int V>
void add_block(const Numbers& a, int64_t i, const Matrix& b, int64_t lane, Matrix& to) {
  vec sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = vec_at(to.row(i + r) + lane + v * LANES);
  for (int64_t k = 0; k < a.columns; ++k)
    for (int v = 0; v < V; ++v) {
      const vec lanes = vec_at(b.row(k) + lane + v * LANES);
      for (int r = 0; r < R; ++r)
        sum[r][v] += a.first[(i + r) * a.row + k * a.column] * lanes;
    }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) vec_at(to.row(i + r) + lane + v * LANES) = sum[r][v];
}

// to += a b
void add_product(const Numbers& a, const Matrix& b, Matrix& to) {
  int64_t lane = 0;
  const auto columns = [&]<int V>() {
    for (; lane + V * LANES <= to.stride; lane += V * LANES) {
      int64_t i = 0;
      for (; i + ROWS <= a.rows; i += ROWS) add_block<ROWS, V>(a, i, b, lane, to);
      for (; i + 2 <= a.rows; i += 2) add_block<2, V>(a, i, b, lane, to);
      for (; i < a.rows; ++i) add_block<1, V>(a, i, b, lane, to);
    }
  };
  columns.template operator()<VECTORS>();
  columns.template operator()<2>();
  columns.template operator()<1>();
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

  void transpose() {
    for (int64_t i = 0; i < w.rows; ++i)
      for (int64_t j = 0; j < w.columns; ++j) w_transposed.row(j)[i] = w.row(i)[j];
  }
  void add(float factor, const Layer& other) {
    for (size_t k = 0; k < w.data.size(); ++k) w.data[k] += factor * other.w.data[k];
    for (size_t k = 0; k < b.data.size(); ++k) b.data[k] += factor * other.b.data[k];
  }
};

// A network's parameters, or anything else of their shapes.
using Layers = std::vector<Layer>;

void add(Layers& to, float factor, const Layers& other) {
  for (size_t l = 0; l < to.size(); ++l) to[l].add(factor, other[l]);
}

// Activations and derivatives of one task's examples; x is row by row.
class Examples {
 public:
  Examples(int64_t n, const std::vector<int64_t>& widths) {
    for (const int64_t width : widths) h_.emplace_back(n, width);
    d_ = r_h_ = r_d_ = h_;
  }

  const Matrix& outputs() const { return h_.back(); }

  void forward(const Layers& net, const float* x) {
    h_[0].load(x);
    for (size_t l = 0; l < net.size(); ++l) {
      start(net[l].b, h_[l + 1]);
      add_product(plain(h_[l]), net[l].w, h_[l + 1]);
      if (l + 1 < net.size()) mask(h_[l + 1], h_[l + 1]);
    }
  }

  // The gradient of the loss in the parameters, after forward; sets net's transposes.
  template <class Loss>
  void gradient(Layers& net, const Loss& loss, Layers& to) {
    backward(net, loss);
    for (size_t l = 0; l < net.size(); ++l) set_gradient(h_[l], d_[l + 1], to[l]);
  }

  // Its derivative along v, after forward: the Hessian times v. Sets v's transposes, too.
  template <class Loss>
  void gradient_tangent(Layers& net, const Loss& loss, Layers& v, Layers& to) {
    backward(net, loss);
    const size_t last = net.size() - 1;
    for (size_t l = 0; l <= last; ++l) {
      start(v[l].b, r_h_[l + 1]);
      add_product(plain(h_[l]), v[l].w, r_h_[l + 1]);
      if (l > 0) add_product(plain(r_h_[l]), net[l].w, r_h_[l + 1]);
      if (l < last) mask(h_[l + 1], r_h_[l + 1]);
    }
    loss.tangent(outputs(), r_h_.back(), r_d_.back());
    for (size_t l = last; l > 0; --l) {
      v[l].transpose();
      r_d_[l].clear();
      add_product(plain(r_d_[l + 1]), net[l].w_transposed, r_d_[l]);
      add_product(plain(d_[l + 1]), v[l].w_transposed, r_d_[l]);
      mask(h_[l], r_d_[l]);
    }
    for (size_t l = 0; l <= last; ++l) {
      set_gradient(h_[l], r_d_[l + 1], to[l]);
      if (l > 0) add_product(transposed(r_h_[l]), d_[l + 1], to[l].w);
    }
  }

 private:
  template <class Loss>
  void backward(Layers& net, const Loss& loss) {
    loss.gradient(outputs(), d_.back());
    for (size_t l = net.size() - 1; l > 0; --l) {
      net[l].transpose();
      d_[l].clear();
      add_product(plain(d_[l + 1]), net[l].w_transposed, d_[l]);
      mask(h_[l], d_[l]);
    }
  }
  static void start(const Matrix& bias, Matrix& output) {
    for (int64_t i = 0; i < output.rows; ++i)
      std::copy_n(bias.data.data(), bias.stride, output.row(i));
  }
  static void set_gradient(const Matrix& input, const Matrix& of_output, Layer& to) {
    to.w.clear();
    add_product(transposed(input), of_output, to.w);
    to.b.clear();
    for (int64_t i = 0; i < of_output.rows; ++i)
      for (int64_t j = 0; j < of_output.columns; ++j) to.b.data[j] += of_output.row(i)[j];
  }

  // Inputs and each layer's output; gradients of the loss in each layer's output before its ReLU;
  // derivatives of both along v.
  std::vector<Matrix> h_, d_, r_h_, r_d_;
};

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

Layers layers(const std::vector<int64_t>& widths) {
  Layers result;
  for (size_t l = 0; l + 1 < widths.size(); ++l) result.emplace_back(widths[l], widths[l + 1]);
  return result;
}

// The loss of each task (B), outputs (B, n, out), and the gradients of the former, as params.
std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y) {
  const std::vector<int64_t> widths = check_network(params, x, y);
  const int64_t n_tasks = x.size(0), n = x.size(1);
  at::Tensor losses = at::empty({n_tasks}, x.options());
  at::Tensor outputs = at::empty({n_tasks, n, widths.back()}, x.options());
  const std::vector<at::Tensor> gradients = lft::like(params);
  at::parallel_for(0, n_tasks, 1, [&](int64_t begin, int64_t end) {
    Examples examples(n, widths);
    Layers net = layers(widths), gradient = net;
    for (int64_t b = begin; b < end; ++b) {
      Parameters(params).load(b, net);
      examples.forward(net, lft::part<const float>(x, b));
      examples.outputs().store(lft::part<float>(outputs, b));
      with_loss(y, b, [&](const auto& loss) {
        losses.mutable_data_ptr<float>()[b] = loss(examples.outputs());
        examples.gradient(net, loss, gradient);
      });
      Parameters(gradients).store(b, gradient);
    }
  });
  return {losses, outputs, gradients};
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
    Examples support(x.size(1), widths), query(query_x.size(1), widths);
    std::vector<Layers> path(steps + 1, layers(widths));
    Layers v = layers(widths);
    for (int64_t b = begin; b < end; ++b) {
      Parameters(params).load(b, path[0]);
      const auto gradient = [&](Examples& examples, const at::Tensor& x, const at::Tensor& y,
                                Layers& at, Layers& to) {
        float value = 0.0f;
        examples.forward(at, lft::part<const float>(x, b));
        with_loss(y, b, [&](const auto& loss) {
          value = loss(examples.outputs());
          examples.gradient(at, loss, to);
        });
        return value;
      };
      losses.mutable_data_ptr<float>()[b] = lft::descend(
          path, v, step_size, [&](Layers& at, Layers& to) { gradient(support, x, y, at, to); },
          [&](Layers& at, Layers& to) { return gradient(query, query_x, query_y, at, to); },
          [&](Layers& at, Layers& v, Layers& to) {
            support.forward(at, lft::part<const float>(x, b));
            with_loss(y, b, [&](const auto& loss) { support.gradient_tangent(at, loss, v, to); });
          });
      Parameters(gradients).store(b, v);
      Parameters(ends).store(b, path[steps]);
    }
  });
  return {losses, gradients, ends};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  library.def(
      "mlp_loss_and_gradients(Tensor[] params, Tensor x, Tensor y) -> (Tensor, Tensor, Tensor[])");
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
