// Convolutional networks whose weights differ from task to task, for float32 on CPU;
// lft/kernels/cnn.py states the mathematics.
//
// One image at a time goes through all layers and back while its activations stay in cache.
// Channels lie last and in the vector lanes, padded with zeros to whole vectors. All convolutions,
// and their gradients with respect to the input, are sums over k of a[place + offset(k)] * w[k] for
// a block of places side by side: a broadcast number times a vector of weights.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "common.h"

namespace {

using lft::in_blocks, lft::LANES, lft::padded, lft::vec, lft::vec_at;

// Errors name the kernel.
void check(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType type, const char* name) {
  lft::check(tensor, shape, type, "fused CNN", name);
}

constexpr int KERNEL = 3, TAPS = KERNEL * KERNEL;
// Vectors of a block of sums, and of one of outer products.
constexpr int BLOCK = lft::REGISTERS / 2, OUTER = lft::REGISTERS == 32 ? 16 : 12;

struct Free {
  void operator()(float* p) const { std::free(p); }
};

// Zeros on whole vectors.
std::unique_ptr<float, Free> zeros(int64_t floats) {
  const size_t bytes = padded(floats) * sizeof(float);
  void* allocated = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  std::unique_ptr<float, Free> memory(static_cast<float*>(allocated));
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
  int64_t patch() const { return TAPS * in; }
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
  int64_t pixels() const { return channels * height * width; }
};

// ---- products

// sum[r * COLUMNS + c], V vectors each, += sum_k a[r * row + c * STRIDE + offset(k)] * w[k], w being
// rows of w_stride floats. A stride that the compiler knows is part of the instructions' addresses.
template <int ROWS, int COLUMNS, int V, int STRIDE>
void multiply(const float* a, int64_t row, int64_t stride, const std::vector<Run>& runs,
              const float* w, int64_t w_stride, vec* sum) {
  const int64_t step = STRIDE ? STRIDE : stride;
  vec total[ROWS * COLUMNS * V];
  LFT_UNROLL for (int n = 0; n < ROWS * COLUMNS * V; ++n) total[n] = sum[n];
  for (const Run& run : runs) {
    const float* p = a + run.offset;
    for (int64_t k = 0; k < run.length; ++k, ++p, w += w_stride) {
      vec weights[V];
      LFT_UNROLL for (int v = 0; v < V; ++v) weights[v] = vec_at(w + v * LANES);
      LFT_UNROLL for (int r = 0; r < ROWS; ++r)
        LFT_UNROLL for (int c = 0; c < COLUMNS; ++c)
          LFT_UNROLL for (int v = 0; v < V; ++v)
            total[(r * COLUMNS + c) * V + v] += p[r * row + c * step] * weights[v];
    }
  }
  LFT_UNROLL for (int n = 0; n < ROWS * COLUMNS * V; ++n) sum[n] = total[n];
}

// Numbers at the first place of a grid, and the weights they are multiplied by.
struct Term {
  const float *a, *w;
};
template <size_t N>
using Terms = std::array<Term, N>;

// Calls put(y, x, v, sum) for every place of a grid and v < V with the vth vector of start (zeros if
// null) + the products there of all terms.
template <int V, int STRIDE, size_t N, class Put>
void for_each_place(const Grid& grid, const Terms<N>& terms, const std::vector<Run>& runs,
                    int64_t w_stride, const float* start, const Put& put) {
  const auto block = [&]<int ROWS, int COLUMNS>(int64_t y, int64_t x) {
    vec sum[ROWS * COLUMNS * V];
    LFT_UNROLL for (int n = 0; n < ROWS * COLUMNS; ++n)
      LFT_UNROLL for (int v = 0; v < V; ++v)
        sum[n * V + v] = start ? vec_at(start + v * LANES) : vec{};
    for (const Term& term : terms)
      multiply<ROWS, COLUMNS, V, STRIDE>(term.a + y * grid.row + x * grid.column, grid.row,
                                         grid.column, runs, term.w, w_stride, sum);
    LFT_UNROLL for (int r = 0; r < ROWS; ++r)
      LFT_UNROLL for (int c = 0; c < COLUMNS; ++c)
        LFT_UNROLL for (int v = 0; v < V; ++v) put(y + r, x + c, v, sum[(r * COLUMNS + c) * V + v]);
  };
  int64_t x = 0;
  const auto blocks = [&]<int COLUMNS>() {
    constexpr int ROWS = std::clamp(BLOCK / V / COLUMNS, 1, 4);
    for (; x + COLUMNS <= grid.columns; x += COLUMNS) {
      int64_t y = 0;
      for (; y + ROWS <= grid.rows; y += ROWS) block.template operator()<ROWS, COLUMNS>(y, x);
      for (; y < grid.rows; ++y) block.template operator()<1, COLUMNS>(y, x);
    }
  };
  blocks.template operator()<BLOCK / V>();
  if constexpr (BLOCK / V >= 8) blocks.template operator()<8>();
  blocks.template operator()<4>();
  blocks.template operator()<2>();
  blocks.template operator()<1>();
}

// Calls f<V>(lane) for lanes below end in steps of V vectors.
template <class F>
void for_each_lane(int64_t end, const F& f) {
  int64_t lane = 0;
  for (; lane + 2 * LANES <= end; lane += 2 * LANES) f.template operator()<2>(lane);
  for (; lane < end; lane += LANES) f.template operator()<1>(lane);
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

// sums[n], V vectors each, += sum over places of a[place + n] * grad[place], n < N.
template <int N, int V>
void outer(const Layer& layer, const float* a, const float* grad, float* sums) {
  const int64_t stride = layer.out_stride;
  vec total[N][V];
  LFT_UNROLL for (int n = 0; n < N; ++n)
    LFT_UNROLL for (int v = 0; v < V; ++v) total[n][v] = vec_at(sums + n * stride + v * LANES);
  for (int64_t y = 0; y < layer.rows; ++y) {
    const float *p = a + 2 * y * layer.in_row(), *d = grad + y * layer.grad_row();
    for (int64_t x = 0; x < layer.columns; ++x, p += 2 * layer.in_stride, d += stride) {
      vec lanes[V];
      LFT_UNROLL for (int v = 0; v < V; ++v) lanes[v] = vec_at(d + v * LANES);
      LFT_UNROLL for (int n = 0; n < N; ++n)
        LFT_UNROLL for (int v = 0; v < V; ++v) total[n][v] += p[n] * lanes[v];
    }
  }
  LFT_UNROLL for (int n = 0; n < N; ++n)
    LFT_UNROLL for (int v = 0; v < V; ++v) vec_at(sums + n * stride + v * LANES) = total[n][v];
}

// The same for a whole run.
template <int V>
void outer(const Layer& layer, const float* a, int64_t length, const float* grad, float* sums) {
  in_blocks<OUTER / V>(0, length, [&]<int N>(int64_t n) {
    outer<N, V>(layer, a + n, grad, sums + n * layer.out_stride);
  });
}

// ---- one task

// Pointers to one task's parameters or their gradients, in the order of the operator's list.
template <class T>
using Pointers = std::vector<T*>;

// Images and labels of one task.
struct Examples {
  const float* x;
  const int64_t* y;
  int64_t n;
};

// A thread's memory: the task's weights in the order of the products, and one image's activations
// and their gradients d; with order 2 also the derivatives of all these along a direction v of the
// parameters, the tangents.
class Task {
 public:
  // order: of the derivatives that are asked for, 0 to 2
  Task(const Network& net, int order)
      : net_(net),
        order_(order),
        logits_(net.outputs),
        d_logits_(net.outputs),
        r_logits_(net.outputs),
        r_d_(net.outputs) {
    int64_t floats = 0;
    const auto take = [&](int64_t n) { return std::exchange(floats, floats + padded(n)); };
    const auto lay_out = [&](Places& places) {
      for (const Layer& layer : net.layers) {
        places.input.push_back(take(layer.in_floats()));
        places.weights.push_back(take(layer.patch() * layer.out_stride));
        places.bias.push_back(take(layer.out_stride));
        places.transposed.push_back(take(order ? TAPS * layer.out * padded(layer.in) : 0));
        places.grad.push_back(take(order ? layer.grad_floats() : 0));
      }
      places.output = take(net.last().rows * net.last().columns * net.last().out_stride);
    };
    lay_out(values_);
    if (order == 2) lay_out(tangents_);
    if (order)
      for (const Layer& layer : net.layers) {
        sums_.push_back(take(layer.patch() * layer.out_stride));
        bias_sums_.push_back(take(layer.out_stride));
      }
    memory_ = zeros(floats);
  }

  void load(const Pointers<const float>& params) { load(params, values_); }

  // image: (C, H, W); logits: (outputs)
  void forward(const float* image, float* logits) {
    load_image(image);
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      float* output = output_of(l, values_);
      convolve(l, Terms<1>{{term(l, values_, values_)}}, values_, [&](int64_t place, vec sum) {
        vec_at(output + place) = sum < 0.0f ? vec{} : sum;
      });
    }
    std::copy_n(values_.head_bias, net_.outputs, logits);
    add_logits(values_, values_, logits);
  }

  // The mean cross-entropy of the examples and its gradient.
  double gradient(const Examples& examples, const Pointers<float>& to) {
    clear_sums(to);
    double loss = 0.0;
    for (int64_t k = 0; k < examples.n; ++k) {
      forward(examples.x + k * net_.pixels(), logits_.data());
      loss += lft::cross_entropy(logits_.data(), net_.outputs, examples.y[k], 1.0f / examples.n,
                                 d_logits_.data());
      backward();
      add_head_gradients(values_, d_logits_, to);
      for (size_t l = 0; l < net_.layers.size(); ++l) add_weight_gradients(l, values_, values_);
    }
    store_sums(to);
    return loss / examples.n;
  }

  // The product of that gradient's Jacobian, the Hessian, with v.
  void hessian_product(const Examples& examples, const Pointers<const float>& v,
                       const Pointers<float>& to) {
    load(v, tangents_);
    clear_sums(to);
    for (int64_t k = 0; k < examples.n; ++k) {
      const float scale = 1.0f / examples.n;
      forward(examples.x + k * net_.pixels(), logits_.data());
      lft::cross_entropy(logits_.data(), net_.outputs, examples.y[k], scale, d_logits_.data());
      backward();
      forward_tangent();
      lft::cross_entropy_tangent(logits_.data(), r_logits_.data(), net_.outputs, scale,
                                 r_d_.data());
      backward_tangent();
      add_head_gradients(values_, r_d_, to);
      add_outer_head(tangents_, d_logits_, to);
      for (size_t l = 0; l < net_.layers.size(); ++l) {
        add_weight_gradients(l, values_, tangents_);
        if (l > 0) add_outer(l, tangents_, values_);
      }
    }
    store_sums(to);
  }

 private:
  // Where the numbers of each layer lie, and those of the linear layer.
  struct Places {
    std::vector<int64_t> input, weights, bias, transposed, grad;
    int64_t output;
    const float *head, *head_bias;
  };

  float* at(int64_t place) { return memory_.get() + place; }

  void load(const Pointers<const float>& params, Places& places) {
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const Layer& layer = net_.layers[l];
      float* weights = at(places.weights[l]);
      for_each_weight(layer, [&](int64_t k, int64_t tap, int64_t c, int64_t o) {
        weights[(tap * layer.in + c) * layer.out_stride + o] = params[2 * l][k];
      });
      std::copy_n(params[2 * l + 1], layer.out, at(places.bias[l]));
      if (order_ && l > 0) load_transposed(layer, params[2 * l], at(places.transposed[l]));
    }
    places.head = params[params.size() - 2];
    places.head_bias = params.back();
  }

