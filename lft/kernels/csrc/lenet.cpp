// The convolutions of LeNet-5 for float32 on CPU; lft/kernels/lenet.py states the mathematics.
//
// One image at a time goes forward, or its gradient back, while activations stay in cache. The first
// layer is a correlation of planes with 5x5 kernels, forward and back; neighbouring pixels of a row
// lie in the lanes. The second layer has few pixels and many channels, so its channels lie in the
// lanes, and as pooling lets a quarter of its gradients through at most, each is taken back by itself.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <vector>

#include "common.h"

namespace {

using lft::in_blocks, lft::LANES, lft::padded, lft::vec, lft::vec_at;

// Errors name the kernel.
void check(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType type, const char* name) {
  lft::check(tensor, shape, type, "fused LeNet", name);
}

constexpr int K = 5;
// Vectors of a block of sums, of them side by side, output planes of a block at most, and pixels of
// a block with outputs in the lanes.
constexpr bool LARGE = lft::REGISTERS == 32;
constexpr int SUMS = LARGE ? 24 : 12, VECTORS = LARGE ? 2 : 1, MAX_OUT = LARGE ? 8 : 6,
              PIXELS = LARGE ? 10 : 5;

typedef int32_t ivec
    __attribute__((vector_size(LANES * sizeof(int32_t)), may_alias, aligned(4)));

inline ivec& ivec_at(int32_t* p) { return *reinterpret_cast<ivec*>(p); }

// Planes of rows of `stride` floats, with room for a vector that begins in the last row.
struct Planes {
  int64_t count, height, stride;
  std::vector<float> memory;

  Planes(int64_t count, int64_t height, int64_t stride)
      : count(count), height(height), stride(stride), memory(count * height * stride + 64) {}
  float* row(int64_t plane, int64_t y) { return &memory[(plane * height + y) * stride]; }
  const float* row(int64_t plane, int64_t y) const {
    return &memory[(plane * height + y) * stride];
  }
};

// Kernels in the order of use, (in, 5, 5, out), and a bias for each output; outputs are filled up
// with zeros to whole vectors.
struct Kernels {
  int64_t in, out, stride;
  std::vector<float> weights, bias;

  Kernels(int64_t in, int64_t out)
      : in(in), out(out), stride(padded(out)), weights(in * K * K * stride), bias(stride) {}
  float& at(int64_t c, int64_t i, int64_t j, int64_t o) {
    return weights[((c * K + i) * K + j) * stride + o];
  }

  // From a layer's weight (out, in, 5, 5) and bias.
  static Kernels of(const at::Tensor& weight, const at::Tensor& bias) {
    Kernels result(weight.size(1), weight.size(0));
    for_each(weight, [&](int64_t o, int64_t c, int64_t i, int64_t j, float w) {
      result.at(c, i, j, o) = w;
    });
    std::copy_n(bias.const_data_ptr<float>(), result.out, result.bias.begin());
    return result;
  }

  // From outputs to inputs.
  static Kernels transposed(const at::Tensor& weight) {
    Kernels result(weight.size(0), weight.size(1));
    for_each(weight, [&](int64_t o, int64_t c, int64_t i, int64_t j, float w) {
      result.at(o, i, j, c) = w;
    });
    return result;
  }

  // Those that correlate a layer's output, with a margin of 4, to the gradient of its input.
  static Kernels flipped(const at::Tensor& weight) {
    Kernels result(weight.size(0), weight.size(1));
    for_each(weight, [&](int64_t o, int64_t c, int64_t i, int64_t j, float w) {
      result.at(o, K - 1 - i, K - 1 - j, c) = w;
    });
    return result;
  }

