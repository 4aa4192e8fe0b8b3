// Batches of per-task convolutional networks for float32 on the CPU.
// lft/kernels/cnn.py states the mathematics.
//
// Channels are the last dimension and fill the vector lanes, padded with zeros to whole vectors.
// All convolutions, and their gradients with respect to the input, are sums over k of
// a[place + offset(k)] * w[k] for a block of neighbouring places.

#include <span>

#include "networks.h"

namespace {

using namespace lft;

constexpr int KERNEL = 3, TAPS = KERNEL * KERNEL;
// Vectors per block of sums, and per block of outer products.
constexpr int BLOCK = REGISTERS / 2, OUTER = LARGE ? 16 : 12;

// ---- the geometry of a network

// A run of contiguous numbers, and the row of the weights that multiplies the first of them.
struct Run {
  int64_t offset, length, row;
};

// Places in an array: (y, x) -> y * row + x * column.
struct Grid {
  int64_t rows, columns, row, column;
};

// The places of the input whose rows and columns have given parities, and the parts of the output's
// gradient that reach them. The middle row of a patch lies on an even row of the input. An odd row
// is the last row of the patch above and the first row of the patch below. Columns work the same.
struct Parity {
  bool odd_row, odd_column;
  Grid grid;
  std::vector<Run> runs;  // runs of the output's gradient, one per tap
};

// A 3x3 convolution of stride 2 with padding 1. Its input is (2 rows + 1, 2 columns + 1, in_stride)
// with a margin of one at the top and left; the gradient of its output is (rows + 1, columns + 1,
// out_stride) with a margin of zeros at the bottom and right. Weights are (tap, in, out_stride).
struct Convolution {
  int64_t in, out, height, width;
  int64_t in_stride, out_stride = padded(out), rows = (height + 1) / 2, columns = (width + 1) / 2;
  std::vector<Run> runs;  // runs of a patch, from its upper left corner
  std::vector<Parity> parities;
  std::vector<int64_t> taps;  // taps of all parities, in the order of use

  Convolution(int64_t in, int64_t out, int64_t height, int64_t width, bool first)
      : in(in), out(out), height(height), width(width), in_stride(first ? in : padded(in)) {
    for (int64_t i = 0; i < KERNEL; ++i)
      if (in == in_stride)
        runs.push_back({i * in_row(), KERNEL * in, i * KERNEL * in});
      else
        for (int64_t j = 0; j < KERNEL; ++j)
          runs.push_back({i * in_row() + j * in_stride, in, (i * KERNEL + j) * in});
    for (bool odd_row : {false, true})
      for (bool odd_column : {false, true}) {
        const Grid grid{(height + !odd_row) / 2, (width + !odd_column) / 2, grad_row(), out_stride};
        Parity& parity = parities.emplace_back(Parity{odd_row, odd_column, grid, {}});
        for (int64_t below = 0; below <= odd_row; ++below)
          for (int64_t right = 0; right <= odd_column; ++right) {
            const int64_t i = odd_row ? 2 - 2 * below : 1, j = odd_column ? 2 - 2 * right : 1;
            const int64_t offset = below * grad_row() + right * out_stride, row = taps.size() * out;
            parity.runs.push_back({offset, out, row});
            taps.push_back(i * KERNEL + j);
          }
      }
  }

  int64_t in_row() const { return (2 * columns + 1) * in_stride; }
  int64_t inside() const { return in_row() + in_stride; }  // the first place within the margin
  int64_t grad_row() const { return (columns + 1) * out_stride; }
};

struct Network {
  std::vector<Convolution> convolutions;
  Layers layers;
  int64_t pixels;

