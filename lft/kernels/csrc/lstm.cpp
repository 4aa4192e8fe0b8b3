// The coordinate-wise LSTM for float32 on the CPU; lft/kernels/lstm.py states the mathematics.
//
// Coordinates fill the vector lanes, TILE of them at a time. One step of one layer reads a panel of
// in + H + 1 lines, [x; h; 1]. The gates are then one matrix product W panel, where the last column
// of W is the bias, and the gradient of W is one product of the gates' gradients with the panel.

#include <cfloat>
#include <cmath>

#include "operators.h"
#include "vectors.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

using namespace lft;

// Sizes of register blocks; the gates and panels of GROUP steps fit in the first-level cache.
constexpr int VECTORS = LARGE ? 4 : 2, PANEL_ROWS = 5, OUTER_ROWS = 4,
              OUTER_COLUMNS = LARGE ? 7 : 3, GROUP = LARGE ? 3 : 7;
constexpr int TILE = LANES * VECTORS;
// Weight gradients are sums over at most MAX_CHUNKS chunks of at least MIN_CHUNK tiles. Both
// numbers are fixed, so that results do not depend on the number of threads.
constexpr int64_t MAX_CHUNKS = 64, MIN_CHUNK = 256 / TILE;
constexpr int64_t STEP_GRAIN = 8;  // fewest tiles per thread in one step

// ---- functions of vectors

inline float sum_of_lanes(float* x) {  // overwrites x
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) x[k] += x[k + half];
  return x[0];
}

// Evaluates a polynomial; coefficients go from the highest power of x down.
template <class... Rest>
inline vec polynomial(vec x, float first, Rest... rest) {
  vec sum = all(first);
  ((sum = sum * x + rest), ...);
  return sum;
}

// Functions that compilers do not generate from plain expressions. at_least and at_most keep NaN,
// because min and max return their second operand if either is NaN. exp_minus(x) is e^-x, by
// minimax polynomials with a relative error of 8e-8.
#if defined(__AVX512F__)
inline vec at_least(vec x, float low) { return _mm512_max_ps(all(low), x); }
inline vec at_most(vec x, float high) { return _mm512_min_ps(all(high), x); }
inline vec reciprocal(vec x) {
  const vec r = _mm512_rcp14_ps(x);
  return r + r * (1.0f - x * r);  // Newton: 14 -> 24 bits
}
inline vec exp_minus(vec x) {
  const vec y = at_most(x * -1.44269504f, 126.0f);
  const vec r = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // y - floor(y)
  return _mm512_scalef_ps(polynomial(r, 1.87757668e-3f, 8.98934009e-3f, 5.58263181e-2f,
                                     0.240153617f, 0.693153073f, 0.999999925f), y);
}
#else
inline vec at_least(vec x, float low) { return all(low) > x ? all(low) : x; }
inline vec at_most(vec x, float high) { return all(high) < x ? all(high) : x; }
inline vec reciprocal(vec x) { return 1.0f / x; }
inline vec exp_minus(vec x) {
  const vec y = at_most(at_least(x, -87.0f), 87.0f) * -1.44269504f;
  const vec shifted = y + 12582912.0f;  // 1.5 * 2^23 leaves the nearest integer in the low bits
  const vec r = y - (shifted - 12582912.0f);
  const vec fraction = polynomial(r, 1.32764720e-3f, 9.67554133e-3f, 5.55071327e-2f, 0.240221197f,
                                  0.693146967f, 1.00000007f);
  return (vec)((ivec)fraction + ((ivec)shifted << 23));
}
#endif

// 1 / (1 + exp(-x))
inline vec sigmoid(vec x) { return reciprocal(1.0f + exp_minus(x)); }

// Eigen's rational approximation, relative error 3e-7.
inline vec tanh(vec x) {
  x = at_most(at_least(x, -7.9f), 7.9f);
  const vec s = x * x;
  const vec p = polynomial(s, 1.394553628e-8f, 2.10273356e-5f, 3.520756727e-3f, 0.13402161f, 1.0f);
  const vec q = polynomial(s, 8.015776984e-7f, 3.326951409e-4f, 2.597254514e-2f, 0.467354834f, 1.0f);
  return x * p * reciprocal(q);
}

