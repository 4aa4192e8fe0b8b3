// Vectors of floats, blocks of sums that stay in registers, and aligned memory.

#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

// Goes before loops over vectors that must stay in registers: on its own GCC unrolls them too late.
#define LFT_UNROLL _Pragma("GCC unroll 32")
#define LFT_INLINE [[gnu::always_inline]]

namespace lft {

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif
constexpr bool LARGE = REGISTERS == 32;

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), may_alias, aligned(4)));
typedef int32_t ivec __attribute__((vector_size(LANES * sizeof(int32_t)), may_alias, aligned(4)));

inline vec& vec_at(float* p) { return *reinterpret_cast<vec*>(p); }
inline vec vec_at(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline vec all(float x) { return x - vec{}; }

// Rounds a number of floats up to whole vectors.
constexpr int64_t padded(int64_t floats) { return (floats + LANES - 1) / LANES * LANES; }

// to += factor * from, in whole vectors.
inline void add_multiple(float factor, const float* from, int64_t floats, float* to) {
  for (int64_t k = 0; k < floats; k += LANES) vec_at(to + k) += factor * vec_at(from + k);
}

// Calls f<N>(begin) over [begin, end) in blocks of N <= MAX that are as equal as possible, because
// a small block has too few sums to keep the multipliers busy.
template <int MAX, class F>
void in_blocks(int64_t begin, int64_t end, const F& f) {
  if (begin == end) return;
  const int64_t blocks = (end - begin + MAX - 1) / MAX;
  const int64_t size = (end - begin + blocks - 1) / blocks;
  const auto call = [&](int64_t n) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
      ((n == I + 1 ? f.template operator()<I + 1>(begin) : void()), ...);
    }(std::make_integer_sequence<int, MAX>());
  };
  for (; begin < end; begin += size) call(std::min(size, end - begin));
}

// R x V vectors of sums in registers. Every product in the kernels consists of these: a number,
// broadcast to all lanes, times vectors.
template <int R, int V>
class Sums {
 public:
  // start(r, v): initial value of a sum.
  template <class Start>
  LFT_INLINE explicit Sums(const Start& start) {
    LFT_UNROLL for (int r = 0; r < R; ++r)
      LFT_UNROLL for (int v = 0; v < V; ++v) sums_[r][v] = start(r, v);
  }

  // Adds a(r) b(v), with one a at a time to save registers.
  template <class A, class B>
  LFT_INLINE void add(const A& a, const B& b) {
    vec lanes[V];
    LFT_UNROLL for (int v = 0; v < V; ++v) lanes[v] = b(v);
    LFT_UNROLL for (int r = 0; r < R; ++r)
      LFT_UNROLL for (int v = 0; v < V; ++v) sums_[r][v] += a(r) * lanes[v];
  }

  // Adds a b for a matrix a of n columns, whose row r begins at a + row(r), and a matrix b of n
  // rows.
  template <class Row>
  LFT_INLINE void add_product(int64_t n, const float* a, const Row& row, int64_t column,
                              const float* b, int64_t stride) {
    for (; n > 0; --n, a += column, b += stride)
      add([&](int r) { return a[row(r)]; }, [&](int v) { return vec_at(b + v * LANES); });
  }

  // Calls to(r, v, sum).
  template <class To>
  LFT_INLINE void put(const To& to) const {
    LFT_UNROLL for (int r = 0; r < R; ++r)
      LFT_UNROLL for (int v = 0; v < V; ++v) to(r, v, sums_[r][v]);
  }

 private:
  vec sums_[R][V];
};

// Allocates whole cache lines.
template <class T>
struct Aligned {
  using value_type = T;

  T* allocate(size_t n) {
    const size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    TORCH_CHECK_WITH(OutOfMemoryError, memory, "no memory for ", bytes, " bytes of activations");
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { std::free(memory); }
  bool operator==(const Aligned&) const { return true; }
};
using Floats = std::vector<float, Aligned<float>>;

// Rows of floats, padded with zeros to whole vectors.
struct Matrix {
  int64_t rows, columns;
  int64_t stride = padded(columns);
  Floats data = Floats(rows * stride);

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

}  // namespace lft