  // params: weights (B, out, in, 3, 3) and biases (B, out) of each layer, then the linear layer's
  // (B, features, outputs) and (B, 1, outputs).
  Network(const std::vector<at::Tensor>& params, const at::Tensor& x) {
    TORCH_CHECK(params.size() >= 4 && params.size() % 2 == 0 && x.dim() == 5,
                "weights and a bias of each layer and images (B, n, C, H, W) are needed");
    const int64_t n_tasks = x.size(0);
    int64_t in = x.size(2), height = x.size(3), width = x.size(4);
    check(x, x.sizes(), "images");
    pixels = in * height * width;
    for (size_t k = 0; k + 2 < params.size(); k += 2) {
      TORCH_CHECK(params[k].dim() == 5, "convolutions must be (B, out, in, 3, 3)");
      const int64_t out = params[k].size(1);
      check(params[k], {n_tasks, out, in, KERNEL, KERNEL}, "weight");
      check(params[k + 1], {n_tasks, out}, "bias");
      layers.push_back({in, out, TAPS});
      const Convolution& last = convolutions.emplace_back(in, out, height, width, k == 0);
      in = out, height = last.rows, width = last.columns;
    }
    layers.push_back(linear_layer(params, params.size() - 2, n_tasks, in * height * width));
  }