// Natural logarithm of positive normal numbers (Cephes logf); infinity stays infinite.
inline vec log(vec x) {
  const ivec bits = (ivec)x;
  const ivec exponent = (bits - 0x3f3504f3) >> 23;  // x = 2^exponent m, m in [sqrt(1/2), sqrt(2))
  const vec m = (vec)(bits - (exponent << 23)) - 1.0f;
  const vec p = polynomial(m, 7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f,
                           -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                           2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f);
  const vec fraction = m + m * m * (p * m - 0.5f);
  return x > FLT_MAX ? x : fraction + __builtin_convertvector(exponent, vec) * 0.693147181f;
}

// ---- weights

struct Layer {
  int64_t in, hidden, rows;
  Floats packed;  // [unit][row of the panel][gate i, f, g, o]

  Layer(const at::Tensor& w_ih, const at::Tensor& w_hh, const at::Tensor& bias)
      : in(w_ih.size(1)), hidden(w_hh.size(1)), rows(in + hidden + 1), packed(4 * hidden * rows) {
    const float* from[] = {w_ih.const_data_ptr<float>(), w_hh.const_data_ptr<float>(),
                           bias.const_data_ptr<float>()};
    for_each_weight([&](int tensor, int64_t k, int64_t row, int64_t unit, int gate) {
      packed[(unit * rows + row) * 4 + gate] = from[tensor][k];
    });
  }

  // Calls f(tensor, k, row, unit, gate) for every weight: element k of w_ih (0), w_hh (1) or b (2).
  template <class F>
  void for_each_weight(const F& f) const {
    for (int gate = 0; gate < 4; ++gate)
      for (int64_t unit = 0; unit < hidden; ++unit) {
        const int64_t r = gate * hidden + unit;
        for (int64_t c = 0; c < in; ++c) f(0, r * in + c, c, unit, gate);
        for (int64_t c = 0; c < hidden; ++c) f(1, r * hidden + c, in + c, unit, gate);
        f(2, r, in + hidden, unit, gate);
      }
  }
};

struct Network {
  std::vector<Layer> layers;
  int64_t hidden, n_weights = hidden + 1;
  int64_t frame_floats = 0;  // floats in the frames of all layers, for one step
  const float* out_w;
  float out_b, scale, inverse_p, threshold, inverse_threshold;

  // weights: w_ih, w_hh, b of each layer, then out.w, out.b
  Network(const std::vector<at::Tensor>& weights, double p, double scale)
      : hidden(weights[1].size(1)),
        out_w(weights[weights.size() - 2].const_data_ptr<float>()),
        out_b(*weights.back().const_data_ptr<float>()),
        scale(scale),
        inverse_p(1 / p),
        threshold(std::exp(-p)),
        inverse_threshold(std::exp(p)) {
    for (size_t k = 0; k + 2 < weights.size(); k += 3) {
      const Layer& layer = layers.emplace_back(weights[k], weights[k + 1], weights[k + 2]);
      n_weights += layer.packed.size();
      frame_floats += (layer.rows + 6 * hidden) * TILE;
    }
  }

  // Andrychowicz et al. (2016), appendix A.
  void preprocess(const float* gradient, float* panel) const {
    for (int v = 0; v < TILE; v += LANES) {
      const vec g = vec_at(gradient + v), size = g < 0.0f ? -g : g;
      const auto large = size >= threshold;
      vec_at(panel + v) = large ? log(size) * inverse_p : all(-1.0f);
      vec_at(panel + TILE + v) =
          large ? (g < 0.0f ? all(-1.0f) : all(1.0f)) : g * inverse_threshold;
    }
  }

  // scale (w_out . h + b_out)
  void output(const float* h, float* update) const {
    for (int v = 0; v < TILE; v += LANES) {
      vec sum = all(out_b);
      for (int64_t j = 0; j < hidden; ++j) sum += out_w[j] * vec_at(h + j * TILE + v);
      vec_at(update + v) = scale * sum;
    }
  }
};

// ---- a tile's activations

// The numbers that one layer reads and computes in one step.
struct Frame {
  float* panel;   // (in + H + 1, TILE): input, h before the step, ones
  float* cell;    // (H, TILE): c before the step
  float* gates;   // (H, 4, TILE): activations of i, f, g, o; backward puts their gradients here
  float* tanh_c;  // (H, TILE): tanh of c after the step
};

