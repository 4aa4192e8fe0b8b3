// Convolutional networks whose weights differ from task to task, for float32 on CPU;
// lft/tasks/fused_cnn.py states the mathematics.
//
// One image at a time goes through all layers and back while its activations stay in cache.
// Channels lie last and in the vector lanes, padded with zeros to whole vectors. All convolutions,
// and their gradients with respect to the input, are sums over k of a[place + offset(k)] * w[k] for
// a block of places side by side: a broadcast number times a vector of weights.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

namespace {

// ---- vectors

// Register blocks are sized for 32 registers of 16 lanes, or 16 registers of at most 8.
#if defined(__AVX512F__)
constexpr int LANES = 16, BLOCK = 16;
#elif defined(__AVX__)
constexpr int LANES = 8, BLOCK = 8;
#else
constexpr int LANES = 4, BLOCK = 8;
#endif
constexpr int KERNEL = 3;

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), may_alias));

inline vec& vec_at(float* p) { return *reinterpret_cast<vec*>(p); }
inline vec vec_at(const float* p) { return *reinterpret_cast<const vec*>(p); }

constexpr int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

struct Free {
  void operator()(float* p) const { std::free(p); }
};

// Zeros on whole vectors.
std::unique_ptr<float, Free> zeros(int64_t floats) {
  const size_t bytes = padded(floats) * sizeof(float);
  std::unique_ptr<float, Free> memory(static_cast<float*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  TORCH_CHECK_WITH(OutOfMemoryError, memory, "no memory for ", bytes, " bytes of CNN activations");
  std::memset(memory.get(), 0, bytes);
  return memory;
}

// ---- the geometry of a network

// Numbers of a that lie side by side.
struct Run {
  int64_t offset, length;
};

// Places in an array: (y, x) -> y * row + x * column.
struct Grid {
  int64_t rows, columns, row, column;
};

// Places of the input with odd or even rows and columns, seen from the gradient of the output. A
// patch's middle row lies on an even place; odd places are seen by the last row of the patch above
// and by the first row of the one below; likewise for columns.
struct Parity {
  bool odd_row, odd_column;
  Grid grid;
  std::vector<Run> runs;  // of the output's gradient, one for each tap
  std::vector<int64_t> taps;
};

// A 3x3 convolution of stride 2 with padding 1. Its input is (2 rows + 1, 2 columns + 1, in_stride)
// with a margin of one at the top and left; the gradient of its output is (rows + 1, columns + 1,
// out_stride) with a margin of zeros at the bottom and right.
struct Layer {
  int64_t in, out, in_stride, out_stride, height, width, rows, columns;
  std::vector<Run> runs;  // of a patch, from its upper left corner
  std::vector<Parity> parities;

  Layer(int64_t in, int64_t out, int64_t height, int64_t width, bool first)
      : in(in),
        out(out),
        in_stride(first ? in : padded(in)),
        out_stride(padded(out)),
        height(height),
        width(width),
        rows((height + 1) / 2),
        columns((width + 1) / 2) {
    for (int64_t i = 0; i < KERNEL; ++i)
      if (in == in_stride)
        runs.push_back({i * in_row(), KERNEL * in});
      else
        for (int64_t j = 0; j < KERNEL; ++j) runs.push_back({i * in_row() + j * in_stride, in});
    for (bool odd_row : {false, true})
      for (bool odd_column : {false, true}) add_parity(odd_row, odd_column);
  }

  void add_parity(bool odd_row, bool odd_column) {
    const Grid grid{(height + !odd_row) / 2, (width + !odd_column) / 2, grad_row(), out_stride};
    Parity parity{odd_row, odd_column, grid, {}, {}};
    for (int64_t below = 0; below <= odd_row; ++below)
      for (int64_t right = 0; right <= odd_column; ++right) {
        const int64_t i = odd_row ? 2 - 2 * below : 1, j = odd_column ? 2 - 2 * right : 1;
        parity.runs.push_back({below * grad_row() + right * out_stride, out});
        parity.taps.push_back(i * KERNEL + j);
      }
    parities.push_back(parity);
  }

  int64_t in_row() const { return (2 * columns + 1) * in_stride; }
  int64_t in_floats() const { return (2 * rows + 1) * in_row(); }
  int64_t inside() const { return in_row() + in_stride; }  // the first place within the margin
  int64_t grad_row() const { return (columns + 1) * out_stride; }
  int64_t grad_floats() const { return (rows + 1) * grad_row(); }
  int64_t patch() const { return KERNEL * KERNEL * in; }
};

struct Network {
  std::vector<Layer> layers;
  int64_t channels, height, width, outputs, features;

  Network(const std::vector<at::Tensor>& params, const at::Tensor& x)
      : channels(x.size(2)),
        height(x.size(3)),
        width(x.size(4)),
        outputs(params.back().size(2)) {
    int64_t in = channels, h = height, w = width;
    for (size_t k = 0; k + 2 < params.size(); k += 2) {
      layers.emplace_back(in, params[k].size(1), h, w, k == 0);
      in = layers.back().out, h = layers.back().rows, w = layers.back().columns;
    }
    features = in * h * w;
  }
  const Layer& last() const { return layers.back(); }
};

// ---- products

// sum[r * COLUMNS + c] += sum_k a[r * row + c * STRIDE + offset(k)] * w[k], w being rows of
// w_stride floats. A stride that the compiler knows is part of the instructions' addresses.
template <int ROWS, int COLUMNS, int STRIDE>
void multiply(const float* a, int64_t row, int64_t stride, const std::vector<Run>& runs,
              const float* w, int64_t w_stride, vec* sum) {
  const int64_t step = STRIDE ? STRIDE : stride;
  vec total[ROWS * COLUMNS];
  for (int n = 0; n < ROWS * COLUMNS; ++n) total[n] = sum[n];
  for (const Run& run : runs) {
    const float* p = a + run.offset;
    for (int64_t k = 0; k < run.length; ++k, ++p, w += w_stride) {
      const vec weights = vec_at(w);
      for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < COLUMNS; ++c)
          total[r * COLUMNS + c] += p[r * row + c * step] * weights;
    }
  }
  for (int n = 0; n < ROWS * COLUMNS; ++n) sum[n] = total[n];
}