  void forward_tangent() {
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const float* value = output_of(l, values_);
      float* output = output_of(l, tangents_);
      const auto put = [&](int64_t place, vec sum) {
        vec_at(output + place) = vec_at(value + place) <= 0.0f ? vec{} : sum;
      };
      const Term along_weights = term(l, values_, tangents_);
      if (l == 0)
        convolve(l, Terms<1>{{along_weights}}, tangents_, put);
      else
        convolve(l, Terms<2>{{along_weights, term(l, tangents_, values_)}}, tangents_, put);
    }
    std::copy_n(tangents_.head_bias, net_.outputs, r_logits_.data());
    add_logits(values_, tangents_, r_logits_.data());
    add_logits(tangents_, values_, r_logits_.data());
  }

  // Gradients of all layers' outputs, from d_logits_.
  void backward() {
    for_each_feature([&](int64_t k, int64_t place, int64_t grad_place) {
      const float sum = of_feature(values_, k, d_logits_);
      at(values_.grad.back())[grad_place] = at(values_.output)[place] <= 0.0f ? 0.0f : sum;
    });
    for (size_t l = net_.layers.size() - 1; l > 0; --l)
      input_gradient(l, Terms<1>{{back_term(l, values_, values_)}}, values_);
  }

  // Their tangents, from r_d_.
  void backward_tangent() {
    for_each_feature([&](int64_t k, int64_t place, int64_t grad_place) {
      const float sum = of_feature(values_, k, r_d_) + of_feature(tangents_, k, d_logits_);
      at(tangents_.grad.back())[grad_place] = at(values_.output)[place] <= 0.0f ? 0.0f : sum;
    });
    for (size_t l = net_.layers.size() - 1; l > 0; --l)
      input_gradient(
          l, Terms<2>{{back_term(l, tangents_, values_), back_term(l, values_, tangents_)}},
          tangents_);
  }

  // ---- the linear layer

  void add_logits(const Places& features, const Places& weights, float* logits) {
    for_each_feature([&](int64_t k, int64_t place, int64_t) {
      const float feature = at(features.output)[place], *w = weights.head + k * net_.outputs;
      for (int64_t o = 0; o < net_.outputs; ++o) logits[o] += feature * w[o];
    });
  }

  float of_feature(const Places& weights, int64_t k, const std::vector<float>& d) const {
    const float* w = weights.head + k * net_.outputs;
    float sum = 0.0f;
    for (int64_t o = 0; o < net_.outputs; ++o) sum += w[o] * d[o];
    return sum;
  }

  void add_head_gradients(const Places& features, const std::vector<float>& d,
                          const Pointers<float>& to) {
    for (int64_t o = 0; o < net_.outputs; ++o) to.back()[o] += d[o];
    add_outer_head(features, d, to);
  }

  void add_outer_head(const Places& features, const std::vector<float>& d,
                      const Pointers<float>& to) {
    for_each_feature([&](int64_t k, int64_t place, int64_t) {
      const float feature = at(features.output)[place];
      float* d_w = to[to.size() - 2] + k * net_.outputs;
      for (int64_t o = 0; o < net_.outputs; ++o) d_w[o] += feature * d[o];
    });
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

  // ---- convolutions

  Term term(size_t l, const Places& inputs, const Places& weights) {
    return {at(inputs.input[l]), at(weights.weights[l])};
  }
  Term back_term(size_t l, const Places& grads, const Places& weights) {
    return {at(grads.grad[l]), at(weights.transposed[l])};
  }

  // Calls put(place in the output, bias + the sum of all terms).
  template <size_t N, class Put>
  void convolve(size_t l, const Terms<N>& terms, const Places& biases, const Put& put) {
    const Layer& layer = net_.layers[l];
    const Grid grid{layer.rows, layer.columns, 2 * layer.in_row(), 2 * layer.in_stride};
    const auto [row, column] = strides_after(l);
    with_stride(grid.column, [&, row = row, column = column]<int STRIDE>() {
      for_each_lane(layer.out_stride, [&, row = row, column = column]<int V>(int64_t o) {
        for_each_place<V, STRIDE>(
            grid, shifted(terms, o), layer.runs, layer.out_stride, at(biases.bias[l]) + o,
            [&](int64_t y, int64_t x, int v, vec sum) {
              put(o + v * LANES + y * row + x * column, sum);
            });
      });
    });
  }

  // The gradient of a layer's input, the sum of all terms through the ReLU of the layer below.
  template <size_t N>
  void input_gradient(size_t l, Terms<N> terms, const Places& to) {
    const Layer &layer = net_.layers[l], &below = net_.layers[l - 1];
    const int64_t lanes = padded(layer.in);
    for (const Parity& parity : layer.parities) {
      const float* values = at(values_.input[l]) + layer.inside() +
                            parity.odd_row * layer.in_row() + parity.odd_column * layer.in_stride;
      float* gradients = at(to.grad[l - 1]) + parity.odd_row * below.grad_row() +
                         parity.odd_column * below.out_stride;
      with_stride(parity.grid.column, [&]<int STRIDE>() {
        for_each_lane(lanes, [&]<int V>(int64_t c) {
          for_each_place<V, STRIDE>(
              parity.grid, shifted(terms, c), parity.runs, lanes, nullptr,
              [&](int64_t y, int64_t x, int v, vec sum) {
                const int64_t lane = c + v * LANES;
                const vec value =
                    vec_at(values + lane + 2 * (y * layer.in_row() + x * layer.in_stride));
                vec_at(gradients + lane + 2 * (y * below.grad_row() + x * below.out_stride)) =
                    value <= 0.0f ? vec{} : sum;
              });
        });
      });
      terms = shifted(terms, parity.taps.size() * layer.out * lanes);
    }
  }

  template <size_t N>
  static Terms<N> shifted(Terms<N> terms, int64_t floats) {
    for (Term& term : terms) term.w += floats;
    return terms;
  }

  void add_weight_gradients(size_t l, const Places& inputs, const Places& grads) {
    add_outer(l, inputs, grads);
    const Layer& layer = net_.layers[l];
    for (int64_t o = 0; o < layer.out_stride; o += LANES) {
      vec total{};
      for (int64_t y = 0; y < layer.rows; ++y)
        for (int64_t x = 0; x < layer.columns; ++x)
          total += vec_at(at(grads.grad[l]) + o + y * layer.grad_row() + x * layer.out_stride);
      vec_at(at(bias_sums_[l]) + o) += total;
    }
  }

  void add_outer(size_t l, const Places& inputs, const Places& grads) {
    const Layer& layer = net_.layers[l];
    for_each_lane(layer.out_stride, [&]<int V>(int64_t o) {
      float* sums = at(sums_[l]) + o;
      for (const Run& run : layer.runs) {
        outer<V>(layer, at(inputs.input[l]) + run.offset, run.length, at(grads.grad[l]) + o, sums);
        sums += run.length * layer.out_stride;
      }
    });
  }

  // Where a layer's output goes: within the margin of the next layer's input.
  float* output_of(size_t l, const Places& places) {
    if (l + 1 == net_.layers.size()) return at(places.output);
    return at(places.input[l + 1]) + net_.layers[l + 1].inside();
  }
  std::pair<int64_t, int64_t> strides_after(size_t l) const {
    const Layer& layer = net_.layers[l];
    if (l + 1 == net_.layers.size()) return {layer.columns * layer.out_stride, layer.out_stride};
    return {net_.layers[l + 1].in_row(), net_.layers[l + 1].in_stride};
  }

  // ---- from and to the order of the operator's list

  void load_image(const float* image) {
    const Layer& layer = net_.layers[0];
    float* input = at(values_.input[0]) + layer.inside();
    for (int64_t c = 0; c < layer.in; ++c)
      for (int64_t y = 0; y < layer.height; ++y)
        for (int64_t x = 0; x < layer.width; ++x)
          input[y * layer.in_row() + x * layer.in + c] = *image++;
  }

  void clear_sums(const Pointers<float>& to) {
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const Layer& layer = net_.layers[l];
      std::fill_n(at(sums_[l]), layer.patch() * layer.out_stride, 0.0f);
      std::fill_n(at(bias_sums_[l]), layer.out_stride, 0.0f);
    }
    std::fill_n(to[to.size() - 2], net_.features * net_.outputs, 0.0f);
    std::fill_n(to.back(), net_.outputs, 0.0f);
  }

  void store_sums(const Pointers<float>& to) {
    for (size_t l = 0; l < net_.layers.size(); ++l) {
      const Layer& layer = net_.layers[l];
      const float* sums = at(sums_[l]);
      for_each_weight(layer, [&](int64_t k, int64_t tap, int64_t c, int64_t o) {
        to[2 * l][k] = sums[(tap * layer.in + c) * layer.out_stride + o];
      });
      std::copy_n(at(bias_sums_[l]), layer.out, to[2 * l + 1]);
    }
  }

  // Calls f(k, tap, c, o) for element k of weights (out, in, 3, 3).
  template <class F>
  static void for_each_weight(const Layer& layer, const F& f) {
    int64_t k = 0;
    for (int64_t o = 0; o < layer.out; ++o)
      for (int64_t c = 0; c < layer.in; ++c)
        for (int64_t tap = 0; tap < TAPS; ++tap) f(k++, tap, c, o);
  }

  // Weights (tap, out, in) of the parities' taps, one parity after the other.
  static void load_transposed(const Layer& layer, const float* from, float* to) {
    for (const Parity& parity : layer.parities)
      for (const int64_t tap : parity.taps)
        for (int64_t o = 0; o < layer.out; ++o, to += padded(layer.in))
          for (int64_t c = 0; c < layer.in; ++c)
            to[c] = from[(o * layer.in + c) * TAPS + tap];
  }

  const Network& net_;
  int order_;
  Places values_, tangents_;
  std::vector<int64_t> sums_, bias_sums_;  // gradients of weights and biases
  std::vector<float> logits_, d_logits_, r_logits_, r_d_;
  std::unique_ptr<float, Free> memory_;
};