 private:
  template <class F>
  static void for_each(const at::Tensor& weight, const F& f) {
    const float* w = weight.const_data_ptr<float>();
    for (int64_t o = 0; o < weight.size(0); ++o)
      for (int64_t c = 0; c < weight.size(1); ++c)
        for (int64_t i = 0; i < K; ++i)
          for (int64_t j = 0; j < K; ++j) f(o, c, i, j, *w++);
  }
};

// OUT planes, ROWS rows and V vectors of the correlation, from (o, y, x) on.
template <int OUT, int ROWS, int V>
void block(const Kernels& kernels, const Planes& in, Planes& out, int64_t o, int64_t y, int64_t x) {
  vec sum[OUT][ROWS][V];
  for (int n = 0; n < OUT; ++n)
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < V; ++v) sum[n][r][v] = kernels.bias[o + n] - vec{};
  const float* w = &kernels.weights[o];
  for (int64_t c = 0; c < kernels.in; ++c)
    for (int i = 0; i < K; ++i) {
      const float* from = in.row(c, y + i) + x;
      for (int j = 0; j < K; ++j, w += kernels.stride) {
        vec pixels[ROWS][V];
        for (int r = 0; r < ROWS; ++r)
          for (int v = 0; v < V; ++v)
            pixels[r][v] = vec_at(from + r * in.stride + j + v * LANES);
        for (int n = 0; n < OUT; ++n)  // one weight at a time, so that all sums stay in registers
          for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < V; ++v) sum[n][r][v] += w[n] * pixels[r][v];
      }
    }
  for (int n = 0; n < OUT; ++n)
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < V; ++v) vec_at(out.row(o + n, y + r) + x + v * LANES) = sum[n][r][v];
}

// out(o, y, x) = bias(o) + sum over c, i, j of kernel(o, c, i, j) in(c, y + i, x + j) for the first
// rows and columns; lanes beyond the last column hold anything.
void correlate(const Kernels& kernels, const Planes& in, Planes& out, int64_t rows,
               int64_t columns) {
  const auto planes = [&]<int OUT>(int64_t o) {
    int64_t x = 0;
    const auto vectors = [&]<int V>() {
      constexpr int ROWS = std::clamp(SUMS / (OUT * V), 1, 8);
      for (; x + (V - 1) * LANES < columns; x += V * LANES) {
        int64_t y = 0;
        for (; y + ROWS <= rows; y += ROWS) block<OUT, ROWS, V>(kernels, in, out, o, y, x);
        for (; y < rows; ++y) block<OUT, 1, V>(kernels, in, out, o, y, x);
      }
    };
    vectors.template operator()<VECTORS>();
    vectors.template operator()<1>();
  };
  in_blocks<MAX_OUT>(0, kernels.out, planes);
}

// PIXELS neighbouring pixels of the correlation, from (y, x) on, with V vectors of outputs. Inlined
// it would share the registers of its sums with what surrounds it.
template <int V>
[[gnu::noinline]] void cells(const Kernels& kernels, const Planes& in, int64_t y, int64_t x,
                             const float* w, const float* bias, float* out) {
  vec sum[PIXELS][V];
  for (int p = 0; p < PIXELS; ++p)
    for (int v = 0; v < V; ++v) sum[p][v] = vec_at(bias + v * LANES);
  for (int64_t c = 0; c < kernels.in; ++c)
    for (int i = 0; i < K; ++i) {
      const float* from = in.row(c, y + i) + x;
      for (int j = 0; j < K; ++j, w += kernels.stride) {
        vec weights[V];
        for (int v = 0; v < V; ++v) weights[v] = vec_at(w + v * LANES);
        for (int p = 0; p < PIXELS; ++p)
          for (int v = 0; v < V; ++v) sum[p][v] += from[j + p] * weights[v];
      }
    }
  for (int p = 0; p < PIXELS; ++p)
    for (int v = 0; v < V; ++v) vec_at(out + p * kernels.stride + v * LANES) = sum[p][v];
}

// The correlation with outputs in the lanes: out is (rows, columns, kernels.stride), where columns
// are a multiple of PIXELS.
template <int V>
void correlate_cells(const Kernels& kernels, const Planes& in, float* out, int64_t rows,
                     int64_t columns) {
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < columns; x += PIXELS, out += PIXELS * kernels.stride)
      for (int64_t o = 0; o < kernels.stride; o += V * LANES)
        cells<V>(kernels, in, y, x, &kernels.weights[o], &kernels.bias[o], out + o);
}

// Adds d times a kernel to the cells that it was applied to: K rows of so many floats, whose
// beginnings lie `stride` apart in `to`.
template <int ROW>
void add_kernel(float d, const float* kernel, float* to, int64_t stride) {
  for (int i = 0; i < K; ++i, kernel += ROW, to += stride)
    for (int k = 0; k < ROW; k += LANES) vec_at(to + k) += d * vec_at(kernel + k);
}

