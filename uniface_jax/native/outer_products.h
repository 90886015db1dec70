// The one inner loop of all kernels here: a small tile of sums, kept in registers, of products of a
// scalar of one operand and a row of vectors of the other. Operands are read where they lie.
#ifndef UNIFACE_OUTER_PRODUCTS_H_
#define UNIFACE_OUTER_PRODUCTS_H_

#include <algorithm>
#include <cstddef>

namespace uniface {

// A tile is ROWS x PANEL; its sums, a panel's row and a scalar fit the registers there are.
#if defined(__AVX512F__)
constexpr int kBytes = 64, kVectors = 4, kRows = 6;  // 24 sums of 32 registers
#elif defined(__AVX__)
constexpr int kBytes = 32, kVectors = 2, kRows = 6;  // 12 of 16
#elif defined(__aarch64__)
constexpr int kBytes = 16, kVectors = 4, kRows = 6;  // 24 of 32
#else
constexpr int kBytes = 16, kVectors = 2, kRows = 4;  // 8 of 16
#endif
constexpr int kWidth = kBytes / 4;  // floats of a vector
constexpr int kPanel = kVectors * kWidth;

typedef float Vec __attribute__((vector_size(kBytes), aligned(4), may_alias));
typedef int IntVec __attribute__((vector_size(kBytes)));

inline Vec Load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void Store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec Splat(float x) { return Vec{} + x; }
inline float Sum(Vec v) {
  float sum = 0;
  for (int i = 0; i < kWidth; ++i) sum += v[i];
  return sum;
}

// The terms of a sum: `runs` runs of `length`, a step apart within a run, where the steps from the end
// of a run to the beginning of the next are extra.
struct Terms {
  ptrdiff_t length, a_step, b_step, runs = 1, a_extra = 0, b_extra = 0;
};

// c[r][0..V*kWidth) = (fresh ? 0 : c[r][...]) + sum over the terms of a[r][...] * b[...].
template <int R, int V>
__attribute__((noinline)) void OuterTile(const float* const* a, const float* b, const Terms& terms,
                                         float* c, ptrdiff_t c_step, bool fresh) {
  Vec sums[R][V];
  const float* from[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) from[r] = a[r];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[r][v] = fresh ? Vec{} : Load(c + r * c_step + v * kWidth);
  const ptrdiff_t a_step = terms.a_step, b_step = terms.b_step;
  ptrdiff_t at = 0;
  for (ptrdiff_t run = 0; run < terms.runs; ++run, at += terms.a_extra, b += terms.b_extra) {
    for (const ptrdiff_t end = at + terms.length * a_step; at < end; at += a_step, b += b_step) {
      Vec row[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) row[v] = Load(b + v * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const float scalar = from[r][at];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sums[r][v] += scalar * row[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) Store(c + r * c_step + v * kWidth, sums[r][v]);
}

template <int R>
inline void OuterRows(int vectors, const float* const* a, const float* b, const Terms& terms, float* c,
                      ptrdiff_t c_step, bool fresh) {
  switch (vectors) {
    case 1: return OuterTile<R, 1>(a, b, terms, c, c_step, fresh);
    case 2: return OuterTile<R, 2>(a, b, terms, c, c_step, fresh);
#if defined(__AVX512F__) || defined(__aarch64__)
    case 3: return OuterTile<R, 3>(a, b, terms, c, c_step, fresh);
    case 4: return OuterTile<R, 4>(a, b, terms, c, c_step, fresh);
#endif
  }
}

// The same for 1..kRows rows and 1..kVectors vectors, known only now.
inline void Outer(int rows, int vectors, const float* const* a, const float* b, const Terms& terms,
                  float* c, ptrdiff_t c_step, bool fresh) {
  switch (rows) {
    case 1: return OuterRows<1>(vectors, a, b, terms, c, c_step, fresh);
    case 2: return OuterRows<2>(vectors, a, b, terms, c, c_step, fresh);
    case 3: return OuterRows<3>(vectors, a, b, terms, c, c_step, fresh);
    case 4: return OuterRows<4>(vectors, a, b, terms, c, c_step, fresh);
#if defined(__AVX__) || defined(__aarch64__)
    case 5: return OuterRows<5>(vectors, a, b, terms, c, c_step, fresh);
    case 6: return OuterRows<6>(vectors, a, b, terms, c, c_step, fresh);
#endif
  }
}

inline int VectorsFrom(ptrdiff_t start, ptrdiff_t size) {
  const ptrdiff_t left = (size - start) / kWidth;
  return static_cast<int>(left < kVectors ? left : kVectors);
}

// The part `task` of `count` of 0..total-1, in multiples of `unit`.
struct Range {
  ptrdiff_t begin, end;
};
inline Range Part(ptrdiff_t task, ptrdiff_t count, ptrdiff_t total, ptrdiff_t unit = 1) {
  const ptrdiff_t units = (total + unit - 1) / unit;
  return {std::min(total, units * task / count * unit),
          std::min(total, units * (task + 1) / count * unit)};
}

// Outer for any number of rows, a_row apart in a: even tiles, since small ones are slow.
inline void Products(const float* a, ptrdiff_t a_row, ptrdiff_t rows, const float* b,
                     const Terms& terms, int vectors, float* c, ptrdiff_t c_row, bool fresh) {
  const ptrdiff_t tiles = (rows + kRows - 1) / kRows;
  const float* from[kRows];
  for (ptrdiff_t tile = 0; tile < tiles; ++tile) {
    const Range part = Part(tile, tiles, rows);
    for (ptrdiff_t r = part.begin; r < part.end; ++r) from[r - part.begin] = a + r * a_row;
    Outer(static_cast<int>(part.end - part.begin), vectors, from, b, terms,
          c + part.begin * c_row, c_row, fresh);
  }
}

}  // namespace uniface

#endif  // UNIFACE_OUTER_PRODUCTS_H_