// ---- operators

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
    check(params[2 * l], {n_tasks, layer.out, layer.in, KERNEL, KERNEL}, at::kFloat,
          "weight");
    check(params[2 * l + 1], {n_tasks, layer.out}, at::kFloat, "bias");
  }
  check(params[params.size() - 2], {n_tasks, net.features, net.outputs}, at::kFloat,
        "head");
  check(params.back(), {n_tasks, 1, net.outputs}, at::kFloat, "head bias");
  check(x, x.sizes(), at::kFloat, "images");
  return net;
}

void check_labels(const Network& net, const at::Tensor& x, const at::Tensor& y) {
  lft::check_labels(y, {x.size(0), x.size(1)}, net.outputs, "fused CNN");
}

// One task's part of every tensor.
template <class T>
Pointers<T> pointers(const std::vector<at::Tensor>& tensors, int64_t task) {
  Pointers<T> result;
  for (const at::Tensor& tensor : tensors) result.push_back(lft::part<T>(tensor, task));
  return result;
}

Examples examples_of(const at::Tensor& x, const at::Tensor& y, int64_t task) {
  return {lft::part<const float>(x, task), lft::part<const int64_t>(y, task), x.size(1)};
}

at::Tensor forward(const std::vector<at::Tensor>& params, const at::Tensor& x) {
  const Network net = check_network(params, x);
  const int64_t n = x.size(1);
  at::Tensor logits = at::empty({x.size(0), n, net.outputs}, x.options());
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    Task task(net, 0);
    for (int64_t b = begin; b < end; ++b) {
      task.load(pointers<const float>(params, b));
      for (int64_t k = 0; k < n; ++k)
        task.forward(lft::part<const float>(x, b) + k * net.pixels(),
                     lft::part<float>(logits, b) + k * net.outputs);
    }
  });
  return logits;
}