// ---- pooling

inline vec larger(vec a, vec b) { return (b > a) | (b != b) ? b : a; }  // NaN stays

// relu(max) of 2x2 pixels, lane by lane. A code tells which of the four (bits 0-3) are the largest,
// 0 where ReLU lets no gradient through.
inline void pool(vec a, vec b, vec c, vec d, float* most, int32_t* code) {
  const vec m = larger(larger(a, b), larger(c, d));
  const ivec equal = ((a == m) & 1) | ((b == m) & 2) | ((c == m) & 4) | ((d == m) & 8);
  vec_at(most) = m < 0.0f ? vec{} : m;
  ivec_at(code) = m <= 0.0f ? ivec{} : equal;
}

// The share of a window's gradient for each of its largest pixels, by code.
constexpr float THIRD = 1 / 3.0f;
constexpr float SHARE[] = {0, 1, 1, .5, 1, .5, .5, THIRD, 1, .5, .5, THIRD, .5, THIRD, THIRD, .25};

// The windows of two rows; those at odd columns are computed and left out.
template <int COLUMNS>
void pool_rows(const float* upper, const float* lower, float* out, uint8_t* codes) {
  float most[padded(2 * COLUMNS)];
  int32_t code[padded(2 * COLUMNS)];
  for (int x = 0; x < 2 * COLUMNS; x += LANES)
    pool(vec_at(upper + x), vec_at(upper + x + 1), vec_at(lower + x), vec_at(lower + x + 1),
         most + x, code + x);
  for (int x = 0; x < COLUMNS; ++x) out[x] = most[2 * x];
  for (int x = 0; x < COLUMNS; ++x) codes[x] = code[2 * x];
}

// The gradient of the pixels; that of a window's output is grad[stride * window].
template <int COLUMNS>
void unpool_rows(const float* grad, int64_t stride, const uint8_t* codes, float* upper,
                 float* lower) {
  float share[padded(2 * COLUMNS)];
  int32_t code[padded(2 * COLUMNS)] = {};  // zeros are written beyond the last column
  for (int x = 0; x < COLUMNS; ++x)
    share[2 * x] = share[2 * x + 1] = grad[x * stride] * SHARE[codes[x]];
  for (int x = 0; x < COLUMNS; ++x) code[2 * x] = codes[x], code[2 * x + 1] = codes[x] >> 1;
  for (int x = 0; x < 2 * COLUMNS; x += LANES) {
    const ivec here = ivec_at(code + x);
    vec_at(upper + x) = (here & 1) != 0 ? vec_at(share + x) : vec{};
    vec_at(lower + x) = (here & 4) != 0 ? vec_at(share + x) : vec{};
  }
}

// ---- the two layers

constexpr int64_t OUT1 = 6, OUT2 = 16, CELL1 = padded(OUT1), CELL2 = padded(OUT2);
constexpr int64_t SIDE = 32, MARGIN = K - 1;  // side of the padded images
constexpr int64_t SIDE1 = SIDE - MARGIN, POOLED1 = SIDE1 / 2;
constexpr int64_t SIDE2 = POOLED1 - MARGIN, POOLED2 = SIDE2 / 2, WINDOWS2 = POOLED2 * POOLED2;
constexpr int64_t FEATURES = OUT2 * WINDOWS2, CODES1 = OUT1 * POOLED1 * POOLED1;

struct Shape {
  int64_t channels, side;
  int64_t pixels() const { return channels * side * side; }
  int64_t padding() const { return (SIDE - side) / 2; }
};

// Pixels with channels in the lanes.
struct alignas(LANES * sizeof(float)) Cell1 {
  float channels[CELL1];
};
struct alignas(LANES * sizeof(float)) Cell2 {
  float channels[CELL2];
};

// The first pixel of a window of the second layer is at twice its row and column.
struct Corner {
  int64_t y, x;
  explicit Corner(int64_t window) : y(2 * (window / POOLED2)), x(2 * (window % POOLED2)) {}
};