// Calls put(y, x, sum) for every place of a grid with start + the product there of a and w.
template <int STRIDE, class Put>
void for_each_place(const Grid& grid, const float* a, const std::vector<Run>& runs, const float* w,
                    int64_t w_stride, vec start, const Put& put) {
  const auto block = [&]<int ROWS, int COLUMNS>(int64_t y, int64_t x) {
    vec sum[ROWS * COLUMNS];
    for (vec& lanes : sum) lanes = start;
    multiply<ROWS, COLUMNS, STRIDE>(a + y * grid.row + x * grid.column, grid.row, grid.column, runs,
                                    w, w_stride, sum);
    for (int r = 0; r < ROWS; ++r)
      for (int c = 0; c < COLUMNS; ++c) put(y + r, x + c, sum[r * COLUMNS + c]);
  };
  int64_t x = 0;
  const auto blocks = [&]<int COLUMNS>() {
    constexpr int ROWS = std::min(4, BLOCK / COLUMNS);
    for (; x + COLUMNS <= grid.columns; x += COLUMNS) {
      int64_t y = 0;
      for (; y + ROWS <= grid.rows; y += ROWS) block.template operator()<ROWS, COLUMNS>(y, x);
      for (; y < grid.rows; ++y) block.template operator()<1, COLUMNS>(y, x);
    }
  };
  blocks.template operator()<BLOCK>();
  blocks.template operator()<8>();
  blocks.template operator()<4>();
  blocks.template operator()<2>();
  blocks.template operator()<1>();
}

// Calls f<STRIDE>() with the stride if it is a usual one, else with 0.
template <class F>
void with_stride(int64_t stride, const F& f) {
  switch (stride) {
    case 2: return f.template operator()<2>();
    case 6: return f.template operator()<6>();
    case LANES: return f.template operator()<LANES>();
    case 2 * LANES: return f.template operator()<2 * LANES>();
    default: return f.template operator()<0>();
  }
}