// Mean cross-entropy of each task (B), and its gradients, as params.
std::tuple<at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y) {
  const Network net = check_network(params, x);
  check_labels(net, x, y);
  at::Tensor losses = at::empty({x.size(0)}, x.options());
  const std::vector<at::Tensor> gradients = lft::like(params);
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    Task task(net, 1);
    for (int64_t b = begin; b < end; ++b) {
      task.load(pointers<const float>(params, b));
      losses.mutable_data_ptr<float>()[b] =
          task.gradient(examples_of(x, y, b), pointers<float>(gradients, b));
    }
  });
  return {losses, gradients};
}

// A network's parameters, or anything else of their shapes, for one task.
class Parameters {
 public:
  explicit Parameters(const std::vector<at::Tensor>& params) {
    for (const at::Tensor& param : params) parts_.emplace_back(param.numel() / param.size(0));
  }
  void load(const Pointers<const float>& from) {
    for (size_t k = 0; k < parts_.size(); ++k) std::copy_n(from[k], parts_[k].size(), parts_[k].data());
  }
  void store(const Pointers<float>& to) const {
    for (size_t k = 0; k < parts_.size(); ++k) std::copy_n(parts_[k].data(), parts_[k].size(), to[k]);
  }
  Pointers<const float> read() const {
    Pointers<const float> result;
    for (const auto& part : parts_) result.push_back(part.data());
    return result;
  }
  Pointers<float> write() {
    Pointers<float> result;
    for (auto& part : parts_) result.push_back(part.data());
    return result;
  }
  // to = from + factor * change
  friend void set_sum(const Parameters& from, float factor, const Parameters& change,
                      Parameters& to) {
    for (size_t k = 0; k < to.parts_.size(); ++k)
      for (size_t i = 0; i < to.parts_[k].size(); ++i)
        to.parts_[k][i] = from.parts_[k][i] + factor * change.parts_[k][i];
  }