// The gates of the unit and lanes at a place in (H, TILE); consecutive gates are TILE floats apart.
float* gates_at(const Frame& frame, int64_t place) {
  return frame.gates + 4 * (place / TILE) * TILE + place % TILE;
}

// Frames for a number of steps, step by step and layer by layer. Each thread keeps their memory
// between calls, because mapping fresh pages costs more than a small step.
std::vector<Frame> frames_of(const Network& net, int64_t steps) {
  thread_local Floats memory;
  if (const int64_t floats = steps * net.frame_floats; floats > int64_t(memory.size()))
    memory = Floats(floats);
  float* next = memory.data();
  const auto take = [&](int64_t lines) { return std::exchange(next, next + lines * TILE); };
  std::vector<Frame> frames;
  for (int64_t step = 0; step < steps; ++step)
    for (const Layer& layer : net.layers) {
      const int64_t h = layer.hidden;
      frames.push_back({take(layer.rows), take(h), take(4 * h), take(h)});
      std::fill_n(frames.back().panel + (layer.rows - 1) * TILE, TILE, 1.0f);
    }
  return frames;
}

// The part of rows of n floats that belongs to one tile; lanes beyond the last coordinate are zero.
struct Window {
  int64_t n, first, count;
  Window(int64_t n, int64_t tile)
      : n(n), first(tile * TILE), count(std::min<int64_t>(TILE, n - first)) {}

  // Whole tiles are copied in vectors: vector loads stall on memory just written in smaller parts.
  void load(const float* row, float* tile) const {
    if (count == TILE) {
      for (int v = 0; v < TILE; v += LANES) vec_at(tile + v) = vec_at(row + first + v);
    } else {
      std::fill_n(tile, TILE, 0.0f);
      std::copy_n(row + first, count, tile);
    }
  }
  void store(const float* tile, float* row) const {
    if (count == TILE)
      for (int v = 0; v < TILE; v += LANES) vec_at(row + first + v) = vec_at(tile + v);
    else
      std::copy_n(tile, count, row + first);
  }
  // state: (2, layers, H, n). It has too many rows for the hardware prefetcher to track.
  void load_state(const float* state, const Network& net, const Frame* frames) const {
    for_each_row(net, frames, [&](int64_t k, float* tile) {
      for (int v = 0; v < TILE; v += 16) __builtin_prefetch(state + k * n + first + 2 * TILE + v);
      load(state + k * n, tile);
    });
  }
  void store_state(float* state, const Network& net, const Frame* frames) const {
    for_each_row(net, frames, [&](int64_t k, const float* tile) { store(tile, state + k * n); });
  }

 private:
  // Calls f(k, line) for every row k of a state and its line in the frames.
  template <class F>
  static void for_each_row(const Network& net, const Frame* frames, const F& f) {
    const int64_t layers = net.layers.size(), h = net.hidden;
    for (int64_t l = 0; l < layers; ++l)
      for (int64_t j = 0; j < h; ++j) {
        f(l * h + j, frames[l].panel + (net.layers[l].in + j) * TILE);
        f((layers + l) * h + j, frames[l].cell + j * TILE);
      }
  }
};

// ---- forward

// out (hidden, 4, TILE) = W panel
void multiply(const Layer& layer, const float* panel, float* out) {
  const float* w = layer.packed.data();
  const int64_t inputs = layer.rows - 1;
  for (int64_t j = 0; j < layer.hidden; ++j, w += 4 * layer.rows, out += 4 * TILE) {
    const float* bias = w + 4 * inputs;
    Sums<4, VECTORS> sums([&](int k, int) { return all(bias[k]); });
    sums.add_product(inputs, w, [](int k) { return k; }, 4, panel, TILE);
    sums.put([&](int k, int v, vec sum) { vec_at(out + k * TILE + v * LANES) = sum; });
  }
}