// sums[n] (rows of sum_stride floats) += sum over places of a[place + n] * grad[place], n < N.
template <int N>
void outer(const Layer& layer, const float* a, const float* grad, float* sums) {
  vec total[N];
  for (int n = 0; n < N; ++n) total[n] = vec_at(sums + n * layer.out_stride);
  for (int64_t y = 0; y < layer.rows; ++y) {
    const float *p = a + 2 * y * layer.in_row(), *d = grad + y * layer.grad_row();
    for (int64_t x = 0; x < layer.columns; ++x, p += 2 * layer.in_stride, d += layer.out_stride) {
      const vec lanes = vec_at(d);
      for (int n = 0; n < N; ++n) total[n] += p[n] * lanes;
    }
  }
  for (int n = 0; n < N; ++n) vec_at(sums + n * layer.out_stride) = total[n];
}

// The same for a whole run, in blocks of at most BLOCK as equal as can be.
void outer(const Layer& layer, const float* a, int64_t length, const float* grad, float* sums) {
  const int64_t blocks = (length + BLOCK - 1) / BLOCK;
  for (int64_t b = 0, begin = 0; b < blocks; ++b) {
    const int64_t n = (length - begin + blocks - b - 1) / (blocks - b);
    [&]<int... I>(std::integer_sequence<int, I...>) {
      ((n == I + 1 ? outer<I + 1>(layer, a + begin, grad, sums + begin * layer.out_stride)
                   : void()),
       ...);
    }(std::make_integer_sequence<int, BLOCK>());
    begin += n;
  }
}

// ---- one task

// A thread's memory: the task's weights in the order of the products, one image's activations.
class Task {
 public:
  Task(const Network& net, bool backward) : net_(net), backward_(backward) {
    int64_t floats = 0;
    const auto take = [&](int64_t n) { return std::exchange(floats, floats + padded(n)); };
    for (const Layer& layer : net.layers) {
      Memory at;
      at.input = take(layer.in_floats());
      at.weights = take(layer.patch() * layer.out_stride);
      at.bias = take(layer.out_stride);
      if (backward) {
        at.transposed = take(KERNEL * KERNEL * layer.out * padded(layer.in));
        at.grad = take(layer.grad_floats());
        at.d_weights = take(layer.patch() * layer.out_stride);
        at.d_bias = take(layer.out_stride);
      }
      at_.push_back(at);
    }
    output_ = take(net.last().rows * net.last().columns * net.last().out_stride);
    memory_ = zeros(floats);
  }

  // Pointers to one task's parameters or their gradients, in the order of the operator's list.
  template <class T>
  using Pointers = std::vector<T*>;

