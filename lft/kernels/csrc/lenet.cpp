// The convolutions of LeNet-5 for float32 on the CPU; lft/kernels/lenet.py states the mathematics.
//
// The first layer correlates planes with 5x5 kernels, forward and back; neighbouring pixels fill
// the lanes. The second layer has few pixels and many channels, so its channels fill the lanes.
// Pooling usually passes only a quarter of its gradients, so each goes back separately.

#include <bit>

#include "operators.h"
#include "vectors.h"

namespace {

using namespace lft;

constexpr int K = 5;
// SUMS: vectors per block of sums; VECTORS: neighbouring vectors of one row in it; MAX_OUT: output
// planes per block at most; PIXELS: pixels per block with outputs in the lanes.
constexpr int SUMS = LARGE ? 24 : 12, VECTORS = LARGE ? 2 : 1, MAX_OUT = LARGE ? 8 : 6,
              PIXELS = LARGE ? 10 : 5;

inline ivec& ivec_at(int32_t* p) { return *reinterpret_cast<ivec*>(p); }

// ---- correlations

// Planes with rows of `stride` floats, and room for a vector that runs past the end of the last.
struct Planes {
  int64_t count, height, stride;
  Floats memory = Floats(count * height * stride + 64);

  float* row(int64_t plane, int64_t y) { return &memory[(plane * height + y) * stride]; }
  const float* row(int64_t plane, int64_t y) const {
    return &memory[(plane * height + y) * stride];
  }
};

// A layer's kernels in the order of use, and one bias per output.
struct Kernels {
  int64_t in, out;
  Matrix weights{in * K * K, out}, bias{1, out};  // weights: (in, 5, 5) x out

  // Takes a layer's weight (out, in, 5, 5), unchanged or transposed (outputs to inputs). Transposed
  // and flipped kernels map the gradient of the layer's output, with a margin of 4, to that of its
  // input.
  Kernels(const at::Tensor& weight, bool transposed, bool flipped = false)
      : in(weight.size(transposed ? 0 : 1)), out(weight.size(transposed ? 1 : 0)) {
    const float* w = weight.const_data_ptr<float>();
    for (int64_t o = 0; o < weight.size(0); ++o)
      for (int64_t c = 0; c < weight.size(1); ++c)
        for (int64_t tap = 0; tap < K * K; ++tap) {
          const int64_t at = flipped ? K * K - 1 - tap : tap;
          weights.row((transposed ? o : c) * K * K + at)[transposed ? c : o] = *w++;
        }
  }
};

// Computes OUT planes, ROWS rows and V vectors of the correlation, starting at (o, y, x).
template <int OUT, int ROWS, int V>
void block(const Kernels& kernels, const Planes& in, Planes& out, int64_t o, int64_t y, int64_t x) {
  Sums<OUT, ROWS * V> sums([&](int n, int) { return all(kernels.bias.data[o + n]); });
  const float* w = kernels.weights.row(0) + o;
  for (int64_t c = 0; c < kernels.in; ++c)
    for (int i = 0; i < K; ++i) {
      const float* from = in.row(c, y + i) + x;
      for (int j = 0; j < K; ++j, w += kernels.weights.stride)
        sums.add([&](int n) { return w[n]; },
                 [&](int k) { return vec_at(from + k / V * in.stride + j + k % V * LANES); });
    }
  sums.put([&](int n, int k, vec sum) {
    vec_at(out.row(o + n, y + k / V) + x + k % V * LANES) = sum;
  });
}

// out(o, y, x) = bias(o) + sum over c, i, j of kernel(o, c, i, j) in(c, y + i, x + j) for the first
// rows and columns; lanes beyond the last column hold garbage.
void correlate(const Kernels& kernels, const Planes& in, Planes& out, int64_t rows,
               int64_t columns) {
  in_blocks<MAX_OUT>(0, kernels.out, [&]<int OUT>(int64_t o) {
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
  });
}

// Computes PIXELS neighbouring pixels of the correlation, starting at (y, x), with V vectors of
// outputs starting at `lane`. Not inlined, so that the sums need not share registers with the
// surrounding code.
template <int V>
[[gnu::noinline]] void cells(const Kernels& kernels, const Planes& in, int64_t y, int64_t x,
                             int64_t lane, float* out) {
  const int64_t stride = kernels.weights.stride;
  Sums<PIXELS, V> sums([&](int, int v) { return vec_at(&kernels.bias.data[lane + v * LANES]); });
  const float* w = kernels.weights.row(0) + lane;
  for (int64_t c = 0; c < kernels.in; ++c)
    for (int i = 0; i < K; ++i, w += K * stride)
      sums.add_product(K, in.row(c, y + i) + x, [](int p) { return p; }, 1, w, stride);
  sums.put([&](int p, int v, vec sum) { vec_at(out + p * stride + lane + v * LANES) = sum; });
}

// The correlation with outputs in the lanes: out is (rows, columns, outputs), where columns are a
// multiple of PIXELS.
template <int V>
void correlate_cells(const Kernels& kernels, const Planes& in, float* out, int64_t rows,
                     int64_t columns) {
  const int64_t stride = kernels.weights.stride;
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < columns; x += PIXELS, out += PIXELS * stride)
      for (int64_t lane = 0; lane < stride; lane += V * LANES)
        cells<V>(kernels, in, y, x, lane, out);
}