// Codes of the second layer are ordered by window, then by channel.
class Forward {
 public:
  Forward(const Shape& shape, const Kernels& first, const Kernels& second)
      : shape_(shape),
        first_(first),
        second_(second),
        image_(shape.channels, SIDE, SIDE),
        layer1_(OUT1, SIDE1, SIDE),
        pooled1_(OUT1, POOLED1, POOLED1),
        layer2_(SIDE2 * SIDE2) {}

  void operator()(const float* image, float* features, uint8_t* codes) {
    const int64_t padding = shape_.padding();
    for (int64_t c = 0; c < shape_.channels; ++c)
      for (int64_t y = 0; y < shape_.side; ++y, image += shape_.side)
        std::memcpy(image_.row(c, y + padding) + padding, image, shape_.side * sizeof(float));
    correlate(first_, image_, layer1_, SIDE1, SIDE1);
    for (int64_t o = 0; o < OUT1; ++o)
      for (int64_t y = 0; y < POOLED1; ++y, codes += POOLED1)
        pool_rows<POOLED1>(layer1_.row(o, 2 * y), layer1_.row(o, 2 * y + 1), pooled1_.row(o, y),
                           codes);
    correlate_cells<std::min<int>(2, CELL2 / LANES)>(second_, pooled1_, layer2_[0].channels, SIDE2,
                                                     SIDE2);
    for (int64_t window = 0; window < WINDOWS2; ++window, codes += OUT2)
      pool_window(window, features, codes);
  }

 private:
  void pool_window(int64_t window, float* features, uint8_t* codes) const {
    const Corner corner(window);
    const Cell2 *upper = &layer2_[corner.y * SIDE2 + corner.x], *lower = upper + SIDE2;
    float most[CELL2];
    int32_t code[CELL2];
    for (int64_t o = 0; o < CELL2; o += LANES)
      pool(vec_at(upper[0].channels + o), vec_at(upper[1].channels + o),
           vec_at(lower[0].channels + o), vec_at(lower[1].channels + o), most + o, code + o);
    for (int64_t o = 0; o < OUT2; ++o) features[o * WINDOWS2 + window] = most[o];
    std::copy_n(code, OUT2, codes);
  }

  const Shape& shape_;
  const Kernels &first_, &second_;
  Planes image_, layer1_, pooled1_;
  std::vector<Cell2> layer2_;
};

class Backward {
 public:
  Backward(const Shape& shape, const Kernels& first, const Kernels& second)
      : shape_(shape),
        first_(first),
        second_(second),
        d_pooled1_(POOLED1 * POOLED1),
        d_layer1_(OUT1, SIDE1 + 2 * MARGIN, SIDE1 + 2 * MARGIN),
        d_image_(shape.channels, SIDE, SIDE) {}

  void operator()(const float* d_features, const uint8_t* codes, float* d_image) {
    if (std::all_of(d_features, d_features + FEATURES, [](float d) { return d == 0; })) {
      std::fill_n(d_image, shape_.pixels(), 0.0f);
      return;
    }
    second_layer(d_features, codes + CODES1);
    for (int64_t o = 0; o < OUT1; ++o)
      for (int64_t y = 0; y < POOLED1; ++y, codes += POOLED1)
        unpool_rows<POOLED1>(d_pooled1_[y * POOLED1].channels + o, CELL1, codes,
                             d_layer1_.row(o, MARGIN + 2 * y) + MARGIN,
                             d_layer1_.row(o, MARGIN + 2 * y + 1) + MARGIN);
    correlate(first_, d_layer1_, d_image_, SIDE, SIDE);
    const int64_t padding = shape_.padding();
    for (int64_t c = 0; c < shape_.channels; ++c)
      for (int64_t y = 0; y < shape_.side; ++y, d_image += shape_.side)
        std::memcpy(d_image, d_image_.row(c, y + padding) + padding, shape_.side * sizeof(float));
  }

 private:
  void second_layer(const float* d_features, const uint8_t* codes) {
    std::fill(d_pooled1_.begin(), d_pooled1_.end(), Cell1{});
    for (int64_t window = 0; window < WINDOWS2; ++window)
      for (int64_t o = 0; o < OUT2; ++o) {
        const Corner corner(window);
        const float d = d_features[o * WINDOWS2 + window] * SHARE[*codes];
        for (unsigned code = *codes++; code; code &= code - 1) {
          const int pixel = std::countr_zero(code);
          Cell1& to = d_pooled1_[(corner.y + pixel / 2) * POOLED1 + corner.x + pixel % 2];
          add_kernel<K * CELL1>(d, &second_.weights[o * K * K * CELL1], to.channels,
                                POOLED1 * CELL1);
        }
      }
  }