  void load(const Pointers<const float>& params) {
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const Layer& layer = net_.layers[l];
      float* weights = at(at_[l].weights);
      for_each_weight(layer, [&](int64_t k, int64_t tap, int64_t c, int64_t o) {
        weights[(tap * layer.in + c) * layer.out_stride + o] = params[2 * l][k];
      });
      std::copy_n(params[2 * l + 1], layer.out, at(at_[l].bias));
      if (backward_ && l > 0) load_transposed(layer, params[2 * l], at(at_[l].transposed));
    }
    head_ = params[params.size() - 2];
    head_bias_ = params.back();
  }

  // image: (C, H, W); logits: (outputs)
  void forward(const float* image, float* logits) {
    load_image(image);
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const Layer& layer = net_.layers[l];
      const Grid grid{layer.rows, layer.columns, 2 * layer.in_row(), 2 * layer.in_stride};
      const auto [row, column] = strides_after(l);
      with_stride(grid.column, [&, row = row, column = column]<int STRIDE>() {
        for (int64_t o = 0; o < layer.out_stride; o += LANES) {
          float* output = output_of(l) + o;
          for_each_place<STRIDE>(grid, at(at_[l].input), layer.runs, at(at_[l].weights) + o,
                                 layer.out_stride, vec_at(at(at_[l].bias) + o),
                                 [&](int64_t y, int64_t x, vec sum) {
                                   vec_at(output + y * row + x * column) = sum < 0.0f ? vec{} : sum;
                                 });
        }
      });
    }
    std::copy_n(head_bias_, net_.outputs, logits);
    for_each_feature([&](int64_t k, int64_t place, int64_t) {
      const float feature = at(output_)[place], *w = head_ + k * net_.outputs;
      for (int64_t o = 0; o < net_.outputs; ++o) logits[o] += feature * w[o];
    });
  }

  // Adds the gradients of <d_logits, logits of the image that went forward last>.
  void backward(const float* d_logits, float* d_head, float* d_head_bias) {
    for (int64_t o = 0; o < net_.outputs; ++o) d_head_bias[o] += d_logits[o];
    const float* features = at(output_);
    for_each_feature([&](int64_t k, int64_t place, int64_t grad_place) {
      float sum = 0.0f;
      const float *w = head_ + k * net_.outputs, feature = features[place];
      float* d_w = d_head + k * net_.outputs;
      // Two loops: one would be compiled twice and round differently where the arrays lie close.
      for (int64_t o = 0; o < net_.outputs; ++o) sum += w[o] * d_logits[o];
      for (int64_t o = 0; o < net_.outputs; ++o) d_w[o] += feature * d_logits[o];
      at(at_.back().grad)[grad_place] = feature <= 0.0f ? 0.0f : sum;
    });
    for (int64_t l = net_.layers.size() - 1; l >= 0; --l) {
      add_weight_gradients(l);
      if (l > 0) input_gradient(l);
    }
  }

  void clear_gradients() {
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const Layer& layer = net_.layers[l];
      std::fill_n(at(at_[l].d_weights), layer.patch() * layer.out_stride, 0.0f);
      std::fill_n(at(at_[l].d_bias), layer.out_stride, 0.0f);
    }
  }

  void store_gradients(const Pointers<float>& grads) {
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const Layer& layer = net_.layers[l];
      const float* d_weights = at(at_[l].d_weights);
      for_each_weight(layer, [&](int64_t k, int64_t tap, int64_t c, int64_t o) {
        grads[2 * l][k] = d_weights[(tap * layer.in + c) * layer.out_stride + o];
      });
      std::copy_n(at(at_[l].d_bias), layer.out, grads[2 * l + 1]);
    }
  }

 private:
  struct Memory {
    int64_t input, weights, bias, transposed = 0, grad = 0, d_weights = 0, d_bias = 0;
  };

  float* at(int64_t place) { return memory_.get() + place; }

  // Calls f(k, tap, c, o) for element k of weights (out, in, 3, 3).
  template <class F>
  static void for_each_weight(const Layer& layer, const F& f) {
    int64_t k = 0;
    for (int64_t o = 0; o < layer.out; ++o)
      for (int64_t c = 0; c < layer.in; ++c)
        for (int64_t tap = 0; tap < KERNEL * KERNEL; ++tap) f(k++, tap, c, o);
  }

  // Calls f(k, place in the output, place in its gradient) for every input k of the linear layer.
  template <class F>
  void for_each_feature(const F& f) const {
    const Layer& layer = net_.last();
    int64_t k = 0;
    for (int64_t c = 0; c < layer.out; ++c)
      for (int64_t y = 0; y < layer.rows; ++y)
        for (int64_t x = 0; x < layer.columns; ++x)
          f(k++, (y * layer.columns + x) * layer.out_stride + c,
            y * layer.grad_row() + x * layer.out_stride + c);
  }

  void load_image(const float* image) {
    const Layer& layer = net_.layers[0];
    float* input = at(at_[0].input) + layer.inside();
    for (int64_t c = 0; c < layer.in; ++c)
      for (int64_t y = 0; y < layer.height; ++y)
        for (int64_t x = 0; x < layer.width; ++x)
          input[y * layer.in_row() + x * layer.in + c] = *image++;
  }

  // Where a layer's output goes: within the margin of the next layer's input.
  float* output_of(size_t l) {
    return l + 1 < at_.size() ? at(at_[l + 1].input) + net_.layers[l + 1].inside() : at(output_);
  }
  std::pair<int64_t, int64_t> strides_after(size_t l) const {
    if (l + 1 < at_.size()) return {net_.layers[l + 1].in_row(), net_.layers[l + 1].in_stride};
    const Layer& layer = net_.layers[l];
    return {layer.columns * layer.out_stride, layer.out_stride};
  }

  void add_weight_gradients(int64_t l) {
    const Layer& layer = net_.layers[l];
    const float *input = at(at_[l].input), *grad = at(at_[l].grad);
    for (int64_t o = 0; o < layer.out_stride; o += LANES) {
      float* sums = at(at_[l].d_weights) + o;
      for (const Run& run : layer.runs) {
        outer(layer, input + run.offset, run.length, grad + o, sums);
        sums += run.length * layer.out_stride;
      }
      vec total{};
      for (int64_t y = 0; y < layer.rows; ++y)
        for (int64_t x = 0; x < layer.columns; ++x)
          total += vec_at(grad + o + y * layer.grad_row() + x * layer.out_stride);
      vec_at(at(at_[l].d_bias) + o) += total;
    }
  }

  // Weights (tap, out, in) of the parities' taps, one parity after the other.
  static void load_transposed(const Layer& layer, const float* from, float* to) {
    for (const Parity& parity : layer.parities)
      for (const int64_t tap : parity.taps)
        for (int64_t o = 0; o < layer.out; ++o, to += padded(layer.in))
          for (int64_t c = 0; c < layer.in; ++c)
            to[c] = from[(o * layer.in + c) * KERNEL * KERNEL + tap];
  }

  // The gradient of a layer's input, through the ReLU of the layer below.
  void input_gradient(int64_t l) {
    const Layer &layer = net_.layers[l], &below = net_.layers[l - 1];
    const float* weights = at(at_[l].transposed);
    const int64_t lanes = padded(layer.in);
    for (const Parity& parity : layer.parities) {
      const float* values = at(at_[l].input) + layer.inside() + parity.odd_row * layer.in_row() +
                            parity.odd_column * layer.in_stride;
      float* gradients = at(at_[l - 1].grad) + parity.odd_row * below.grad_row() +
                         parity.odd_column * below.out_stride;
      with_stride(parity.grid.column, [&]<int STRIDE>() {
        for (int64_t c = 0; c < lanes; c += LANES)
          for_each_place<STRIDE>(
              parity.grid, at(at_[l].grad), parity.runs, weights + c, lanes, vec{},
              [&](int64_t y, int64_t x, vec sum) {
                const vec value = vec_at(values + c + 2 * (y * layer.in_row() + x * layer.in_stride));
                vec_at(gradients + c + 2 * (y * below.grad_row() + x * below.out_stride)) =
                    value <= 0.0f ? vec{} : sum;
              });
      });
      weights += parity.taps.size() * layer.out * lanes;
    }
  }

  const Network& net_;
  bool backward_;
  std::vector<Memory> at_;
  int64_t output_;
  std::unique_ptr<float, Free> memory_;
  const float *head_, *head_bias_;
};