// ---- pooling

inline vec larger(vec a, vec b) { return (b > a) | (b != b) ? b : a; }  // keeps NaN

// relu(max) of 2x2 pixels, lane by lane. Bits 0-3 of the code mark the largest of the four pixels;
// the code is 0 where ReLU blocks the gradient.
inline void pool(vec a, vec b, vec c, vec d, float* most, int32_t* code) {
  const vec m = larger(larger(a, b), larger(c, d));
  const ivec equal = ((a == m) & 1) | ((b == m) & 2) | ((c == m) & 4) | ((d == m) & 8);
  vec_at(most) = m < 0.0f ? vec{} : m;
  ivec_at(code) = m <= 0.0f ? ivec{} : equal;
}

// The share of a window's gradient that each of its largest pixels gets, by code.
constexpr float THIRD = 1 / 3.0f;
constexpr float SHARE[] = {0, 1, 1, .5, 1, .5, .5, THIRD, 1, .5, .5, THIRD, .5, THIRD, THIRD, .25};

// Pools two rows. Windows at odd columns are computed too, then dropped.
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

// Computes the gradient of two rows of pixels; that of a window's output is grad[stride * window].
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
constexpr int64_t FEATURES = OUT2 * WINDOWS2, CODES1 = OUT1 * POOLED1 * POOLED1,
                  CODES = CODES1 + FEATURES;

struct Shape {
  int64_t channels, side;
};

// Returns the index of a window's first pixel in the second layer.
int64_t corner(int64_t window, int64_t row) {
  return 2 * (window / POOLED2 * row + window % POOLED2);
}

// Calls copy(row, k) for every row of an image inside the padded planes; k is its offset in the
// image (C, S, S).
template <class Copy>
void for_each_row(const Shape& shape, Planes& planes, const Copy& copy) {
  const int64_t margin = (SIDE - shape.side) / 2;
  for (int64_t c = 0, k = 0; c < shape.channels; ++c)
    for (int64_t y = 0; y < shape.side; ++y, k += shape.side)
      copy(planes.row(c, y + margin) + margin, k);
}

// One image forward. The second layer's codes are ordered by window, then by channel.
struct Forward {
  const Shape& shape;
  const Kernels &first, &second;
  Planes input{shape.channels, SIDE, SIDE}, layer1{OUT1, SIDE1, SIDE},
      pooled1{OUT1, POOLED1, POOLED1};
  Matrix layer2{SIDE2 * SIDE2, OUT2};  // pixels x channels

  void operator()(const float* image, float* features, uint8_t* codes) {
    for_each_row(shape, input, [&](float* row, int64_t k) {
      std::copy_n(image + k, shape.side, row);
    });
    correlate(first, input, layer1, SIDE1, SIDE1);
    for (int64_t o = 0; o < OUT1; ++o)
      for (int64_t y = 0; y < POOLED1; ++y, codes += POOLED1)
        pool_rows<POOLED1>(layer1.row(o, 2 * y), layer1.row(o, 2 * y + 1), pooled1.row(o, y),
                           codes);
    correlate_cells<std::min<int>(2, CELL2 / LANES)>(second, pooled1, layer2.row(0), SIDE2,
                                                     SIDE2);
    for (int64_t window = 0; window < WINDOWS2; ++window, codes += OUT2)
      pool_window(window, features, codes);
  }

  void pool_window(int64_t window, float* features, uint8_t* codes) const {
    const float *upper = layer2.row(corner(window, SIDE2)), *lower = upper + SIDE2 * CELL2;
    float most[CELL2];
    int32_t code[CELL2];
    for (int64_t o = 0; o < CELL2; o += LANES)
      pool(vec_at(upper + o), vec_at(upper + CELL2 + o), vec_at(lower + o),
           vec_at(lower + CELL2 + o), most + o, code + o);
    for (int64_t o = 0; o < OUT2; ++o) features[o * WINDOWS2 + window] = most[o];
    std::copy_n(code, OUT2, codes);
  }
};

struct Backward {
  const Shape& shape;
  const Kernels &first, &second;
  Matrix d_pooled1{POOLED1 * POOLED1, OUT1};  // pixels x channels
  Planes d_layer1{OUT1, SIDE1 + 2 * MARGIN, SIDE1 + 2 * MARGIN},
      d_input{shape.channels, SIDE, SIDE};