  const Shape& shape_;
  const Kernels &first_, &second_;
  std::vector<Cell1> d_pooled1_;
  Planes d_layer1_, d_image_;
};

// ---- operators

// weights: conv1 (6, C, 5, 5) and its bias, conv2 (16, 6, 5, 5) and its bias.
Shape check_network(const std::vector<at::Tensor>& weights, int64_t side) {
  TORCH_CHECK(weights.size() == 4 && weights[0].dim() == 4 && (side == 28 || side == 32),
              "fused LeNet: weight and bias of two layers and images of 28x28 or 32x32 are needed");
  const Shape shape{weights[0].size(1), side};
  check(weights[0], {OUT1, shape.channels, K, K}, at::kFloat, "conv1.weight");
  check(weights[1], {OUT1}, at::kFloat, "conv1.bias");
  check(weights[2], {OUT2, OUT1, K, K}, at::kFloat, "conv2.weight");
  check(weights[3], {OUT2}, at::kFloat, "conv2.bias");
  return shape;
}

// Features (n, 400) of images (n, C, S, S), and the codes of all poolings (n, CODES1 + 400).
std::tuple<at::Tensor, at::Tensor> forward(const std::vector<at::Tensor>& weights,
                                           const at::Tensor& images) {
  TORCH_CHECK(images.dim() == 4, "fused LeNet: images must be (n, C, S, S)");
  const Shape shape = check_network(weights, images.size(3));
  const int64_t n = images.size(0);
  check(images, {n, shape.channels, shape.side, shape.side}, at::kFloat, "images");
  const Kernels first = Kernels::of(weights[0], weights[1]);
  const Kernels second = Kernels::of(weights[2], weights[3]);
  at::Tensor features = at::empty({n, FEATURES}, images.options());
  at::Tensor codes = at::empty({n, CODES1 + FEATURES}, images.options().dtype(at::kByte));
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    Forward run(shape, first, second);
    for (int64_t k = begin; k < end; ++k)
      run(images.const_data_ptr<float>() + k * shape.pixels(),
          features.mutable_data_ptr<float>() + k * FEATURES,
          codes.mutable_data_ptr<uint8_t>() + k * (CODES1 + FEATURES));
  });
  return {features, codes};
}

// Gradient of <d_features, features> in the images of side S.
at::Tensor backward(const std::vector<at::Tensor>& weights, const at::Tensor& codes,
                    const at::Tensor& d_features, int64_t side) {
  const Shape shape = check_network(weights, side);
  const int64_t n = codes.size(0);
  check(codes, {n, CODES1 + FEATURES}, at::kByte, "codes");
  check(d_features, {n, FEATURES}, at::kFloat, "d_features");
  const Kernels first = Kernels::flipped(weights[0]);
  const Kernels second = Kernels::transposed(weights[2]);
  at::Tensor d_images = at::empty({n, shape.channels, side, side}, d_features.options());
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    Backward run(shape, first, second);
    for (int64_t k = begin; k < end; ++k)
      run(d_features.const_data_ptr<float>() + k * FEATURES,
          codes.const_data_ptr<uint8_t>() + k * (CODES1 + FEATURES),
          d_images.mutable_data_ptr<float>() + k * shape.pixels());
  });
  return d_images;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  library.def("lenet_forward(Tensor[] weights, Tensor images) -> (Tensor, Tensor)");
  library.def(
      "lenet_backward(Tensor[] weights, Tensor codes, Tensor d_features, int side) -> Tensor");
}

TORCH_LIBRARY_IMPL(lft, CPU, library) {
  library.impl("lenet_forward", forward);
  library.impl("lenet_backward", backward);
}

// Not differentiable: lenet_backward is the derivative, called by hand.
TORCH_LIBRARY_IMPL(lft, Autograd, library) {
  library.impl("lenet_forward", torch::CppFunction::makeFallthrough());
  library.impl("lenet_backward", torch::CppFunction::makeFallthrough());
}