// ---- operators

void check(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType type, const char* name) {
  TORCH_CHECK(tensor.scalar_type() == type && tensor.device().is_cpu() && tensor.is_contiguous() &&
                  tensor.sizes() == shape,
              "fused CNN: ", name, " must be contiguous ", type, " of shape ", shape,
              " on the CPU, not ", tensor.scalar_type(), " of shape ", tensor.sizes(), " on ",
              tensor.device());
}

// params: weights (B, out, in, 3, 3) and biases (B, out) of each layer, then the linear layer's
// (B, features, outputs) and (B, 1, outputs).
Network check_network(const std::vector<at::Tensor>& params, const at::Tensor& x) {
  TORCH_CHECK(params.size() >= 4 && params.size() % 2 == 0 && x.dim() == 5 &&
                  params.back().dim() == 3,
              "fused CNN: weights and a bias of each layer and images (B, n, C, H, W) are needed");
  for (size_t k = 0; k + 2 < params.size(); k += 2)
    TORCH_CHECK(params[k].dim() == 5, "fused CNN: convolutions must be (B, out, in, 3, 3)");
  const Network net(params, x);
  const int64_t n_tasks = x.size(0);
  for (size_t l = 0; l < net.layers.size(); ++l) {
    const Layer& layer = net.layers[l];
    check(params[2 * l], {n_tasks, layer.out, layer.in, KERNEL, KERNEL}, at::kFloat, "weight");
    check(params[2 * l + 1], {n_tasks, layer.out}, at::kFloat, "bias");
  }
  check(params[params.size() - 2], {n_tasks, net.features, net.outputs}, at::kFloat, "head");
  check(params.back(), {n_tasks, 1, net.outputs}, at::kFloat, "head bias");
  check(x, x.sizes(), at::kFloat, "images");
  return net;
}

// One task's part of every tensor.
template <class T>
std::vector<T*> pointers(const std::vector<at::Tensor>& tensors, int64_t task) {
  std::vector<T*> result;
  for (const at::Tensor& tensor : tensors)
    result.push_back(static_cast<T*>(tensor.data_ptr()) + task * (tensor.numel() / tensor.size(0)));
  return result;
}