  void operator()(const float* d_features, const uint8_t* codes, float* d_image) {
    if (std::all_of(d_features, d_features + FEATURES, [](float d) { return d == 0; })) {
      std::fill_n(d_image, shape.channels * shape.side * shape.side, 0.0f);
      return;
    }
    second_layer(d_features, codes + CODES1);
    for (int64_t o = 0; o < OUT1; ++o)
      for (int64_t y = 0; y < POOLED1; ++y, codes += POOLED1)
        unpool_rows<POOLED1>(d_pooled1.row(y * POOLED1) + o, CELL1, codes,
                             d_layer1.row(o, MARGIN + 2 * y) + MARGIN,
                             d_layer1.row(o, MARGIN + 2 * y + 1) + MARGIN);
    correlate(first, d_layer1, d_input, SIDE, SIDE);
    for_each_row(shape, d_input, [&](const float* row, int64_t k) {
      std::copy_n(row, shape.side, d_image + k);
    });
  }

  void second_layer(const float* d_features, const uint8_t* codes) {
    d_pooled1.clear();
    for (int64_t window = 0; window < WINDOWS2; ++window)
      for (int64_t o = 0; o < OUT2; ++o) {
        const float d = d_features[o * WINDOWS2 + window] * SHARE[*codes];
        for (unsigned code = *codes++; code; code &= code - 1) {
          const int pixel = std::countr_zero(code);
          const int64_t to = corner(window, POOLED1) + pixel / 2 * POOLED1 + pixel % 2;
          for (int i = 0; i < K; ++i)
            add_multiple(d, second.weights.row((o * K + i) * K), K * CELL1,
                         d_pooled1.row(to + i * POOLED1));
        }
      }
  }
};

// ---- operators

// weights: conv1 (6, C, 5, 5) and its bias, then conv2 (16, 6, 5, 5) and its bias.
Shape check_network(const std::vector<at::Tensor>& weights, int64_t side) {
  TORCH_CHECK(weights.size() == 4 && weights[0].dim() == 4 && (side == 28 || side == 32),
              "weight and bias of two layers and images of 28x28 or 32x32 are needed");
  const Shape shape{weights[0].size(1), side};
  check(weights[0], {OUT1, shape.channels, K, K}, "conv1.weight");
  check(weights[1], {OUT1}, "conv1.bias");
  check(weights[2], {OUT2, OUT1, K, K}, "conv2.weight");
  check(weights[3], {OUT2}, "conv2.bias");
  return shape;
}

// Features (n, 400) of images (n, C, S, S), and the codes of all pooling windows (n, CODES).
std::tuple<at::Tensor, at::Tensor> forward(const std::vector<at::Tensor>& weights,
                                           const at::Tensor& images) {
  TORCH_CHECK(images.dim() == 4, "images must be (n, C, S, S)");
  const Shape shape = check_network(weights, images.size(3));
  const int64_t n = images.size(0);
  check(images, {n, shape.channels, shape.side, shape.side}, "images");
  Kernels first(weights[0], false), second(weights[2], false);
  first.bias.load(weights[1].const_data_ptr<float>());
  second.bias.load(weights[3].const_data_ptr<float>());
  at::Tensor features = at::empty({n, FEATURES}, images.options());
  at::Tensor codes = at::empty({n, CODES}, images.options().dtype(at::kByte));
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    Forward run{shape, first, second};
    for (int64_t k = begin; k < end; ++k)
      run(part<const float>(images, k), part<float>(features, k), part<uint8_t>(codes, k));
  });
  return {features, codes};
}

// The gradient of <d_features, features> with respect to the images of side S.
at::Tensor backward(const std::vector<at::Tensor>& weights, const at::Tensor& codes,
                    const at::Tensor& d_features, int64_t side) {
  const Shape shape = check_network(weights, side);
  const int64_t n = codes.size(0);
  check(codes, {n, CODES}, "codes", at::kByte);
  check(d_features, {n, FEATURES}, "d_features");
  const Kernels first(weights[0], true, true), second(weights[2], true);
  at::Tensor d_images = at::empty({n, shape.channels, side, side}, d_features.options());
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    Backward run{shape, first, second};
    for (int64_t k = begin; k < end; ++k)
      run(part<const float>(d_features, k), part<const uint8_t>(codes, k),
          part<float>(d_images, k));
  });
  return d_images;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  define(library, "lenet_forward(Tensor[] weights, Tensor images) -> (Tensor, Tensor)", forward);
  define(library,
         "lenet_backward(Tensor[] weights, Tensor codes, Tensor d_features, int side) -> Tensor",
         backward);
}