  int64_t outputs() const { return layers.back().out; }
  // Transposes the layers that gradients pass back through. The first is not needed: nothing asks
  // for the gradient of the images.
  void transpose(Layers& net) const {
    for (size_t l = 1; l < convolutions.size(); ++l) net[l].transpose(convolutions[l].taps);
  }
};

// ---- products

// The numbers at the first place of a grid, and the weights that multiply them.
struct Term {
  const float *a, *w;
};
using Terms = std::span<const Term>;

// Adds the sum over k of a[place + offset(k)] * w[k] to each place of a block, where a place is
// (y, x) -> y * row + x * column and the rows of w are w_stride floats apart. A nonzero COLUMN is
// known to the compiler, which folds it into addresses. Not inlined, so that the sums need not
// share registers with the surrounding code.
template <int COLUMNS, int COLUMN, int N, int V>
[[gnu::noinline]] void add_products(const Term& term, int64_t row, int64_t column,
                                    const std::vector<Run>& runs, int64_t w_stride,
                                    Sums<N, V>& to) {
  Sums<N, V> sums = to;
  if (COLUMN) column = COLUMN;
  for (const Run& run : runs)
    sums.add_product(run.length, term.a + run.offset,
                     [&](int n) { return n / COLUMNS * row + n % COLUMNS * column; }, 1,
                     term.w + run.row * w_stride, w_stride);
  to = sums;
}

// Calls put(y, x, lane, sum) for every place of a grid and V vectors starting at `lane`. The sum is
// start (zeros if null) plus the products of all terms at that place.
template <int V, int COLUMN, class Put>
void for_each_place(const Grid& grid, Terms terms, const std::vector<Run>& runs,
                    int64_t w_stride, int64_t lane, const float* start, const Put& put) {
  const auto block = [&]<int ROWS, int COLUMNS>(int64_t y, int64_t x) {
    const int64_t place = y * grid.row + x * grid.column;
    Sums<ROWS * COLUMNS, V> sums(
        [&](int, int v) { return start ? vec_at(start + lane + v * LANES) : vec{}; });
    for (const Term& term : terms)
      add_products<COLUMNS, COLUMN>({term.a + place, term.w + lane}, grid.row, grid.column, runs,
                                    w_stride, sums);
    sums.put([&](int n, int v, vec sum) {
      put(y + n / COLUMNS, x + n % COLUMNS, lane + v * LANES, sum);
    });
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

// Calls for_each_place for all lanes of the weights' rows.
template <class Put>
void for_each_sum(const Grid& grid, Terms terms, const std::vector<Run>& runs,
                  int64_t w_stride, const float* start, const Put& put) {
  const auto with_column = [&]<int COLUMN>() {
    in_blocks<2>(0, w_stride / LANES, [&]<int V>(int64_t v) {
      for_each_place<V, COLUMN>(grid, terms, runs, w_stride, v * LANES, start, put);
    });
  };
  switch (grid.column) {
    case 2: return with_column.template operator()<2>();
    case 6: return with_column.template operator()<6>();
    case LANES: return with_column.template operator()<LANES>();
    case 2 * LANES: return with_column.template operator()<2 * LANES>();
    default: return with_column.template operator()<0>();
  }
}

// to(n), V vectors each, += sum over places of a[place + n] * grad[place], n < N.
template <int N, int V>
void add_outer(const Convolution& layer, const float* a, const float* grad, float* to) {
  const int64_t stride = layer.out_stride;
  Sums<N, V> sums([&](int n, int v) { return vec_at(to + n * stride + v * LANES); });
  for (int64_t y = 0; y < layer.rows; ++y)
    sums.add_product(layer.columns, a + 2 * y * layer.in_row(), [](int n) { return n; },
                     2 * layer.in_stride, grad + y * layer.grad_row(), stride);
  sums.put([&](int n, int v, vec sum) { vec_at(to + n * stride + v * LANES) = sum; });
}

// ---- one task

// One image's activations and their gradients, or the tangents of both: their derivatives along a
// direction in the parameters.
struct Pass {
  std::vector<Floats> input, d_output;  // of each convolution
  Floats features, logits, d_logits;    // the last two padded to whole vectors

  Pass() = default;
  Pass(const Network& network, bool gradients)
      : logits(padded(network.outputs())), d_logits(padded(network.outputs())) {
    for (const Convolution& layer : network.convolutions) {
      input.emplace_back((2 * layer.rows + 1) * layer.in_row());
      if (gradients) d_output.emplace_back((layer.rows + 1) * layer.grad_row());
      features.resize(layer.rows * layer.columns * layer.out_stride);
    }
  }
};

// A pass and the weights that it is multiplied by on its way through the layers, forward or back.
struct Factor {
  const Pass& pass;
  const Layers& net;
};
using Factors = std::initializer_list<Factor>;

struct Point {
  const Network& network;
  Layers net = network.layers;
};

class Task {
 public:
  Task(const Network& network, int order)
      : network_(network),
        values_(network, order > 0),
        tangents_(order == 2 ? Pass(network, true) : Pass()) {}

  // image: (C, H, W)
  const float* logits(const Layers& net, const float* image) {
    load_image(image);
    forward({{values_, net}}, values_);
    return values_.logits.data();
  }

  float gradient(Point& at, const Examples& examples, Layers& to) {
    network_.transpose(at.net);
    to = network_.layers;
    double total = 0.0;
    for (int64_t k = 0; k < examples.n; ++k) {
      total += there_and_back(at.net, examples, k);
      add_biases(values_, to);
      add_weights(0, values_, values_, to);
    }
    return total / examples.terms();
  }

  void hessian_product(const Point& at, const Examples& examples, Layers& v, Layers& to) {
    network_.transpose(v);
    to = network_.layers;
    for (int64_t k = 0; k < examples.n; ++k) {
      there_and_back(at.net, examples, k);
      forward({{values_, v}, {tangents_, at.net}}, tangents_);
      examples.tangent(values_.logits.data(), tangents_.logits.data(), tangents_.d_logits.data());
      back({{tangents_, at.net}, {values_, v}}, tangents_);
      add_biases(tangents_, to);
      add_weights(0, values_, tangents_, to);
      add_weights(1, tangents_, values_, to);
    }
  }

 private:
  // Takes image k forward and back through all layers; returns its loss.
  double there_and_back(const Layers& net, const Examples& examples, int64_t k) {
    logits(net, examples.x + k * network_.pixels);
    const double loss = examples.gradient(k, values_.logits.data(), values_.d_logits.data());
    back({{values_, net}}, values_);
    return loss;
  }

  // Computes all outputs; each is the sum of the factors' products plus the first factor's bias.
  void forward(const Factors& factors, Pass& to) {
    const Layers& first = factors.begin()->net;
    for (size_t l = 0; l < network_.convolutions.size(); ++l) {
      Term terms[2];
      size_t n = 0;
      for (const auto& [pass, net] : factors)
        if (l > 0 || &pass == &values_)  // the image has no tangent
          terms[n++] = {pass.input[l].data(), net[l].w.row(0)};
      const float* value = &to == &values_ ? nullptr : output_of(l, values_);
      float* output = output_of(l, to);
      convolve(l, {terms, n}, first[l].b, [value, output](int64_t place, vec sum) {
        vec_at(output + place) = (value ? vec_at(value + place) : sum) <= 0.0f ? vec{} : sum;
      });
    }
    to.logits = first.back().b.data;
    for (const auto& [pass, net] : factors) add_logits(pass, net, to);
  }

  // Computes the gradients of all outputs; each is the sum of the factors' products.
  void back(const Factors& factors, Pass& to) const {
    for_each_feature([&](int64_t f, int64_t place, int64_t d_place) {
      float sum = 0.0f;
      for (const auto& [pass, net] : factors) sum += d_feature(f, net, pass);
      to.d_output.back()[d_place] = values_.features[place] <= 0.0f ? 0.0f : sum;
    });
    for (size_t l = network_.convolutions.size() - 1; l > 0; --l) {
      Term terms[2];
      size_t n = 0;
      for (const auto& [pass, net] : factors)
        terms[n++] = {pass.d_output[l].data(), net[l].w_transposed.row(0)};
      input_gradient(l, {terms, n}, to);
    }
  }

  // ---- the linear layer

  void add_logits(const Pass& from, const Layers& net, Pass& to) const {
    for_each_feature([&](int64_t f, int64_t place, int64_t) {
      const float* w = net.back().w.row(f);
      add_multiple(from.features[place], w, to.logits.size(), to.logits.data());
    });
  }

  float d_feature(int64_t f, const Layers& net, const Pass& pass) const {
    const float* w = net.back().w.row(f);
    float sum = 0.0f;
    for (int64_t o = 0; o < network_.outputs(); ++o) sum += w[o] * pass.d_logits[o];
    return sum;
  }

  // Calls f(k, place in the features, place in their gradient) for every input k of the layer.
  template <class F>
  void for_each_feature(const F& f) const {
    const Convolution& layer = network_.convolutions.back();
    int64_t k = 0;
    for (int64_t c = 0; c < layer.out; ++c)
      for (int64_t y = 0; y < layer.rows; ++y)
        for (int64_t x = 0; x < layer.columns; ++x)
          f(k++, (y * layer.columns + x) * layer.out_stride + c,
            y * layer.grad_row() + x * layer.out_stride + c);
  }

  // ---- convolutions

  // Calls put(place in the output, bias + the sum of all terms).
  template <class Put>
  void convolve(size_t l, Terms terms, const Matrix& bias, const Put& put) const {
    const Convolution& layer = network_.convolutions[l];
    const bool last = l + 1 == network_.convolutions.size();
    const int64_t column = layer.out_stride;
    const int64_t row = last ? layer.columns * column : network_.convolutions[l + 1].in_row();
    const Grid grid{layer.rows, layer.columns, 2 * layer.in_row(), 2 * layer.in_stride};
    for_each_sum(grid, terms, layer.runs, layer.out_stride, bias.row(0),
                 [&, row, column](int64_t y, int64_t x, int64_t lane, vec sum) {
                   put(lane + y * row + x * column, sum);
                 });
  }

  // The gradient of a layer's input: the sum of all terms, masked by the ReLU of the layer below.
  void input_gradient(size_t l, Terms terms, Pass& to) const {
    const Convolution &layer = network_.convolutions[l], &below = network_.convolutions[l - 1];
    for (const Parity& parity : layer.parities) {
      const float* values = &values_.input[l][layer.inside()] +
                            parity.odd_row * layer.in_row() + parity.odd_column * layer.in_stride;
      float* gradients = to.d_output[l - 1].data() + parity.odd_row * below.grad_row() +
                         parity.odd_column * below.out_stride;
      for_each_sum(parity.grid, terms, parity.runs, layer.in_stride, nullptr,
                   [&](int64_t y, int64_t x, int64_t lane, vec sum) {
                     const vec value =
                         vec_at(values + lane + 2 * (y * layer.in_row() + x * layer.in_stride));
                     vec_at(gradients + lane + 2 * (y * below.grad_row() + x * below.out_stride)) =
                         value <= 0.0f ? vec{} : sum;
                   });
    }
  }

  // Returns the place for a layer's output: inside the margin of the next layer's input.
  float* output_of(size_t l, Pass& pass) const {
    if (l + 1 == network_.convolutions.size()) return pass.features.data();
    return &pass.input[l + 1][network_.convolutions[l + 1].inside()];
  }

  void load_image(const float* image) {
    const Convolution& layer = network_.convolutions[0];
    float* input = &values_.input[0][layer.inside()];
    for (int64_t c = 0; c < layer.in; ++c)
      for (int64_t y = 0; y < layer.height; ++y)
        for (int64_t x = 0; x < layer.width; ++x)
          input[y * layer.in_row() + x * layer.in + c] = *image++;
  }

  // ---- the gradients of the parameters

  void add_biases(const Pass& pass, Layers& to) const {
    const Floats& d = pass.d_logits;
    add_multiple(1.0f, d.data(), d.size(), to.back().b.row(0));
    for (size_t l = 0; l < network_.convolutions.size(); ++l) {
      const Convolution& layer = network_.convolutions[l];
      for (int64_t o = 0; o < layer.out_stride; o += LANES) {
        vec total{};
        for (int64_t y = 0; y < layer.rows; ++y)
          for (int64_t x = 0; x < layer.columns; ++x)
            total += vec_at(&pass.d_output[l][o + y * layer.grad_row() + x * layer.out_stride]);
        vec_at(&to[l].b.data[o]) += total;
      }
    }
  }

  // Adds the outer products of inputs and gradients of outputs, for layers from `first` on.
  void add_weights(size_t first, const Pass& inputs, const Pass& gradients, Layers& to) const {
    const Floats& d = gradients.d_logits;
    for_each_feature([&](int64_t f, int64_t place, int64_t) {
      add_multiple(inputs.features[place], d.data(), d.size(), to.back().w.row(f));
    });
    for (size_t l = first; l < network_.convolutions.size(); ++l) {
      const Convolution& layer = network_.convolutions[l];
      in_blocks<2>(0, layer.out_stride / LANES, [&]<int V>(int64_t v) {
        for (const Run& run : layer.runs)
          in_blocks<OUTER / V>(0, run.length, [&]<int N>(int64_t n) {
            add_outer<N, V>(layer, &inputs.input[l][run.offset + n],
                            &gradients.d_output[l][v * LANES], to[l].w.row(run.row + n) + v * LANES);
          });
      });
    }
  }

  const Network& network_;
  Pass values_, tangents_;
};

// ---- operators

// Logits (B, n, outputs) of images (B, n, C, H, W).
at::Tensor logits(const std::vector<at::Tensor>& params, const at::Tensor& x) {
  const Network network(params, x);
  const int64_t n = x.size(1);
  at::Tensor logits = at::empty({x.size(0), n, network.outputs()}, x.options());
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    Task task(network, 0);
    Layers net = network.layers;
    for (int64_t b = begin; b < end; ++b) {
      load(params, b, net);
      for (int64_t k = 0; k < n; ++k) {
        const float* result = task.logits(net, part<const float>(x, b) + k * network.pixels);
        std::copy_n(result, network.outputs(), part<float>(logits, b) + k * network.outputs());
      }
    }
  });
  return logits;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  define(library, "cnn_logits(Tensor[] params, Tensor x) -> Tensor", logits);
  define_network<Network, Point, Task>(library, "cnn");
}