at::Tensor forward(const std::vector<at::Tensor>& params, const at::Tensor& x) {
  const Network net = check_network(params, x);
  const int64_t n_tasks = x.size(0), n = x.size(1), pixels = net.channels * net.height * net.width;
  at::Tensor logits = at::empty({n_tasks, n, net.outputs}, x.options());
  at::parallel_for(0, n_tasks, 1, [&](int64_t begin, int64_t end) {
    Task task(net, false);
    for (int64_t b = begin; b < end; ++b) {
      task.load(pointers<const float>(params, b));
      for (int64_t k = b * n; k < (b + 1) * n; ++k)
        task.forward(x.const_data_ptr<float>() + k * pixels,
                     logits.mutable_data_ptr<float>() + k * net.outputs);
    }
  });
  return logits;
}

// -log softmax(logits)[label]; gradient: (softmax(logits) - 1[label]) * scale
float cross_entropy(const float* logits, int64_t outputs, int64_t label, float scale,
                    float* gradient) {
  const float largest = *std::max_element(logits, logits + outputs);
  float sum = 0.0f;
  for (int64_t o = 0; o < outputs; ++o) sum += gradient[o] = std::exp(logits[o] - largest);
  for (int64_t o = 0; o < outputs; ++o) gradient[o] *= scale / sum;
  gradient[label] -= scale;
  return std::log(sum) + largest - logits[label];
}

// Mean cross-entropy of each task (B), logits, and the gradients of the former, as params.
std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y) {
  const Network net = check_network(params, x);
  const int64_t n_tasks = x.size(0), n = x.size(1), pixels = net.channels * net.height * net.width;
  check(y, {n_tasks, n}, at::kLong, "labels");
  const int64_t* labels = y.const_data_ptr<int64_t>();
  TORCH_CHECK(std::all_of(labels, labels + y.numel(),
                          [&](int64_t label) { return 0 <= label && label < net.outputs; }),
              "fused CNN: labels must be in [0, ", net.outputs, ")");
  at::Tensor losses = at::empty({n_tasks}, x.options());
  at::Tensor logits = at::empty({n_tasks, n, net.outputs}, x.options());
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& param : params) gradients.push_back(at::empty_like(param));
  at::parallel_for(0, n_tasks, 1, [&](int64_t begin, int64_t end) {
    Task task(net, true);
    std::vector<float> d_logits(net.outputs);
    for (int64_t b = begin; b < end; ++b) {
      task.load(pointers<const float>(params, b));
      task.clear_gradients();
      const auto to = pointers<float>(gradients, b);
      float *d_head = to[to.size() - 2], *d_head_bias = to.back();
      std::fill_n(d_head, net.features * net.outputs, 0.0f);
      std::fill_n(d_head_bias, net.outputs, 0.0f);
      double loss = 0.0;
      for (int64_t k = b * n; k < (b + 1) * n; ++k) {
        float* of_image = logits.mutable_data_ptr<float>() + k * net.outputs;
        task.forward(x.const_data_ptr<float>() + k * pixels, of_image);
        loss += cross_entropy(of_image, net.outputs, labels[k], 1.0f / n, d_logits.data());
        task.backward(d_logits.data(), d_head, d_head_bias);
      }
      task.store_gradients(to);
      losses.mutable_data_ptr<float>()[b] = loss / n;
    }
  });
  return {losses, logits, gradients};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  library.def("cnn_forward(Tensor[] params, Tensor x) -> Tensor");
  library.def(
      "cnn_loss_and_gradients(Tensor[] params, Tensor x, Tensor y) -> "
      "(Tensor, Tensor, Tensor[])");
}

TORCH_LIBRARY_IMPL(lft, CPU, library) {
  library.impl("cnn_forward", forward);
  library.impl("cnn_loss_and_gradients", loss_and_gradients);
}

// Not differentiable: the gradients are computed with the loss.
TORCH_LIBRARY_IMPL(lft, Autograd, library) {
  library.impl("cnn_forward", torch::CppFunction::makeFallthrough());
  library.impl("cnn_loss_and_gradients", torch::CppFunction::makeFallthrough());
}