// One layer, one step. Writes h to h_next and, as input of the layer above, to h_above (may be
// null). Two loops let the processor overlap the long dependency chains of neighbouring lanes.
void forward(const Layer& layer, const Frame& now, float* h_next, float* h_above, float* c_next) {
  multiply(layer, now.panel, now.gates);
  for (int64_t place = 0; place < layer.hidden * TILE; place += LANES) {
    float* gates = gates_at(now, place);
    const vec i = sigmoid(vec_at(gates)), f = sigmoid(vec_at(gates + TILE)),
              g = tanh(vec_at(gates + 2 * TILE)), o = sigmoid(vec_at(gates + 3 * TILE));
    vec_at(gates) = i;
    vec_at(gates + TILE) = f;
    vec_at(gates + 2 * TILE) = g;
    vec_at(gates + 3 * TILE) = o;
    vec_at(c_next + place) = f * vec_at(now.cell + place) + i * g;
  }
  for (int64_t place = 0; place < layer.hidden * TILE; place += LANES) {
    const vec tanh_c = tanh(vec_at(c_next + place)), o = vec_at(gates_at(now, place) + 3 * TILE);
    vec_at(now.tanh_c + place) = tanh_c;
    vec_at(h_next + place) = o * tanh_c;
    if (h_above) vec_at(h_above + place) = o * tanh_c;
  }
}

// All layers, one step: reads the frames of this step, and writes h and c to those of the next.
void forward(const Network& net, const float* gradient, const Frame* now, const Frame* next) {
  net.preprocess(gradient, now[0].panel);
  for (size_t l = 0; l < net.layers.size(); ++l) {
    const Layer& layer = net.layers[l];
    float* h_above = l + 1 < net.layers.size() ? now[l + 1].panel : nullptr;
    forward(layer, now[l], next[l].panel + layer.in * TILE, h_above, next[l].cell);
  }
}

const float* top_h(const Network& net, const Frame* frames) {
  return frames[net.layers.size() - 1].panel + net.layers.back().in * TILE;
}

// ---- backward

// Gradients of one step. On entry, d_h and d_c are those of h and c after the step. On return, the
// gates hold their gradients, and d_c is that of c before the step.
void backward_gates(int64_t hidden, const Frame& now, const float* d_h, float* d_c) {
  for (int64_t place = 0; place < hidden * TILE; place += LANES) {
    float* gates = gates_at(now, place);
    const vec i = vec_at(gates), f = vec_at(gates + TILE), g = vec_at(gates + 2 * TILE),
              o = vec_at(gates + 3 * TILE);
    const vec tanh_c = vec_at(now.tanh_c + place), dh = vec_at(d_h + place);
    const vec dc = vec_at(d_c + place) + dh * o * (1.0f - tanh_c * tanh_c);
    vec_at(gates) = dc * g * (i * (1.0f - i));
    vec_at(gates + TILE) = dc * vec_at(now.cell + place) * (f * (1.0f - f));
    vec_at(gates + 2 * TILE) = dc * i * (1.0f - g * g);
    vec_at(gates + 3 * TILE) = dh * tanh_c * (o * (1.0f - o));
    vec_at(d_c + place) = dc * f;
  }
}

// Passes rows [begin, end) of W^T d_gates to put(row, lane, vector).
template <class Put>
void backward_panel(const Layer& layer, const float* d_gates, int64_t begin, int64_t end,
                    const Put& put) {
  in_blocks<PANEL_ROWS>(begin, end, [&]<int N>(int64_t row) {
    Sums<N, VECTORS> sums([](int, int) { return vec{}; });
    for (int64_t j = 0; j < layer.hidden; ++j)
      sums.add_product(4, &layer.packed[(j * layer.rows + row) * 4], [](int n) { return 4 * n; }, 1,
                       d_gates + 4 * j * TILE, TILE);
    sums.put([&](int n, int v, vec sum) { put(row + n, v * LANES, sum); });
  });
}

// Lines of TILE floats, at first + step * stride + k * TILE for k < count.
struct Rows {
  const float* first;
  int64_t stride, count;
};

// sums[r][c] += a[s][r] * b[s][c], summed over the steps s and the tile's vectors, lane by lane.
template <int R>
void outer_products(Rows a, Rows b, int64_t steps, float* sums) {
  for (int64_t r = 0; r < a.count; r += R)
    in_blocks<OUTER_COLUMNS>(0, b.count, [&]<int N>(int64_t c) {
      const auto at = [&](int n, int i) { return sums + ((r + i) * b.count + c + n) * LANES; };
      Sums<N, R> sum([&](int n, int i) { return vec_at(at(n, i)); });
      for (int64_t s = 0; s < steps; ++s) {
        const float* left = a.first + s * a.stride + r * TILE;
        const float* right = b.first + s * b.stride + c * TILE;
        for (int v = 0; v < TILE; v += LANES)
          sum.add([&](int n) { return vec_at(right + n * TILE + v); },
                  [&](int i) { return vec_at(left + i * TILE + v); });
      }
      sum.put([&](int n, int i, vec value) { vec_at(at(n, i)) = value; });
    });
}

