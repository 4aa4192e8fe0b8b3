// Batches of per-task fully connected ReLU networks for float32 on the CPU.
// lft/kernels/mlp.py states the mathematics.

#include "networks.h"

namespace {

using namespace lft;

// ---- products

// A view of a matrix or its transpose: element (i, k) is first[i * row + k * column].
struct Numbers {
  const float* first;
  int64_t rows, columns, row, column;

  Numbers transposed() const { return {first, columns, rows, column, row}; }
};
Numbers plain(const Matrix& a) { return {a.data.data(), a.rows, a.columns, a.stride, 1}; }

// Computes R rows from i on and V vectors from lane on of `to` = a b + start. The rows of `start`
// are `apart` floats apart; null adds nothing. Not inlined, because there are many instances.
template <int R, int V>
[[gnu::noinline]] void set_block(const Numbers& a, int64_t i, const Matrix& b, int64_t lane,
                                 const float* start, int64_t apart, Matrix& to) {
  Sums<R, V> sums([](int, int) { return vec{}; });
  const int64_t row = a.row;
  sums.add_product(a.columns, a.first + i * row, [&](int r) { return r * row; }, a.column,
                   b.row(0) + lane, b.stride);
  float* results = to.row(i) + lane;
  const float* from = start ? start + i * apart + lane : nullptr;
  sums.put([&](int r, int v, vec sum) {
    if (from) sum += vec_at(from + r * apart + v * LANES);
    vec_at(results + r * to.stride + v * LANES) = sum;
  });
}

// The most rows of sums that fit in the registers beside a row of b and a number of a.
constexpr int most_rows(int vectors) { return std::min((REGISTERS - 1) / vectors - 1, 8); }

// to = a b + start
void set_product(const Numbers& a, const Matrix& b, Matrix& to, const float* start = nullptr,
                 int64_t apart = 0) {
  in_blocks<5>(0, to.stride / LANES, [&]<int V>(int64_t v) {
    in_blocks<most_rows(V)>(0, a.rows, [&]<int R>(int64_t i) {
      set_block<R, V>(a, i, b, v * LANES, start, apart, to);
    });
  });
}
void add_product(const Numbers& a, const Matrix& b, Matrix& to) {
  set_product(a, b, to, to.row(0), to.stride);
}

// Where h <= 0 (and not NaN), d becomes 0; element by element.
void mask(const Matrix& h, Matrix& d) {
  for (int64_t k = 0; k < int64_t(d.data.size()); k += LANES) {
    vec& lanes = vec_at(&d.data[k]);
    lanes = vec_at(&h.data[k]) <= 0.0f ? vec{} : lanes;
  }
}

// ---- one task

const std::vector<int64_t> WHOLE{0};  // the order of a linear layer's taps

struct Network {
  Layers layers;
  int64_t n;

  // params: (B, in, out) and (B, 1, out) of each layer
  Network(const std::vector<at::Tensor>& params, const at::Tensor& x) {
    TORCH_CHECK(params.size() >= 2 && params.size() % 2 == 0 && x.dim() == 3 && x.size(0) > 0 &&
                    x.size(1) > 0,
                "weights and a bias of each layer and inputs (B, n, in) are needed");
    n = x.size(1);
    check(x, x.sizes(), "inputs");
    for (size_t k = 0; k < params.size(); k += 2)
      layers.push_back(linear_layer(params, k, x.size(0), k == 0 ? x.size(2) : outputs()));
  }

  int64_t outputs() const { return layers.back().out; }
  // One matrix (n, out) per layer, for its outputs on every example.
  std::vector<Matrix> values() const {
    std::vector<Matrix> result;
    for (const Layer& layer : layers) result.push_back({n, layer.out});
    return result;
  }
};

struct Point {
  const Network& network;
  Layers net = network.layers;
  Numbers x{nullptr, network.n, net[0].in, net[0].in, 1};
  std::vector<Matrix> h = network.values(), d = h;  // outputs of each layer, gradients before ReLU

  Numbers input(size_t l) const { return l > 0 ? plain(h[l - 1]) : x; }
};

// to = inputs w + b
void apply(const Layer& layer, const Numbers& inputs, Matrix& to) {
  set_product(inputs, layer.w, to, layer.b.row(0));
}

// A layer's gradient, from its inputs and the gradients d of its outputs.
void set_gradient(const Numbers& inputs, const Matrix& d, Layer& to) {
  set_product(inputs.transposed(), d, to.w);
  to.b.clear();
  for (int64_t i = 0; i < d.rows; ++i)
    for (int64_t j = 0; j < d.stride; ++j) to.b.data[j] += d.row(i)[j];
}

class Task {
 public:
  Task(const Network& network, int order) : last_(network.layers.size() - 1) {
    if (order == 2) r_h_ = r_d_ = network.values();
  }

  float gradient(Point& at, const Examples& examples, Layers& to) const {
    at.x.first = examples.x;
    for (size_t l = 0; l <= last_; ++l) {
      apply(at.net[l], at.input(l), at.h[l]);
      if (l < last_) mask(at.h[l], at.h[l]);
    }
    double total = 0.0;
    for (int64_t k = 0; k < examples.n; ++k)
      total += examples.gradient(k, at.h[last_].row(k), at.d[last_].row(k));
    for (size_t l = last_; l > 0; --l) {
      at.net[l].transpose(WHOLE);
      set_product(plain(at.d[l]), at.net[l].w_transposed, at.d[l - 1]);
      mask(at.h[l - 1], at.d[l - 1]);
    }
    for (size_t l = 0; l <= last_; ++l) set_gradient(at.input(l), at.d[l], to[l]);
    return total / examples.terms();
  }

  // The derivative of `gradient` along v, at a point where it was called.
  void hessian_product(const Point& at, const Examples& examples, Layers& v, Layers& to) {
    for (size_t l = 0; l <= last_; ++l) {
      apply(v[l], at.input(l), r_h_[l]);
      if (l > 0) add_product(plain(r_h_[l - 1]), at.net[l].w, r_h_[l]);
      if (l < last_) mask(at.h[l], r_h_[l]);
    }
    for (int64_t k = 0; k < examples.n; ++k)
      examples.tangent(at.h[last_].row(k), r_h_[last_].row(k), r_d_[last_].row(k));
    for (size_t l = last_; l > 0; --l) {
      v[l].transpose(WHOLE);
      set_product(plain(r_d_[l]), at.net[l].w_transposed, r_d_[l - 1]);
      add_product(plain(at.d[l]), v[l].w_transposed, r_d_[l - 1]);
      mask(at.h[l - 1], r_d_[l - 1]);
    }
    for (size_t l = 0; l <= last_; ++l) {
      set_gradient(at.input(l), r_d_[l], to[l]);
      if (l > 0) add_product(plain(r_h_[l - 1]).transposed(), at.d[l], to[l].w);
    }
  }

 private:
  size_t last_;
  std::vector<Matrix> r_h_, r_d_;  // the derivatives of h and d along v
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) { define_network<Network, Point, Task>(library, "mlp"); }