 private:
  std::vector<std::vector<float>> parts_;
};

// Gradient descent on (x, y): the loss on (query_x, query_y) after the last step (B), its gradient
// in the parameters before the first, and the parameters after the last, as params.
std::tuple<at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>> descend(
    const std::vector<at::Tensor>& params, const at::Tensor& x, const at::Tensor& y,
    const at::Tensor& query_x, const at::Tensor& query_y, int64_t steps, double step_size) {
  const Network net = check_network(params, x);
  check_labels(net, x, y);
  check_labels(check_network(params, query_x), query_x, query_y);
  at::Tensor losses = at::empty({x.size(0)}, x.options());
  const std::vector<at::Tensor> gradients = lft::like(params), ends = lft::like(params);
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    Task task(net, 2);
    std::vector<Parameters> path(steps + 1, Parameters(params));
    Parameters v(params);
    for (int64_t b = begin; b < end; ++b) {
      path[0].load(pointers<const float>(params, b));
      const auto gradient = [&](const at::Tensor& x, const at::Tensor& y, const Parameters& at,
                                Parameters& to) {
        task.load(at.read());
        return task.gradient(examples_of(x, y, b), to.write());
      };
      losses.mutable_data_ptr<float>()[b] = lft::descend(
          path, v, step_size,
          [&](const Parameters& at, Parameters& to) { gradient(x, y, at, to); },
          [&](const Parameters& at, Parameters& to) { return gradient(query_x, query_y, at, to); },
          [&](const Parameters& at, const Parameters& v, Parameters& to) {
            task.load(at.read());
            task.hessian_product(examples_of(x, y, b), v.read(), to.write());
          });
      v.store(pointers<float>(gradients, b));
      path.back().store(pointers<float>(ends, b));
    }
  });
  return {losses, gradients, ends};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  library.def("cnn_forward(Tensor[] params, Tensor x) -> Tensor");
  library.def(
      "cnn_loss_and_gradients(Tensor[] params, Tensor x, Tensor y) -> (Tensor, Tensor[])");
  library.def(
      "cnn_descend(Tensor[] params, Tensor x, Tensor y, Tensor query_x, Tensor query_y, int steps, "
      "float step_size) -> (Tensor, Tensor[], Tensor[])");
}

TORCH_LIBRARY_IMPL(lft, CPU, library) {
  library.impl("cnn_forward", forward);
  library.impl("cnn_loss_and_gradients", loss_and_gradients);
  library.impl("cnn_descend", descend);
}

// Not differentiable: the gradients are computed with the loss.
TORCH_LIBRARY_IMPL(lft, Autograd, library) {
  library.impl("cnn_forward", torch::CppFunction::makeFallthrough());
  library.impl("cnn_loss_and_gradients", torch::CppFunction::makeFallthrough());
  library.impl("cnn_descend", torch::CppFunction::makeFallthrough());
}