// Forward and backward passes of one tile over a segment, in memory that a thread reuses.
struct Segment {
  const Network& net;
  int64_t steps;
  int64_t layers = net.layers.size(), line = net.hidden * TILE, stride = net.frame_floats;
  std::vector<Frame> frames = frames_of(net, steps + 1);
  Floats d_update = Floats(steps * TILE), d_h = Floats(layers * line), d_c = d_h,
         sums = Floats(net.n_weights * LANES);

  const Frame* at(int64_t step) const { return &frames[step * layers]; }

  void forward_steps(const Window& window, const float* start, const float* inputs) {
    window.load_state(start, net, at(0));
    for (int64_t t = 0; t < steps; ++t) {
      float* gradient = &d_update[t * TILE];  // borrows memory that backward needs later
      window.load(inputs + t * window.n, gradient);
      forward(net, gradient, at(t), at(t + 1));
    }
  }

  // The next two are not inlined: sharing registers with the surrounding code makes them a tenth
  // slower.
  [[gnu::noinline]] void backward_steps(const Window& window, const float* cotangents) {
    std::fill(d_h.begin(), d_h.end(), 0.0f);
    std::fill(d_c.begin(), d_c.end(), 0.0f);
    const int64_t top = layers - 1;
    for (int64_t t = steps - 1; t >= 0; --t) {
      float* d = &d_update[t * TILE];
      window.load(cotangents + t * window.n, d);
      for (int v = 0; v < TILE; v += LANES) {
        vec_at(d + v) *= net.scale;
        for (int64_t j = 0; j < net.hidden; ++j)
          vec_at(&d_h[top * line + j * TILE + v]) += net.out_w[j] * vec_at(d + v);
      }
      for (int64_t l = top; l >= 0; --l) {
        const Layer& layer = net.layers[l];
        const Frame& now = at(t)[l];
        float *d_h_here = &d_h[l * line], *d_h_below = d_h_here - line;
        backward_gates(net.hidden, now, d_h_here, &d_c[l * line]);
        backward_panel(layer, now.gates, l == 0 ? layer.in : 0, layer.in + net.hidden,
                       [&](int64_t row, int lane, vec value) {
                         if (row < layer.in)
                           vec_at(d_h_below + row * TILE + lane) += value;
                         else
                           vec_at(d_h_here + (row - layer.in) * TILE + lane) = value;
                       });
      }
    }
  }

  // Adds the weight gradients of steps [begin, end) to the sums.
  [[gnu::noinline]] void add_weight_gradients(int64_t begin, int64_t end) {
    float* to = sums.data();
    for (int64_t l = 0; l < layers; ++l) {
      const Layer& layer = net.layers[l];
      const Frame& now = at(begin)[l];
      const Rows d_gates{now.gates, stride, 4 * net.hidden};
      outer_products<OUTER_ROWS>(d_gates, {now.panel, stride, layer.rows}, end - begin, to);
      to += layer.packed.size() * LANES;
    }
    const Rows h{top_h(net, at(begin + 1)), stride, net.hidden + 1};
    outer_products<1>({&d_update[begin * TILE], TILE, 1}, h, end - begin, to);
  }

  void tile(const Window& window, const float* start, const float* inputs,
            const float* cotangents) {
    forward_steps(window, start, inputs);
    backward_steps(window, cotangents);
    for (int64_t t = 0; t < steps; t += GROUP) add_weight_gradients(t, std::min(t + GROUP, steps));
  }
};

// ---- operators

void check_network(const std::vector<at::Tensor>& weights, const at::Tensor& state, double p) {
  TORCH_CHECK(p > 0 && p <= 80, "p must be in (0, 80], not ", p);
  TORCH_CHECK(
      state.dim() == 4 && state.size(1) > 0 && int64_t(weights.size()) == 3 * state.size(1) + 2,
      "state must be (2, layers, hidden, n), with 3 weights for each layer and 2 for "
      "the output, not of shape ",
      state.sizes(), " with ", weights.size(), " weights");
  const int64_t hidden = state.size(2);
  check(state, {2, state.size(1), hidden, state.size(3)}, "state");
  for (int64_t l = 0; l < state.size(1); ++l) {
    check(weights[3 * l], {4 * hidden, l == 0 ? 2 : hidden}, "w_ih");
    check(weights[3 * l + 1], {4 * hidden, hidden}, "w_hh");
    check(weights[3 * l + 2], {4 * hidden}, "b");
  }
  check(weights[weights.size() - 2], {hidden}, "out.w");
  check(weights.back(), {}, "out.b");
}

// Changes the state; returns the update.
at::Tensor step(const std::vector<at::Tensor>& weights, at::Tensor& state,
                const at::Tensor& gradient, double p, double scale) {
  check_network(weights, state, p);
  const int64_t n = state.size(3);
  check(gradient, {n}, "gradient");
  const Network net(weights, p, scale);
  at::Tensor update = at::empty_like(gradient);
  at::parallel_for(0, (n + TILE - 1) / TILE, STEP_GRAIN, [&](int64_t begin, int64_t end) {
    const std::vector<Frame> frames = frames_of(net, 2);
    const Frame *now = &frames[0], *next = now + net.layers.size();
    alignas(64) float line[TILE];
    for (int64_t k = begin; k < end; ++k) {
      const Window window(n, k);
      window.load_state(state.const_data_ptr<float>(), net, now);
      window.load(gradient.const_data_ptr<float>(), line);
      forward(net, line, now, next);
      net.output(top_h(net, next), line);
      window.store(line, update.mutable_data_ptr<float>());
      window.store_state(state.mutable_data_ptr<float>(), net, next);
    }
  });
  return update;
}

std::vector<at::Tensor> segment_vjp(const std::vector<at::Tensor>& weights, const at::Tensor& start,
                                    const at::Tensor& inputs, const at::Tensor& cotangents,
                                    double p, double scale) {
  check_network(weights, start, p);
  const int64_t n = start.size(3), steps = inputs.size(0);
  check(inputs, {steps, n}, "inputs");
  check(cotangents, {steps, n}, "cotangents");
  const Network net(weights, p, scale);
  const int64_t tiles = (n + TILE - 1) / TILE;
  const int64_t chunk = std::max((tiles + MAX_CHUNKS - 1) / MAX_CHUNKS, MIN_CHUNK);
  const int64_t chunks = (tiles + chunk - 1) / chunk, n_weights = net.n_weights;
  std::vector<float> partial(chunks * n_weights);
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    Segment segment{net, steps};
    for (int64_t k = begin; k < end; ++k) {
      std::fill(segment.sums.begin(), segment.sums.end(), 0.0f);
      for (int64_t tile = k * chunk; tile < std::min((k + 1) * chunk, tiles); ++tile)
        segment.tile(Window(n, tile), start.const_data_ptr<float>(), inputs.const_data_ptr<float>(),
                     cotangents.const_data_ptr<float>());
      for (int64_t w = 0; w < n_weights; ++w)
        partial[k * n_weights + w] = sum_of_lanes(&segment.sums[w * LANES]);
    }
  });
  std::vector<double> total(n_weights);
  for (int64_t k = 0; k < chunks; ++k)
    for (int64_t w = 0; w < n_weights; ++w) total[w] += partial[k * n_weights + w];

  const std::vector<at::Tensor> gradients = like(weights);
  const double* from = total.data();
  for (size_t l = 0; l < net.layers.size(); ++l) {
    const Layer& layer = net.layers[l];
    float* to[3];
    for (int k = 0; k < 3; ++k) to[k] = gradients[3 * l + k].mutable_data_ptr<float>();
    layer.for_each_weight([&](int tensor, int64_t k, int64_t row, int64_t unit, int gate) {
      to[tensor][k] = from[(4 * unit + gate) * layer.rows + row];
    });
    from += layer.packed.size();
  }
  std::copy_n(from, net.hidden, gradients[weights.size() - 2].mutable_data_ptr<float>());
  *gradients.back().mutable_data_ptr<float>() = from[net.hidden];
  return gradients;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(lft, library) {
  define(library,
         "lstm_step_(Tensor[] weights, Tensor(a!) state, Tensor gradient, float p, float scale) -> "
         "Tensor",
         step);
  define(library,
         "lstm_segment_vjp(Tensor[] weights, Tensor start, Tensor inputs, Tensor cotangents, "
         "float p, float scale) -> Tensor[]",
         segment_vjp);
}
